//! Several real agents on one machine, sharing a folder in the API server's place. Each is a process of its own with a
//! loopback address of its own.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_agent::Options;
use holdfast_agent::options::ClusterKind;
use holdfast_core::failover::{MemberName, Phase, Record};
use holdfast_core::instance::{Durability, MemberSpec, SetSpec, Timings};
use holdfast_postgres::{Archive, Layout};
use holdfast_wire::{Bootstrap, MemberStatus};
use serde_json::{Value, json};

/// The environment variable that makes the test program an agent.
pub const AGENT: &str = "HOLDFAST_TEST_AGENT";
pub const PASSWORD: &str = "not-a-secret";
const NOBODY: u32 = 65534;

/// Runs as an agent if the environment says so; in a test of that name.
pub fn agent_process() {
    let Ok(text) = std::env::var(AGENT) else { return };
    let v: Value = serde_json::from_str(&text).unwrap();
    let root = PathBuf::from(v["root"].as_str().unwrap());
    let name = v["name"].as_str().unwrap().to_owned();
    let port = |k: &str| u16::try_from(v[k].as_u64().unwrap()).unwrap();
    let address = v["address"].as_str().unwrap().to_owned();
    let mine = root.join(&name);
    let options = Options {
        member: MemberName(name),
        set: "a".into(),
        namespace: "test".into(),
        address: address.clone(),
        pod_uid: "uid".into(),
        bootstrap: Bootstrap {
            database: "shop".into(),
            owner: "app".into(),
            encoding: "UTF8".into(),
            locale: "C.UTF-8".into(),
            data_checksums: true,
            wal_segment_mib: 4,
        },
        layout: Layout {
            volume: mine.join("volume"),
            run: mine.join("run"),
            tls: mine.join("tls"),
            bootstrap: root.join("bootstrap"),
            spec: mine.join("spec"),
        },
        archive: v["archive"].as_str().map(|program| Archive {
            folder: root.join("archive/test.a"),
            program: program.into(),
        }),
        listen: address,
        postgres_port: port("postgres"),
        peer_port: port("peer"),
        health_port: port("health"),
        cluster: ClusterKind::Folder(root.join("cluster")),
        timings: Timings::default(),
        path: std::env::var("PATH").unwrap(),
    };
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(std::env::var("RUST_LOG").unwrap_or("info".into()))
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .unwrap();
    runtime.block_on(holdfast_agent::run(options)).unwrap();
    runtime.shutdown_background();
    std::process::exit(0);
}

/// A replica set of agents.
pub struct Set {
    pub dir: tempfile::TempDir,
    pub names: Vec<String>,
    /// The program that archives log, for agents started from now on.
    archive: Option<PathBuf>,
    agents: Vec<Option<Child>>,
    ports: [u16; 3],
}

impl Drop for Set {
    fn drop(&mut self) {
        for n in 0..self.agents.len() {
            self.kill_agent(n);
            self.kill_engine(n);
        }
        if std::thread::panicking() {
            for name in &self.names {
                let log = std::fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let from = lines.len().saturating_sub(40);
                eprintln!("--- {name}\n{}", lines[from..].join("\n"));
            }
            let _ = std::fs::remove_dir_all("/tmp/holdfast-last-failure");
            let _ = std::fs::create_dir_all("/tmp/holdfast-last-failure");
            for name in &self.names {
                let _ = std::fs::copy(
                    self.dir.path().join(format!("{name}.log")),
                    format!("/tmp/holdfast-last-failure/{name}.log"),
                );
            }
        }
    }
}

impl Set {
    /// Makes the shared folder and starts all agents.
    pub fn begin(size: usize, copies: u16, parameters: &[(&str, &str)]) -> Set {
        Set::begin_with(size, copies, parameters, "")
    }

    /// The same, with bootstrap SQL.
    pub fn begin_with(size: usize, copies: u16, parameters: &[(&str, &str)], sql: &str) -> Set {
        Set::make(size, copies, parameters, sql, None)
    }

    /// The same, with a log archive.
    pub fn begin_archiving(size: usize, copies: u16, program: &Path) -> Set {
        Set::make(size, copies, &[], "", Some(program.to_owned()))
    }

