//! Rewinding a directory to another member's log.

use std::time::{Duration, Instant};

use holdfast_core::failover::Term;
use holdfast_core::instance::Upstream;

use crate::conf::conninfo;
use crate::error::{Error, Result};
use crate::files::remove_all;
use crate::pg::Pg;

/// How long a new leader is given to make the checkpoint after its promotion by itself.
const OWN_CHECKPOINT: Duration = Duration::from_secs(5);
/// Longest checkpoint that is waited for.
const CHECKPOINT: Duration = Duration::from_secs(3600);
const ANSWER: Duration = Duration::from_secs(10);

impl Pg {
    /// Rewinds the stopped directory to the leader's log.
    pub async fn rewind(&self, to: &Upstream) -> Result<()> {
        let pgdata = self.layout().pgdata();
        self.write_files()?;
        let info = conninfo(
            self.layout(),
            &to.address,
            self.settings.port,
            "holdfast_rewind",
            Some("postgres"),
        );
        self.wait_for_checkpoint(&info, to.term).await?;
        // pg_rewind first lets the engine recover in single-user mode, which refuses standby mode.
        remove_all(&pgdata.join("standby.signal"))?;
        let (dir, source) = (pgdata.to_string_lossy(), format!("--source-server={info}"));
        let config = format!("--config-file={}", self.layout().conf().display());
        let args = ["-D", &dir, &source, &config];
        self.bin.run("pg_rewind", &args, Duration::from_secs(24 * 3600)).await?;
        Ok(())
    }

    /// Returns once the leader's control file names its term. Until the checkpoint after a promotion `pg_rewind` of
    /// PostgreSQL 15 takes the leader to be on its former timeline: it finds nothing to do, or another fork than the real
    /// one, and leaves blocks that the leader never had ("Notes" of `pg_rewind`'s page in PostgreSQL's manual).
    async fn wait_for_checkpoint(&self, info: &str, term: Term) -> Result<()> {
        let begun = Instant::now();
        loop {
            let sql = "SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()";
            let said = self.ask(info, sql, ANSWER).await?;
            if said.trim().parse() == Ok(term.0) {
                return Ok(());
            }
            if begun.elapsed() > CHECKPOINT {
                return Err(Error::State(format!(
                    "the leader's last checkpoint is still on timeline {}, not {term}",
                    said.trim()
                )));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            if begun.elapsed() > OWN_CHECKPOINT {
                self.ask(info, "CHECKPOINT", CHECKPOINT).await?;
            }
        }
    }

    /// Runs SQL on another member's engine and gives what it answered.
    async fn ask(&self, info: &str, sql: &str, deadline: Duration) -> Result<String> {
        self.bin.run("psql", &["-XAtqw", "-c", sql, "-d", info], deadline).await
    }
}
