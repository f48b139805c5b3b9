//! A running engine's part in replication: whom it follows, who counts, which slots there are, and the gate.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use holdfast_core::failover::DirId;
use holdfast_core::instance::{SyncNames, Upstream};
use holdfast_wire::REPLICATION_ROLE;
use nix::sys::signal::Signal;

use crate::error::{Error, Result};
use crate::pg::Pg;
use crate::process;
use crate::session::within;

const DEADLINE: Duration = Duration::from_millis(1000);

/// Ends every client's session, a subscriber's too, but those of the agent and of members.
pub(crate) const END_CLIENTS: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
     WHERE backend_type IN ('client backend', 'walsender') AND usename NOT IN ('postgres', $1)";

impl Pg {
    /// Takes note that the WAL receiver is about to be stopped: from now on it counts as running until it is known not to.
    pub fn begin_sealing(&self) {
        self.wish().sealing = true;
    }

    /// Running standby: takes log from `Some`, or stops the WAL receiver and takes from nobody.
    pub async fn follow(&self, upstream: Option<Upstream>) -> Result<()> {
        let seal = upstream.is_none();
        // Held until it is written that this member follows: from then on nobody makes slots here.
        let one = if seal { None } else { Some(self.send_away().await?) };
        if !seal && self.has_logical_slots() {
            // Before the engine begins to copy the upstream's slots, which may have the same names.
            let session = self.session("holdfast agent work", DEADLINE).await?;
            // A subscriber's slot keeps no member from following: the next start tries again.
            if let Err(e) = self.drop_stale(&session).await {
                tracing::warn!("{e}");
            }
        }
        {
            let mut wish = self.wish();
            wish.open |= !seal && std::mem::take(&mut wish.former);
            wish.upstream = upstream;
            wish.sealing = seal;
        }
        drop(one);
        self.heard.forget();
        self.reload()?;
        if seal {
            self.stop_receiver().await?;
            self.wish().sealing = false;
        }
        Ok(())
    }

    /// Asks for a checkpoint that nobody waits for.
    async fn checkpoint_soon(&self) -> Result<()> {
        let session = self.session("holdfast agent checkpoint", DEADLINE).await?;
        tokio::spawn(async move {
            if let Err(e) = session.batch_execute("CHECKPOINT").await {
                tracing::warn!("the checkpoint after promotion failed: {}", crate::error::describe(&e));
            }
        });
        Ok(())
    }

