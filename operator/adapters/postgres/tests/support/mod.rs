//! Real engines on one machine: each member has a loopback address of its own, and the same port.

use std::future::Future;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_core::failover::{MemberName, Term};
use holdfast_core::instance::{Durability, Engine, MemberSpec, SetSpec, StartAs, SyncNames, Upstream};
use holdfast_postgres::{Archive, Binaries, Layout, Observer, Pg, Settings};
use holdfast_wire::Bootstrap;

/// Runs a test's body. PostgreSQL refuses root, so as root the test is run again as `nobody`.
pub fn unprivileged(name: &str, body: impl Future<Output = ()>) {
    if nix::unistd::geteuid().is_root() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env("TMPDIR", "/tmp")
            .uid(65534)
            .gid(65534)
            .status()
            .unwrap();
        assert!(status.success(), "{name} failed as nobody");
        return;
    }
    let _ = tracing_subscriber::fmt()
        .with_env_filter(std::env::var("RUST_LOG").unwrap_or("warn".into()))
        .try_init();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(body);
}

/// Waits until something is so.
#[allow(dead_code, reason = "not every program of tests needs it")]
pub async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !so().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "never {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A replica set's folder, CA and port.
pub struct Set {
    pub dir: tempfile::TempDir,
    /// For members made from now on.
    pub archive: Option<Archive>,
    ca: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    port: u16,
    members: Vec<String>,
}

/// One member.
pub struct Member {
    pub pg: Arc<Pg>,
    pub seen: Observer,
    pub address: String,
}

impl Set {
    pub fn new(members: &[&str]) -> Set {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        Set {
            dir: tempfile::Builder::new().prefix("hf").tempdir_in("/tmp").unwrap(),
            archive: None,
            ca,
            port,
            members: members.iter().map(|m| (*m).to_owned()).collect(),
        }
    }

    pub fn spec(&self, parameters: &[(&str, &str)]) -> SetSpec {
        SetSpec {
            generation: 1,
            members: self
                .members
                .iter()
                .map(|m| MemberSpec {
                    name: MemberName(m.clone()),
                    address: None,
                    leaving: false,
                    fenced: false,
                })
                .collect(),
            durability: Durability::Quorum,
            copies: 2,
            maximum_lag_bytes: 0,
            read_lag_bytes: 0,
            parameters: parameters
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            command: None,
        }
    }

    pub async fn member(&self, n: usize) -> Member {
        let name = self.members[n].clone();
        let root = self.dir.path().join(&name);
        let layout = Layout {
            volume: root.join("volume"),
            run: root.join("run"),
            tls: root.join("tls"),
            bootstrap: root.join("bootstrap"),
            spec: root.join("spec"),
        };
        std::fs::create_dir_all(&layout.bootstrap).unwrap();
        std::fs::write(layout.bootstrap.join("app-password"), "s3cret'pass\n").unwrap();
        std::fs::write(
            layout.bootstrap.join("10-table.sql"),
            "CREATE TABLE extra (n int); GRANT ALL ON extra TO app;",
        )
        .unwrap();
        self.certificate(&name, &layout.tls);
        let address = format!("127.0.0.{}", n + 2);
        let settings = Settings {
            member: MemberName(name),
            layout,
            listen: address.clone(),
            port: self.port,
            bootstrap: Bootstrap {
                database: "shop".into(),
                owner: "app".into(),
                encoding: "UTF8".into(),
                locale: "C.UTF-8".into(),
                data_checksums: true,
                wal_segment_mib: 4,
            },
            archive: self.archive.clone(),
        };
        let bin = Binaries::find(&std::env::var("PATH").unwrap())
            .await
            .expect("these tests need real PostgreSQL binaries: install the Debian package postgresql-15 or newer");
        let pg = Pg::new(settings, bin).await.unwrap();
        pg.set_spec(&self.spec(&[])).unwrap();
        let seen = Observer::new(Arc::clone(&pg));
        Member { pg, seen, address }
    }

    fn certificate(&self, name: &str, to: &Path) {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.ca).unwrap();
        std::fs::create_dir_all(to).unwrap();
        std::fs::write(to.join("tls.crt"), cert.pem()).unwrap();
        std::fs::write(to.join("tls.key"), key.serialize_pem()).unwrap();
        std::fs::write(to.join("ca.crt"), self.ca.pem()).unwrap();
    }
}

impl Member {
    pub fn upstream(&self, term: u32) -> Upstream {
        Upstream {
            member: self.pg.settings.member.clone(),
            term: Term(term),
            address: self.address.clone(),
        }
    }

    /// Looks until what is seen is as expected.
    pub async fn until(&mut self, what: &str, fits: impl Fn(&Engine) -> bool) -> Engine {
        let begun = Instant::now();
        loop {
            let engine = self.seen.observe().await;
            if fits(&engine) {
                return engine;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "never {what}: {engine:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn sql(&self, sql: &str) -> Result<Vec<String>, String> {
        let s = self
            .pg
            .session("test", Duration::from_secs(5))
            .await
            .map_err(|e| format!("{e:?}"))?;
        let rows = tokio::time::timeout(Duration::from_secs(20), s.query(sql, &[]))
            .await
            .map_err(|e| e.to_string())?;
        let rows = rows.map_err(|e| holdfast_postgres::error::describe(&e))?;
        Ok(rows.iter().map(|r| r.get::<_, String>(0)).collect())
    }

    #[allow(dead_code, reason = "not every program of tests needs it")]
    pub fn pgdata(&self) -> PathBuf {
        self.pg.layout().pgdata()
    }

    /// Takes up the identity that the volume has.
    pub async fn know(&self, following: u32) {
        let seen = holdfast_postgres::volume::look(&self.pg.bin, self.pg.layout())
            .await
            .unwrap();
        assert!(seen.whole && seen.disk.dir.is_some(), "{seen:?}");
        self.pg.know(seen.disk.dir, Some(Term(following)));
    }
}

/// A leader, and two standbys that stream from it.
#[allow(dead_code, reason = "not every program of tests needs it")]
pub async fn streaming() -> (Set, Member, Member, Member) {
    let set = Set::new(&["a-1", "a-2", "a-3"]);
    let (mut a, mut b, mut c) = (set.member(0).await, set.member(1).await, set.member(2).await);
    a.pg.initdb().await.unwrap();
    a.know(1).await;
    a.pg.start(StartAs::Primary { sync: SyncNames::Alone }).await.unwrap();
    a.until("a primary", |e| matches!(e, Engine::Primary(_))).await;
    a.pg.slots(&["a-2", "a-3"].map(|m| MemberName(m.into())).into())
        .await
        .unwrap();
    for m in [&mut b, &mut c] {
        m.pg.clone_from(&a.upstream(1)).await.unwrap();
        m.know(1).await;
        let upstream = Some(a.upstream(1));
        m.pg.start(StartAs::Standby { upstream }).await.unwrap();
        m.until("streaming", |e| matches!(e, Engine::Standby(s) if s.receiving))
            .await;
    }
    a.until(
        "two standbys",
        |e| matches!(e, Engine::Primary(p) if p.replicas.iter().filter(|r| r.streaming).count() == 2),
    )
    .await;
    (set, a, b, c)
}
