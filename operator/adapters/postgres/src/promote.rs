//! Promotion to exactly the timeline that the term names.

use std::time::Duration;

use holdfast_core::failover::Term;
use holdfast_core::instance::SyncNames;
use holdfast_wire::REPLICATION_ROLE;

use crate::error::{Error, Result, file};
use crate::files::write_durable;
use crate::history;
use crate::pg::{Pg, Slots};
use crate::replication::END_CLIENTS;
use crate::session::{Session, within};

/// A promotion replays what is left, writes one record and ends; this bounds a stalled disk.
const DEADLINE: Duration = Duration::from_secs(120);

impl Pg {
    /// Running standby: occupies the timelines up to `term - 1`, sets who will have to acknowledge commits, promotes.
    pub async fn promote(&self, term: Term, sync: SyncNames) -> Result<()> {
        let pgdata = self.layout().pgdata();
        let sealed = {
            let mut wish = self.wish();
            (wish.open, wish.former) = (false, false);
            wish.floors.clear();
            wish.behind.clear();
            // Its slots are a primary's again, logical and physical.
            wish.led = false;
            wish.slots = Slots::Own;
            wish.sync = sync;
            wish.upstream.is_none() && !wish.sealing
        };
        // Sealed members have no receiver: mostly there is nothing to wait for.
        if !sealed {
            self.follow(None).await?;
        }
        occupy(&pgdata, term)?;
        let session = self.session("holdfast agent work", Duration::from_secs(1)).await?;
        // Who read from the replica must not find themselves writing before the new leader may serve.
        self.reload()?;
        within(DEADLINE, session.query(END_CLIENTS, &[&REPLICATION_ROLE])).await?;
        // Without waiting, because the engine's own wait looks only every 100 ms.
        within(DEADLINE, session.query_one("SELECT pg_promote(false)", &[])).await?;
        // Standbys attach the moment it is done; their slots should be there.
        if let Err(e) = self.make_slots_unless_busy(&session).await {
            tracing::warn!("slots are made after the promotion: {e}");
        }
        within(DEADLINE, promoted(&session)).await?;
        let sql = "SELECT pg_walfile_name(pg_current_wal_insert_lsn())";
        let name: String = within(Duration::from_secs(5), session.query_one(sql, &[]))
            .await?
            .try_get(0)?;
        let got = name.get(..8).and_then(|t| u32::from_str_radix(t, 16).ok());
        if got != Some(term.0) {
            return Err(Error::Permanent(format!(
                "promoted to timeline {got:?} instead of {term}"
            )));
        }
        self.wish().checkpoint_due = true;
        Ok(())
    }
}

/// Waits until the engine has ended its recovery.
async fn promoted(session: &Session) -> std::result::Result<(), tokio_postgres::Error> {
    let standby = session.prepare("SELECT pg_is_in_recovery()").await?;
    while session.query_one(&standby, &[]).await?.try_get(0)? {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Writes empty history files for all unused timelines below `term`, so that the engine, which takes the first unused number
/// after the newest it knows, takes `term`.
fn occupy(pgdata: &std::path::Path, term: Term) -> Result<()> {
    let wal = pgdata.join("pg_wal");
    let known = history::list(pgdata).map_err(file("list", &wal))?;
    if let Some((newer, _)) = known.iter().rev().find(|(t, _)| *t >= term) {
        return Err(Error::Permanent(format!(
            "timeline {newer} is known here already; term {term} cannot be written"
        )));
    }
    for number in 2..term.0 {
        if !known.iter().any(|(t, _)| t.0 == number) {
            write_durable(&history::path(pgdata, Term(number)), b"", 0o600)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unused_timeline_below_the_term_is_occupied_and_a_known_one_is_never_written_again() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::create_dir(tmp.path().join("pg_wal")).unwrap();
        std::fs::write(history::path(tmp.path(), Term(3)), "1\t0/3000000\tx\n").unwrap();
        occupy(tmp.path(), Term(5)).unwrap();
        let seen = history::list(tmp.path()).unwrap();
        assert_eq!(seen, [(Term(2), true), (Term(3), false), (Term(4), true)]);
        assert!(occupy(tmp.path(), Term(3)).unwrap_err().permanent());
    }
}