    /// Ends the WAL receiver and waits until the startup process cannot start another one with the former upstream.
    ///
    /// It cannot once it has taken up the changed setting. It has if, after it was signalled, it sleeps where it asks for
    /// more log, with no signal waiting, and slept through the look that says so: its count of sleeps is the same before and
    /// after. One that is busy with replay is watched for 100 ms without a receiver instead.
    async fn stop_receiver(&self) -> Result<()> {
        let session = self.session("holdfast seal", DEADLINE).await?;
        let sql = "SELECT pid, backend_type, wait_event FROM pg_stat_activity \
                   WHERE backend_type IN ('startup', 'walreceiver', 'slotsync worker')";
        let look = within(DEADLINE, session.prepare(sql)).await?;
        let mut quiet_since = Instant::now();
        let mut startup = None;
        while quiet_since.elapsed() < Duration::from_millis(100) {
            let before = startup.and_then(process::sleeps);
            let (mut receiver, mut asks) = (false, false);
            for row in within(DEADLINE, session.query(&look, &[])).await? {
                let (pid, kind, waits): (i32, String, Option<String>) =
                    (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                let Ok(pid) = u32::try_from(pid) else { continue };
                if kind == "walreceiver" {
                    // It flushes what it has received before it ends.
                    process::signal(pid, Signal::SIGTERM);
                    receiver = true;
                    continue;
                }
                if kind == "slotsync worker" {
                    // It writes no log, but a promotion waits for it, and it may wait for a primary that is frozen.
                    process::signal(pid, Signal::SIGTERM);
                    continue;
                }
                if startup != Some(pid) {
                    process::signal(pid, Signal::SIGHUP);
                    startup = Some(pid);
                }
                asks = asks_for_more_log(waits.as_deref());
            }
            let after = startup.and_then(process::sleeps);
            if !receiver && asks && before.is_some() && before == after {
                return Ok(());
            }
            if receiver {
                quiet_since = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Running primary: changes the synchronous standbys; returns once postmaster and checkpointer have taken that up.
    pub async fn set_sync(&self, sync: SyncNames) -> Result<()> {
        self.wish().sync = sync.clone();
        self.reload()?;
        for _ in 0..250 {
            if self.sync_taken_up().await?.as_ref() == Some(&sync) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(Error::Deadline(5000))
    }

    /// The synchronous standbys by which each commit waits from now on, if that is certain. A session's own view is no
    /// proof: a commit waits if the checkpointer has written so into shared memory, and only a new session has what the
    /// postmaster has.
    pub(crate) async fn sync_taken_up(&self) -> Result<Option<SyncNames>> {
        // Forked by the postmaster with its present setting; before that it had signalled the checkpointer.
        let fresh = self.session("holdfast agent check", DEADLINE).await?;
        let sql = "SELECT current_setting('synchronous_standby_names'), pid FROM pg_stat_activity \
                   WHERE backend_type = 'checkpointer' AND wait_event IN ('CheckpointerMain', 'CheckpointWriteDelay')";
        let Some(row) = within(DEADLINE, fresh.query_opt(sql, &[])).await? else {
            return Ok(None);
        };
        let pid: i32 = row.try_get(1)?;
        // It sleeps where it has nothing left to take up, with no signal waiting.
        let settled = u32::try_from(pid).is_ok_and(process::settled);
        Ok(if settled {
            Some(crate::sync_names::parse(row.try_get(0)?))
        } else {
            None
        })
    }

    /// Running primary: ends these standbys' walsenders and waits until the processes are gone.
    pub async fn end_walsenders(&self, dirs: &BTreeSet<DirId>) -> Result<()> {
        let names: Vec<&str> = dirs.iter().map(|d| d.0.as_str()).collect();
        let session = self.session("holdfast agent work", DEADLINE).await?;
        let sql = "SELECT pid FROM pg_stat_replication WHERE application_name = ANY ($1)";
        let before: BTreeSet<i32> = within(DEADLINE, session.query(sql, &[&names]))
            .await?
            .iter()
            .map(|r| r.try_get(0))
            .collect::<std::result::Result<_, _>>()?;
        for round in 0.. {
            let left: Vec<i32> = before
                .iter()
                .copied()
                .filter(|p| std::path::Path::new(&format!("/proc/{p}")).exists())
                .collect();
            if left.is_empty() {
                return Ok(());
            }
            if round % 25 == 0 {
                within(
                    DEADLINE,
                    session.query("SELECT pg_terminate_backend(p) FROM unnest($1::int[]) p", &[&left]),
                )
                .await?;
            }
            if round > 250 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(Error::State("walsenders do not end".to_owned()))
    }

    /// Running primary: lets clients in, or keeps them out and ends their sessions.
    pub async fn gate(&self, open: bool) -> Result<()> {
        let checkpoint = {
            let mut wish = self.wish();
            wish.open = open;
            open && std::mem::take(&mut wish.checkpoint_due)
        };
        self.reload()?;
        if checkpoint {
            self.checkpoint_soon().await?;
        }
        if open {
            return Ok(());
        }
        let session = self.session("holdfast agent work", DEADLINE).await?;
        // A client that passed the old gate while it closed shows up a moment later.
        for _ in 0..5 {
            within(DEADLINE, session.query(END_CLIENTS, &[&REPLICATION_ROLE])).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

/// Whether a startup process with this wait event sleeps where it asks for more log: it has replayed all that is here.
/// Events: `WaitForWALToBecomeAvailable` in PostgreSQL's xlogrecovery.c.
pub(crate) fn asks_for_more_log(wait_event: Option<&str>) -> bool {
    matches!(wait_event, Some("RecoveryWalStream" | "RecoveryRetrieveRetryInterval"))
}
