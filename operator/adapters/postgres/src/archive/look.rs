//! What an engine tells of its archiver.

use std::time::Duration;

use holdfast_core::archive::{Archiving, Counts, failing};

use crate::error::Result;
use crate::session::{Session, within};

/// Its own statistics, and the files that say what waits.
const SQL: &str = "SELECT extract(epoch FROM now() - last_archived_time)::bigint, \
     to_char(last_archived_time AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
     last_failed_wal, extract(epoch FROM now() - last_failed_time)::bigint, \
     waiting, oldest, extract(epoch FROM now() - since)::bigint \
     FROM pg_stat_archiver, (SELECT count(*) AS waiting, min(modification) AS since, \
         left((array_agg(name ORDER BY modification, name))[1], -length('.ready')) AS oldest \
         FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready') AS ready";

/// Asks a running engine.
pub async fn look(session: &Session, deadline: Duration) -> Result<Archiving> {
    let row = within(deadline, session.query_one(SQL, &[])).await?;
    // A clock that was set back makes a time lie ahead.
    let seconds = |at: usize| -> Result<Option<u64>> {
        let seconds: Option<i64> = row.try_get(at)?;
        Ok(seconds.map(|s| u64::try_from(s).unwrap_or(0)))
    };
    let (failed, oldest): (Option<String>, Option<String>) = (row.try_get(2)?, row.try_get(5)?);
    let counts = Counts {
        archived: seconds(0)?,
        failed: failed.zip(seconds(3)?),
        waiting: seconds(4)?.unwrap_or(0),
        oldest: oldest.zip(seconds(6)?),
    };
    Ok(Archiving {
        failing: failing(&counts).map(ToOwned::to_owned),
        last: row.try_get(1)?,
        waiting: counts.waiting,
    })
}
