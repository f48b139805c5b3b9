//! The first data directory: `initdb`, roles, the application's database, extra SQL.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_core::instance::{DiskState, HowToStop, SyncNames};
use holdfast_wire::REPLICATION_ROLE;

use crate::catalog::Catalog;
use crate::error::{Error, Result, file};
use crate::files::{read_optional, remove_all};
use crate::pg::Pg;
use crate::session::{Session, identifier, literal, within};
use crate::volume;

/// One statement of the bootstrap; the user's own SQL has none.
const DEADLINE: Duration = Duration::from_secs(60);

impl Pg {
    /// Makes the first data directory. Its identity is on disk before it is in place.
    pub async fn initdb(self: &Arc<Self>) -> Result<()> {
        let layout = self.layout();
        let making = layout.making();
        crate::process::kill_all(making.clone()).await;
        remove_all(&making)?;
        let b = &self.settings.bootstrap;
        let dir = making.to_string_lossy().into_owned();
        let (encoding, locale) = (format!("--encoding={}", b.encoding), format!("--locale={}", b.locale));
        let segment = format!("--wal-segsize={}", b.wal_segment_mib);
        let mut args = vec![
            "-D",
            &dir,
            "--username=postgres",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            &encoding,
            &locale,
            &segment,
        ];
        if b.data_checksums {
            args.push("--data-checksums");
        } else if self.bin.major >= 18 {
            args.push("--no-data-checksums");
        }
        self.bin.run("initdb", &args, Duration::from_secs(600)).await?;
        {
            let mut wish = self.wish();
            wish.sync = SyncNames::Alone;
            wish.upstream = None;
            wish.floors.clear();
            wish.open = false;
            wish.ready = false;
            wish.stopping = false;
            // Not checked yet: only a running engine has the table to check them by.
            wish.checked.clear();
        }
        self.write_files()?;
        // Nobody but the agent can connect, and statements with a password's verifier or the user's SQL stay out of the log.
        let args = [
            "listen_addresses=",
            "log_statement=none",
            "log_min_error_statement=panic",
        ];
        let args: Vec<&str> = args.iter().flat_map(|a| ["-c", a]).collect();
        self.launch_at(&making, &args)?;
        let done = self.fill().await;
        let how = match &done {
            Ok(()) => HowToStop::Clean,
            Err(_) => HowToStop::Fence { kill_after_ms: 1000 },
        };
        self.stop(how).await?;
        self.until_down().await;
        done?;
        let disk = DiskState {
            dir: Some(volume::new_dir_id(&self.settings.member)),
            ..DiskState::default()
        };
        self.write_disk(move |d| *d = disk).await?;
        volume::place(layout)
    }

    async fn fill(&self) -> Result<()> {
        let begun = Instant::now();
        let admin = loop {
            match self.session("holdfast bootstrap", DEADLINE).await {
                Ok(s) => break s,
                Err(_) if begun.elapsed() < DEADLINE && matches!(self.process(), crate::pg::Process::Up { .. }) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(e) => return Err(self.heard.fatal().map_or_else(|| e.into(), Error::State)),
            }
        };
        let b = &self.settings.bootstrap;
        let owner = identifier(&b.owner);
        run(&admin, &replication_role()).await?;
        let password = self.owner_password()?;
        if b.owner != "postgres" {
            // The verifier is computed here: a password never reaches a statement.
            let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
            run(
                &admin,
                &format!("CREATE ROLE {owner} LOGIN PASSWORD {}", literal(&verifier)),
            )
            .await?;
        }
        if b.database != "postgres" {
            run(
                &admin,
                &format!("CREATE DATABASE {} OWNER {owner}", identifier(&b.database)),
            )
            .await?;
        }
        let app = Session::open(
            &self.layout().socket_dir(),
            self.settings.port,
            &b.database,
            "holdfast bootstrap",
            DEADLINE,
        )
        .await?;
        for path in self.extra_sql()? {
            let sql = std::fs::read_to_string(&path).map_err(file("read", &path))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            tracing::info!(file = name, "runs bootstrap SQL");
            app.batch_execute("SET search_path = \"$user\", public").await?;
            app.batch_execute(&sql)
                .await
                .map_err(|e| Error::Permanent(format!("bootstrap SQL {name}: {}", crate::error::describe(&e))))?;
        }
        Catalog::read(&admin).await.map(|c| {
            c.save(self.layout());
            self.wish().catalog = Some(c);
        })
    }

    fn owner_password(&self) -> Result<String> {
        let path = self.layout().bootstrap.join("app-password");
        let bytes = read_optional(&path)?
            .ok_or_else(|| Error::State(format!("waits for the owner's password in {}", path.display())))?;
        let text =
            String::from_utf8(bytes).map_err(|_| Error::Permanent("the owner's password is not UTF-8".to_owned()))?;
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(Error::Permanent("the owner's password is empty".to_owned())),
            password => Ok(password.to_owned()),
        }
    }

    fn extra_sql(&self) -> Result<Vec<PathBuf>> {
        let dir = &self.layout().bootstrap;
        let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
            .map_err(file("list", dir))?
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.extension().is_some_and(|e| e == "sql"))
            .collect();
        files.sort();
        Ok(files)
    }
}

/// The role that standbys stream as, with what a rewind needs (`pg_rewind`'s functions, a checkpoint) and no more.
fn replication_role() -> String {
    let grants: String = [
        "pg_ls_dir(text, boolean, boolean)",
        "pg_stat_file(text, boolean)",
        "pg_read_binary_file(text)",
        "pg_read_binary_file(text, bigint, bigint, boolean)",
    ]
    .iter()
    .map(|f| format!("GRANT EXECUTE ON FUNCTION pg_catalog.{f} TO {REPLICATION_ROLE};"))
    .collect();
    format!("CREATE ROLE {REPLICATION_ROLE} LOGIN REPLICATION; GRANT pg_checkpoint TO {REPLICATION_ROLE}; {grants}")
}

async fn run(session: &Session, sql: &str) -> Result<()> {
    within(DEADLINE, session.batch_execute(sql)).await
}
