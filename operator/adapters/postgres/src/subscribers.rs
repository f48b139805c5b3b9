//! Logical replication's part of an engine: what it is configured with for its subscribers, and their slots on a standby.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_core::failover::MemberName;
use holdfast_core::instance::{LogicalSlot, stale_slots};
use holdfast_wire::REPLICATION_ROLE;
use nix::sys::signal::Signal;

use crate::conf::slot_name;
use crate::error::{Error, Result};
use crate::pg::{Pg, Process};
use crate::process;
use crate::session::{Session, within};

const DEADLINE: Duration = Duration::from_millis(1000);
/// The first version whose standbys copy the primary's slots.
pub const COPIES_SLOTS: u32 = 17;
/// Walsenders of subscribers: all that are not members'.
const SUBSCRIBERS: &str = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender' AND usename <> $1";

/// Whether these parameters ask for logical replication.
pub fn logical(parameters: &BTreeMap<String, String>) -> bool {
    let level = parameters.get("wal_level");
    level.is_some_and(|level| level.trim().eq_ignore_ascii_case("logical"))
}

/// The parameters of an engine whose logical slots follow a failover. On a primary the standbys' settings have no effect,
/// nor has the primary's on a standby.
pub fn settings(follows: bool, behind: &BTreeSet<MemberName>) -> [(&'static str, String); 3] {
    let on = |yes: bool| if yes { "on" } else { "off" }.to_owned();
    let names: Vec<String> = behind.iter().map(slot_name).collect();
    [
        // The worker refuses to run without: it keeps the primary from removing rows of the catalog that the copies need.
        ("hot_standby_feedback", on(true)),
        // A sealed member talks to nobody.
        ("sync_replication_slots", on(follows)),
        ("synchronized_standby_slots", names.join(",")),
    ]
}

impl Pg {
    /// Running primary: no subscriber gets what these members have not flushed. Taken up before what is asked for later.
    pub fn hold_subscribers(&self, behind: BTreeSet<MemberName>) -> Result<()> {
        self.wish().behind = behind;
        if self.copies_slots() { self.reload() } else { Ok(()) }
    }

    /// Whether the engine that runs, or is about to, keeps copies of logical slots. By the `wal_level` that it runs with: with
    /// another it could not, and would say so in its log all the time.
    pub(crate) fn copies_slots(&self) -> bool {
        let up = matches!(self.process(), Process::Up { .. });
        let wish = self.wish();
        self.bin.major >= COPIES_SLOTS && logical(if up { &wish.started } else { &wish.checked })
    }

    /// Whether the engine that runs can have logical slots at all.
    pub(crate) fn has_logical_slots(&self) -> bool {
        logical(&self.wish().started)
    }

    /// Running standby that follows another, or is about to: drops the logical slots of its own time as a primary.
    pub(crate) async fn drop_stale(&self, session: &Session) -> Result<()> {
        let led = self.wish().led;
        for _ in 0..20 {
            let slots = logical_slots(session, self.bin.major).await?;
            let stale = stale_slots(&slots, led);
            if stale.is_empty() {
                self.wish().led = false;
                return Ok(());
            }
            tracing::info!("drops logical slots of its time as a primary: {}", stale.join(", "));
            // Whoever still reads from one reads what its subscriber now gets elsewhere.
            let end = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots \
                       WHERE slot_name = ANY ($1) AND active_pid IS NOT NULL";
            let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                        WHERE slot_name = ANY ($1) AND active_pid IS NULL";
            for sql in [end, drop] {
                within(DEADLINE, session.query(sql, &[&stale])).await?;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(Error::State(
            "logical slots of this member's time as a primary cannot be dropped".to_owned(),
        ))
    }

    /// The processes that send to subscribers. Asked before a stop, told after it has begun: then they cannot come back, and
    /// the stop does not wait until each subscriber, and whoever they are kept behind, has all.
    pub(crate) async fn subscribers(&self) -> Vec<u32> {
        if !self.has_logical_slots() {
            return Vec::new();
        }
        let Ok(session) = self.session("holdfast agent stop", DEADLINE).await else {
            return Vec::new();
        };
        let rows = within(DEADLINE, session.query(SUBSCRIBERS, &[&REPLICATION_ROLE])).await;
        let pids = rows.iter().flatten().filter_map(|row| row.try_get::<_, i32>(0).ok());
        pids.filter_map(|pid| u32::try_from(pid).ok()).collect()
    }
}

/// Ends processes that send to subscribers.
pub(crate) fn end(pids: Vec<u32>) {
    pids.into_iter().for_each(|pid| process::signal(pid, Signal::SIGTERM));
}

async fn logical_slots(session: &Session, major: u32) -> Result<Vec<LogicalSlot>> {
    let flags = if major >= COPIES_SLOTS {
        "failover, synced"
    } else {
        "false, false"
    };
    let sql = format!(
        "SELECT slot_name::text, {flags} FROM pg_replication_slots WHERE slot_type = 'logical' AND NOT temporary"
    );
    let rows = within(DEADLINE, session.query(&sql, &[])).await?;
    rows.iter()
        .map(|row| {
            Ok(LogicalSlot {
                name: row.try_get(0)?,
                failover: row.try_get(1)?,
                synced: row.try_get(2)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logical_replication_is_asked_for_by_the_level_however_it_is_written() {
        let of = |level: &str| logical(&[("wal_level".to_owned(), level.to_owned())].into());
        assert!(of("logical") && of("Logical ") && !of("replica"));
        assert!(!logical(&BTreeMap::new()));
    }
}
