//! Physical slots, which hold log for members and let them take it: one for each other member on a primary or a candidate, none on
//! a standby.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use holdfast_core::failover::MemberName;
use tokio::sync::MutexGuard;
use tokio_postgres::error::SqlState;

use crate::conf::slot_name;
use crate::error::{Error, Result, file};
use crate::files::{read_optional, remove_all, sync_dir};
use crate::pg::{Pg, Slots};
use crate::session::{Session, within};

const DEADLINE: Duration = Duration::from_millis(1000);

impl Pg {
    /// Running primary, or candidate: exactly these members' slots exist. One that lost its log is made anew; one in use by a stranger is
    /// left for the next time.
    pub async fn slots(&self, members: &BTreeSet<MemberName>) -> Result<()> {
        let _one = self.slots.lock().await;
        let session = self.session("holdfast agent work", DEADLINE).await?;
        let former = {
            let wish = self.wish();
            // It was asked for when it was a candidate, and has come late.
            if wish.upstream.is_some() {
                return Err(Error::State("a member that follows another makes no slots".to_owned()));
            }
            wish.slots == Slots::Former
        };
        if former {
            drop_all(&session).await?;
        }
        self.wish().slots = Slots::Own;
        let wanted: Vec<String> = members.iter().map(slot_name).collect();
        let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                    WHERE slot_type = 'physical' AND NOT temporary AND NOT active \
                    AND (slot_name <> ALL ($1) OR wal_status = 'lost')";
        within(DEADLINE, session.query(drop, &[&wanted])).await?;
        make(&session, &wanted).await
    }

    /// Every other member's slot exists, unless somebody else works on slots: a promotion does not wait for that, and the machine asks
    /// for them once more.
    pub(crate) async fn make_slots_unless_busy(&self, session: &Session) -> Result<()> {
        let Ok(_one) = self.slots.try_lock() else {
            return Ok(());
        };
        let others = self.wish().members.clone();
        let others = others.iter().filter(|m| **m != self.settings.member);
        make(session, &others.map(slot_name).collect::<Vec<_>>()).await
    }

    /// Standby that is to follow: who came to it when it was a candidate must not get another leader's log through it. No slots are
    /// made while what is returned is kept.
    pub(crate) async fn send_away(&self) -> Result<MutexGuard<'_, ()>> {
        let one = self.slots.lock().await;
        if self.wish().slots != Slots::None {
            let session = self.session("holdfast agent work", DEADLINE).await?;
            drop_all(&session).await?;
            self.wish().slots = Slots::None;
        }
        Ok(one)
    }

    /// Standby: drops what a former process left, but not what it has made itself as a candidate. While somebody else works on slots it
    /// is left for the next time.
    pub(crate) async fn drop_former_slots(&self, session: &Session) -> Result<()> {
        let Ok(_one) = self.slots.try_lock() else {
            return Ok(());
        };
        if self.wish().slots == Slots::Former {
            drop_all(session).await?;
            let mut wish = self.wish();
            // Unless it is being promoted since.
            if wish.slots == Slots::Former {
                wish.slots = Slots::None;
            }
        }
        Ok(())
    }
}

/// One statement for each, so that one that somebody has made meanwhile keeps no other from being made.
async fn make(session: &Session, names: &[String]) -> Result<()> {
    let there = "SELECT slot_name::text FROM pg_replication_slots";
    let there: BTreeSet<String> = within(DEADLINE, session.query(there, &[]))
        .await?
        .iter()
        .map(|row| row.try_get(0))
        .collect::<std::result::Result<_, _>>()?;
    for name in names.iter().filter(|name| !there.contains(*name)) {
        let made = async {
            let sql = "SELECT pg_create_physical_replication_slot($1, true)";
            match session.query(sql, &[name]).await {
                Err(e) if e.code() != Some(&SqlState::DUPLICATE_OBJECT) => Err(e),
                _ => Ok(()),
            }
        };
        within(DEADLINE, made).await?;
    }
    Ok(())
}

/// A standby needs none of the slots that it made as a primary or as a candidate; they would hold its log for ever. Whoever
/// streams by one is sent away. Done when there is none: a receiver may come back between two statements.
async fn drop_all(session: &Session) -> Result<()> {
    let end = "SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots \
               WHERE slot_type = 'physical' AND NOT temporary AND active AND pg_is_in_recovery()";
    let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                WHERE slot_type = 'physical' AND NOT temporary AND NOT active AND pg_is_in_recovery()";
    let left = "SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary";
    for _ in 0..20 {
        within(DEADLINE, session.query_one(end, &[])).await?;
        within(DEADLINE, session.query(drop, &[])).await?;
        let left: i64 = within(DEADLINE, session.query_one(left, &[])).await?.try_get(0)?;
        if left == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(Error::State(
        "physical slots cannot be dropped: walsenders do not end".to_owned(),
    ))
}

/// Removes the physical slots of a directory that no engine runs in. The engine removes by itself what is named `.tmp`, so a crash in the
/// middle leaves nothing that it cannot start with.
pub(crate) fn remove_physical(pgdata: &Path) -> Result<()> {
    let all = pgdata.join("pg_replslot");
    let mut removed = Vec::new();
    for entry in fs::read_dir(&all).map_err(file("list", &all))? {
        let path = entry.map_err(file("list", &all))?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()).map(str::to_owned) else {
            continue;
        };
        let state = read_optional(&path.join("state")).ok().flatten();
        if state.is_some_and(|state| physical(&name, &state)) {
            let gone = all.join(format!("{name}.tmp"));
            remove_all(&gone)?;
            fs::rename(&path, &gone).map_err(file("rename to", &gone))?;
            removed.push(gone);
        }
    }
    if removed.is_empty() {
        return Ok(());
    }
    sync_dir(&all)?;
    removed.iter().try_for_each(|gone| remove_all(gone))
}

/// `SLOT_MAGIC` of PostgreSQL's slot.c.
const MAGIC: u32 = 0x0105_1CA1;

/// Whether a slot's state file is certainly that of a physical slot of this name: `ReplicationSlotOnDisk` begins with four numbers (magic,
/// checksum, version, length), the name in 64 bytes, and its database, which only logical ones have. The same in PostgreSQL 15 to 18.
fn physical(name: &str, state: &[u8]) -> bool {
    let number = |at: usize| {
        let bytes = state.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let named = state.get(16..80).and_then(|field| field.split(|b| *b == 0).next());
    number(0) == Some(MAGIC) && named == Some(name.as_bytes()) && number(80) == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(name: &str, database: u32) -> Vec<u8> {
        let mut bytes = [MAGIC, 7, 3, 100].map(u32::to_ne_bytes).concat();
        bytes.extend(name.as_bytes());
        bytes.resize(80, 0);
        bytes.extend(database.to_ne_bytes());
        bytes.resize(200, 0);
        bytes
    }

    #[test]
    fn only_what_is_certainly_a_physical_slot_is_removed() {
        let tmp = tempfile::tempdir().unwrap();
        let all = tmp.path().join("pg_replslot");
        let torn = state("torn", 0)[..81].to_vec();
        for (dir, bytes) in [
            ("a_2", state("a_2", 0)),
            ("cdc", state("cdc", 16384)),
            ("other", state("another", 0)),
            ("torn", torn),
            ("strange", vec![1; 200]),
        ] {
            fs::create_dir_all(all.join(dir)).unwrap();
            fs::write(all.join(dir).join("state"), bytes).unwrap();
        }
        // A crash left it.
        fs::create_dir(all.join("a_2.tmp")).unwrap();
        remove_physical(tmp.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(&all)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["cdc", "other", "strange", "torn"]);
    }
}
