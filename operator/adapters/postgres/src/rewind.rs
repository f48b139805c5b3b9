//! Rewinding a directory to another member's log.

use std::time::{Duration, Instant};

use holdfast_core::failover::Term;
use holdfast_core::instance::Upstream;

use crate::archive::waiting;
use crate::conf::conninfo;
use crate::error::{Error, Result};
use crate::files::remove_all;
use crate::pg::Pg;

/// From this version on `pg_rewind` looks at the end of recovery as well, which names the new timeline at once.
const SEES_PROMOTIONS: u32 = 16;
/// How long a new leader is given to make the checkpoint after its promotion by itself.
const OWN_CHECKPOINT: Duration = Duration::from_secs(5);
/// Longest checkpoint that is waited for.
const CHECKPOINT: Duration = Duration::from_secs(600);
/// Longest that one question may take; a checkpoint goes on without whoever asked for it.
const ANSWER: Duration = Duration::from_secs(30);
/// A leader that does not answer for so long is not waited for: its engine starts again, or it leads no more.
const SILENCE: Duration = Duration::from_secs(20);

impl Pg {
    /// Rewinds the stopped directory to the leader's log.
    pub async fn rewind(&self, to: &Upstream) -> Result<()> {
        self.gone().await;
        let pgdata = self.layout().pgdata();
        self.write_files()?;
        let info = conninfo(
            self.layout(),
            &to.address,
            self.settings.port,
            "holdfast_rewind",
            Some("postgres"),
        );
        if self.bin.major < SEES_PROMOTIONS {
            self.wait_for_checkpoint(&info, to.term).await?;
        }
        // pg_rewind first lets the engine recover in single-user mode, which refuses standby mode.
        remove_all(&pgdata.join("standby.signal"))?;
        let (dir, source) = (pgdata.to_string_lossy(), format!("--source-server={info}"));
        let config = format!("--config-file={}", self.layout().conf().display());
        let args = ["-D", &dir, &source, &config];
        waiting::keep(&pgdata, &self.layout().waiting());
        self.bin.run("pg_rewind", &args, Duration::from_secs(24 * 3600)).await?;
        Ok(())
    }

    /// Returns once the leader's control file names its term. Until the checkpoint after a promotion `pg_rewind` of
    /// PostgreSQL 15 takes the leader to be on its former timeline: it finds nothing to do, or another fork than the real
    /// one, and leaves blocks that the leader never had ("Notes" of `pg_rewind`'s page in PostgreSQL's manual).
    async fn wait_for_checkpoint(&self, info: &str, term: Term) -> Result<()> {
        let (begun, mut heard) = (Instant::now(), Instant::now());
        let sql = "SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()";
        while begun.elapsed() < CHECKPOINT {
            match self.ask(info, sql).await.map(|said| said.trim().parse::<u32>()) {
                Ok(Ok(timeline)) if timeline == term.0 => return Ok(()),
                Ok(Ok(timeline)) if timeline > term.0 => {
                    return Err(Error::State(format!(
                        "it writes timeline {timeline} and not {term} any more"
                    )));
                }
                Err(e) if heard.elapsed() > SILENCE => return Err(e),
                Err(e) => tracing::debug!("the leader's checkpoint is not known: {e}"),
                Ok(_) => {
                    heard = Instant::now();
                    if begun.elapsed() > OWN_CHECKPOINT
                        && let Err(e) = self.ask(info, "CHECKPOINT").await
                    {
                        tracing::debug!("the leader's checkpoint is not made yet: {e}");
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Err(Error::State(format!(
            "the leader has made no checkpoint on timeline {term}"
        )))
    }

    /// Runs SQL on another member's engine and gives what it answered. A user's `statement_timeout` is not meant for it.
    async fn ask(&self, info: &str, sql: &str) -> Result<String> {
        let info = format!("{info} options='-c statement_timeout=0'");
        self.bin.run("psql", &["-XAtqw", "-c", sql, "-d", &info], ANSWER).await
    }
}