    fn make(size: usize, copies: u16, parameters: &[(&str, &str)], sql: &str, archive: Option<PathBuf>) -> Set {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests start agents as another user: run them as root"
        );
        let names: Vec<String> = (1..=size).map(|n| format!("a-{n}")).collect();
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let held = [free(), free(), free()];
        let ports = held.each_ref().map(|l| l.local_addr().unwrap().port());
        let mut set = Set {
            dir: tempfile::Builder::new().prefix("hfa").tempdir_in("/tmp").unwrap(),
            agents: names.iter().map(|_| None).collect(),
            names,
            archive,
            ports,
        };
        let root = set.dir.path().to_owned();
        for d in ["cluster", "bootstrap", "archive"] {
            std::fs::create_dir(root.join(d)).unwrap();
        }
        std::fs::write(root.join("bootstrap/app-password"), PASSWORD).unwrap();
        std::fs::write(root.join("bootstrap/10-test.sql"), sql).unwrap();
        set.certificates();
        set.wish(1, copies, parameters);
        let record = Record::bootstrap(MemberName(set.names[0].clone()));
        std::fs::write(
            root.join("cluster/record.json"),
            json!({ "version": 1, "record": record }).to_string(),
        )
        .unwrap();
        own(&root);
        drop(held);
        for n in 0..size {
            set.start_agent(n);
        }
        set
    }

    pub fn wish(&self, generation: i64, copies: u16, parameters: &[(&str, &str)]) {
        let members = self.names.iter().enumerate().map(|(n, m)| MemberSpec {
            name: MemberName(m.clone()),
            address: Some(address(n)),
            leaving: false,
            fenced: false,
        });
        let spec = SetSpec {
            generation,
            members: members.collect(),
            durability: Durability::Quorum,
            copies,
            maximum_lag_bytes: 0,
            read_lag_bytes: 1 << 20,
            parameters: parameters
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            command: None,
        };
        self.put_wish(&spec);
    }

    /// Asks for a switchover, as a person does.
    pub fn switch_over(&self, to: usize) {
        let from = self.dir.path().join("cluster/spec.json");
        let mut spec: SetSpec = serde_json::from_str(&std::fs::read_to_string(from).unwrap()).unwrap();
        spec.generation += 1;
        spec.command = Some(holdfast_core::instance::Command::Switchover {
            id: format!("to {to}, {}", spec.generation),
            to: Some(MemberName(self.names[to].clone())),
        });
        self.put_wish(&spec);
    }

    fn put_wish(&self, spec: &SetSpec) {
        let to = self.dir.path().join("cluster/spec.json");
        let new = to.with_extension("new");
        std::fs::write(&new, serde_json::to_string(spec).unwrap()).unwrap();
        std::fs::rename(new, to).unwrap();
    }

    pub fn certificates(&self) {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        for name in &self.names {
            let mut params = rcgen::CertificateParams::new(vec![name.clone()]).unwrap();
            params.distinguished_name.push(rcgen::DnType::CommonName, name.as_str());
            let key = rcgen::KeyPair::generate().unwrap();
            let cert = params.signed_by(&key, &ca).unwrap();
            let tls = self.dir.path().join(name).join("tls");
            std::fs::create_dir_all(&tls).unwrap();
            std::fs::write(tls.join("tls.crt"), cert.pem()).unwrap();
            std::fs::write(tls.join("tls.key"), key.serialize_pem()).unwrap();
            std::fs::write(tls.join("ca.crt"), ca.pem()).unwrap();
        }
        own(self.dir.path());
    }

    pub fn start_agent(&mut self, n: usize) {
        let root = self.dir.path();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(root.join(format!("{}.log", self.names[n])))
            .unwrap();
        let what = json!({
            "root": root, "name": self.names[n], "address": address(n),
            "postgres": self.ports[0], "peer": self.ports[1], "health": self.ports[2],
            "archive": self.archive,
        });
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["agent_process", "--exact", "--nocapture"])
            .env(AGENT, what.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .uid(NOBODY)
            .gid(NOBODY)
            .process_group(0)
            .spawn()
            .unwrap();
        self.agents[n] = Some(child);
    }

    /// SIGTERM, as a drain does; gives how long it took.
    pub fn stop_agent(&mut self, n: usize) -> Duration {
        let begun = Instant::now();
        let mut child = self.agents[n].take().unwrap();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()),
            nix::sys::signal::SIGTERM,
        )
        .unwrap();
        assert!(child.wait().unwrap().success());
        begun.elapsed()
    }

    pub fn kill_agent(&mut self, n: usize) {
        if let Some(mut child) = self.agents[n].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGKILL for every process of a member's engine.
    pub fn kill_engine(&self, n: usize) {
        for pid in holdfast_postgres::process::in_directory(&self.member(n).join("volume/pgdata")) {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL);
        }
    }

    pub fn member(&self, n: usize) -> PathBuf {
        self.dir.path().join(&self.names[n])
    }

    pub fn resident(&self, n: usize) -> u64 {
        let pid = self.agents[n].as_ref().unwrap().id();
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| {
            text.lines()
                .find_map(|l| l.strip_prefix(name))
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        eprintln!("  of it anonymous {}, file {}", field("RssAnon:"), field("RssFile:"));
        let kb = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        kb.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn record(&self) -> Record {
        let text = std::fs::read_to_string(self.dir.path().join("cluster/record.json")).unwrap();
        let v: Value = serde_json::from_str(&text).unwrap();
        serde_json::from_value(v["record"].clone()).unwrap()
    }

    /// Somebody leads with every other member in the rule, and takes the traffic.
    pub fn led_by_all(&self) -> bool {
        let r = self.record();
        r.phase == Phase::Leading && r.rule.standbys.len() == self.names.len() - 1 && self.endpoints()["rw"].is_string()
    }

    pub fn endpoints(&self) -> Value {
        let text = std::fs::read_to_string(self.dir.path().join("cluster/endpoints.json")).unwrap_or("{}".into());
        serde_json::from_str(&text).unwrap()
    }

    pub fn status(&self, n: usize) -> Option<MemberStatus> {
        let path = self.dir.path().join(format!("cluster/{}.status.json", self.names[n]));
        serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
    }

    /// Waits until something holds; gives how long that took.
    pub fn until(&self, what: &str, within: Duration, holds: impl Fn(&Set) -> bool) -> Duration {
        let begun = Instant::now();
        while !holds(self) {
            assert!(
                begun.elapsed() < within,
                "{what}: not within {within:?}; record {:?}, endpoints {}",
                self.record(),
                self.endpoints()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        begun.elapsed()
    }

    /// SQL as the application, on whoever the traffic goes to.
    pub fn sql(&self, sql: &str) -> Result<String, String> {
        let to = self.endpoints()["rw"].as_str().ok_or("no leader")?.to_owned();
        self.sql_on(&to, sql)
    }

    pub fn sql_on(&self, address: &str, sql: &str) -> Result<String, String> {
        let out = Command::new(program("psql"))
            .args(["-XAtqc", sql, &self.url(address)])
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        if out.status.success() {
            return Ok(String::from_utf8(out.stdout).unwrap().trim().to_owned());
        }
        Err(String::from_utf8(out.stderr).unwrap())
    }

    /// How the application reaches a member.
    pub fn url(&self, address: &str) -> String {
        format!(
            "host={address} port={} user=app dbname=shop password={PASSWORD} sslmode=require connect_timeout=3",
            self.ports[0]
        )
    }

    pub fn get(&self, n: usize, path: &str) -> String {
        use std::io::{Read, Write};
        let Ok(mut s) = std::net::TcpStream::connect((address(n), self.ports[2])) else {
            return String::new();
        };
        s.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .unwrap();
        let mut text = String::new();
        let _ = s.read_to_string(&mut text);
        text
    }

    pub fn number(&self, member: &MemberName) -> usize {
        self.names.iter().position(|n| *n == member.0).unwrap()
    }
}

/// One of PostgreSQL's own programs.
pub fn program(name: &str) -> PathBuf {
    std::fs::read_dir("/usr/lib/postgresql")
        .expect("these tests need real PostgreSQL binaries: install the Debian package postgresql-15 or newer")
        .map(|e| e.unwrap().path().join("bin").join(name))
        .find(|p| p.exists())
        .expect("the programs of the Debian package postgresql-client-15 or newer")
}

pub fn address(n: usize) -> String {
    format!("127.0.0.{}", n + 2)
}

fn own(root: &Path) {
    let status = Command::new("chown")
        .arg("-R")
        .arg(format!("{NOBODY}:{NOBODY}"))
        .arg(root)
        .status()
        .unwrap();
    assert!(status.success());
}
