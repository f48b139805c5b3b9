//! Stopping the engine.

use std::time::Duration;

use holdfast_core::instance::HowToStop;
use nix::sys::signal::Signal;

use crate::control::{self, State};
use crate::error::Result;
use crate::pg::{Pg, Process};
use crate::{process, subscribers};

/// How long a clean stop lets clients go on while a checkpoint is made.
const CHECKPOINT_FIRST: Duration = Duration::from_secs(3);
/// Between two looks at the control file of an engine that stops.
const LOOK_EVERY: Duration = Duration::from_millis(4);
/// An engine whose log has ended may take this long to go: its walsenders give a standby up that does not answer after
/// `wal_sender_timeout`, 5 s.
const LINGERS: Duration = Duration::from_secs(6);

impl Pg {
    /// Stops the engine; with no engine there is nothing to do. Returns once no process of it is left or, of a primary that stops
    /// cleanly, once its log has ended: a successor need not wait until its processes are gone. [`Pg::gone`] does.
    pub async fn stop(&self, how: HowToStop) -> Result<()> {
        let pgdata = self.layout().pgdata();
        match (self.process(), how) {
            (Process::Down { .. }, _) => {}
            (Process::Ended { .. }, HowToStop::Clean) => return Ok(()),
            (Process::Up { pid }, HowToStop::Clean) => {
                self.checkpoint_first().await;
                let subscribers = self.subscribers().await;
                self.wish().stopping = true;
                // While it starts, too, the file of a primary may say that it is shut down.
                let before = self.control_file().await;
                let produces = control::state(&before) == Some(State::InProduction);
                process::signal(pid, Signal::SIGINT);
                subscribers::end(subscribers);
                tokio::select! {
                    () = self.until_down() => {}
                    () = self.until_log_ends(), if produces => {
                        let ended = self.process.send_if_modified(|process| {
                            let up = matches!(process, Process::Up { .. });
                            if up {
                                *process = Process::Ended { pid };
                            }
                            up
                        });
                        if ended {
                            return Ok(());
                        }
                    }
                }
            }
            (Process::Up { pid } | Process::Ended { pid }, HowToStop::Fence { kill_after_ms }) => {
                self.wish().stopping = false;
                process::signal(pid, Signal::SIGQUIT);
                self.kill_after(Duration::from_millis(kill_after_ms), pid).await;
            }
        }
        process::kill_all(pgdata).await;
        Ok(())
    }

    /// Waits for an engine whose log has ended to be gone; one that lingers is killed, whose directory is complete all the same.
    pub async fn gone(&self) {
        if let Process::Ended { pid } = self.process() {
            self.kill_after(LINGERS, pid).await;
        }
    }

    async fn kill_after(&self, patience: Duration, pid: u32) {
        if tokio::time::timeout(patience, self.until_down()).await.is_err() {
            process::signal(pid, Signal::SIGKILL);
            process::kill_all(self.layout().pgdata()).await;
            self.until_down().await;
        }
    }

    /// Waits until the log has ended: the shutdown's checkpoint is its last record. All backends are gone by then and walsenders write no
    /// log any more; PostgreSQL says so in the control file before they have sent it and gone. Twice the same, as the file may have been read
    /// while it was written; after that nobody writes it.
    async fn until_log_ends(&self) {
        let mut before = Vec::new();
        loop {
            let now = self.control_file().await;
            if control::state(&now) == Some(State::ShutDown) && now == before {
                return;
            }
            before = now;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// As it is, half written perhaps; empty if it cannot be read. The disk may be stalled.
    async fn control_file(&self) -> Vec<u8> {
        let path = self.layout().pgdata().join("global/pg_control");
        tokio::fs::read(path).await.unwrap_or_default()
    }

    /// A primary writes what it can while clients are still served, so that the shutdown has little left to write.
    async fn checkpoint_first(&self) {
        let Ok(session) = self.session("holdfast agent stop", Duration::from_millis(500)).await else {
            return;
        };
        let standby = session.query_one("SELECT pg_is_in_recovery()", &[]).await;
        if standby.and_then(|row| row.try_get::<_, bool>(0)).unwrap_or(true) {
            return;
        }
        if tokio::time::timeout(CHECKPOINT_FIRST, session.batch_execute("CHECKPOINT"))
            .await
            .is_err()
        {
            tracing::warn!("the checkpoint before the stop is not done yet; the stop will take longer");
        }
    }

    /// Waits until the engine is down.
    pub(crate) async fn until_down(&self) {
        let mut watch = self.watch();
        // The sender lives as long as `self`.
        let _ = watch.wait_for(|p| matches!(p, Process::Down { .. })).await;
    }
}
