//! The control file, as `pg_controldata` prints it.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use holdfast_core::failover::{Lsn, Position, Term};

use crate::error::{Error, Result};

/// What of the control file matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// PostgreSQL's system identifier.
    pub system_identifier: u64,
    /// The last shutdown was clean, as a primary or as a standby. An engine that was stopped in the midst of its crash recovery says that it was
    /// shut down in recovery, too: it has no minimum recovery end, and the checkpoint is that of before the crash.
    pub clean: bool,
    /// The directory was last a running primary's, not a standby's.
    pub primary: bool,
    /// The start of the latest checkpoint's record, with its timeline.
    pub checkpoint: Position,
    /// The file of the log with which recovery begins.
    pub redo: Option<String>,
    /// A standby's minimum recovery end; zero for a primary.
    pub minimum: Position,
    /// Bytes in a log segment.
    pub segment: u64,
    /// Bytes in a log page.
    pub page: u64,
    /// The primary's settings that a standby must not be below, such as `max_connections`.
    pub floors: BTreeMap<String, u64>,
}

/// A standby refuses to replay while it has less of these than the primary had.
pub const FLOORS: &[(&str, &str)] = &[
    ("max_connections setting", "max_connections"),
    ("max_worker_processes setting", "max_worker_processes"),
    ("max_wal_senders setting", "max_wal_senders"),
    ("max_prepared_xacts setting", "max_prepared_transactions"),
    ("max_locks_per_xact setting", "max_locks_per_transaction"),
];

/// What the control file says of the engine, of which two matter while it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A primary's log has ended with the checkpoint of its shutdown.
    ShutDown,
    /// A primary runs.
    InProduction,
    /// Any other.
    Other,
}

/// Reads the state alone, in microseconds: `ControlFileData` begins with `system_identifier` (8 bytes), `pg_control_version` and
/// `catalog_version_no` (4 each), then `state`, a `DBState` (`src/include/catalog/pg_control.h`, the same in PostgreSQL 15 to 18). The engine
/// replaces the file's 8 KiB in one write, which a reader may meet half done. `None`: not readable, or no file of that form.
pub fn state(file: &[u8]) -> Option<State> {
    let state = file.get(16..20)?.try_into().ok()?;
    Some(match u32::from_ne_bytes(state) {
        1 => State::ShutDown,
        6 => State::InProduction,
        _ => State::Other,
    })
}

/// Reads the output of `pg_controldata` (with `LC_ALL=C`), and what it said beside it. `checked`: its word on the checksum counts.
pub fn parse(text: &str, said: &str, checked: bool) -> Result<Control> {
    let fields: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|l| l.split_once(':'))
        .map(|(k, v)| (k.trim(), v.trim()))
        .collect();
    let get = |key: &str| {
        fields
            .get(key)
            .copied()
            .ok_or_else(|| Error::State(format!("pg_controldata does not tell {key:?}")))
    };
    let number = |key: &str| -> Result<u64> {
        get(key)?
            .parse()
            .map_err(|_| Error::State(format!("pg_controldata: {key:?} is not a number")))
    };
    let lsn = |key: &str| -> Result<Lsn> {
        get(key)?
            .parse()
            .map_err(|e| Error::State(format!("pg_controldata: {e}")))
    };
    let term = |key: &str| -> Result<Term> {
        get(key)?
            .parse()
            .map(Term)
            .map_err(|_| Error::State(format!("pg_controldata: {key:?} is no timeline")))
    };
    // It says so and goes on: up to 16 among its results, from 17 on apart from them (in src/bin/pg_controldata).
    let warned = |all: &str| all.to_lowercase().contains("calculated crc checksum");
    if checked && [text, said].iter().any(|all| warned(all)) {
        return Err(Error::State("the control file's checksum is wrong".to_owned()));
    }
    let minimum = Position {
        term: term("Min recovery ending loc's timeline")?,
        lsn: lsn("Minimum recovery ending location")?,
    };
    let state = get("Database cluster state")?;
    Ok(Control {
        system_identifier: number("Database system identifier")?,
        clean: state == "shut down" || (state == "shut down in recovery" && minimum.lsn > Lsn(0)),
        primary: matches!(state, "in production" | "shutting down" | "shut down"),
        checkpoint: Position {
            term: term("Latest checkpoint's TimeLineID")?,
            lsn: lsn("Latest checkpoint location")?,
        },
        redo: fields
            .get("Latest checkpoint's REDO WAL file")
            .map(|name| (*name).to_owned()),
        minimum,
        segment: number("Bytes per WAL segment")?,
        page: number("WAL block size")?,
        floors: FLOORS
            .iter()
            .filter_map(|(key, name)| Some(((*name).to_owned(), fields.get(key)?.parse().ok()?)))
            .collect(),
    })
}

impl Control {
    /// The timeline and end of log that this directory is sure of: end of the latest checkpoint's record or minimum recovery
    /// end, whichever is greater.
    pub fn end(&self, pgdata: &Path) -> Position {
        let checkpoint = Position {
            term: self.checkpoint.term,
            lsn: self.record_end(pgdata, self.checkpoint).unwrap_or(self.checkpoint.lsn),
        };
        checkpoint.max(self.minimum)
    }

    /// The end of the record at a position: its length stands in its first four bytes, in the log itself.
    fn record_end(&self, pgdata: &Path, at: Position) -> Option<Lsn> {
        let name = segment_name(at.term, at.lsn, self.segment)?;
        let mut f = std::fs::File::open(pgdata.join("pg_wal").join(name)).ok()?;
        f.seek(SeekFrom::Start(at.lsn.0.checked_rem(self.segment)?)).ok()?;
        let mut length = [0u8; 4];
        f.read_exact(&mut length).ok()?;
        advance(at.lsn, u64::from(u32::from_ne_bytes(length)), self.segment, self.page)
    }
}

/// The name of the segment file that holds a position.
pub fn segment_name(term: Term, lsn: Lsn, segment: u64) -> Option<String> {
    let per_id = 0x1_0000_0000_u64.checked_div(segment)?;
    let number = lsn.0.checked_div(segment)?;
    Some(format!(
        "{:08X}{:08X}{:08X}",
        term.0,
        number.checked_div(per_id)?,
        number.checked_rem(per_id)?
    ))
}

/// Where a record of `length` bytes that starts at `from` ends: records are padded to 8 bytes, and each page begins with a
/// header (24 bytes; 40 for the first of a segment).
fn advance(from: Lsn, length: u64, segment: u64, page: u64) -> Option<Lsn> {
    if !(24..=1 << 20).contains(&length) {
        return None;
    }
    let mut left = length.next_multiple_of(8);
    let mut at = from.0;
    loop {
        let room = page - at.checked_rem(page)?;
        if left <= room {
            return Some(Lsn(at + left));
        }
        left -= room;
        at += room;
        at += if at.checked_rem(segment)? == 0 { 40 } else { 24 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "pg_control version number:            1300
Database system identifier:           7575757575757575757
Database cluster state:               shut down in recovery
Latest checkpoint location:           0/3000060
Latest checkpoint's REDO location:    0/3000028
Latest checkpoint's REDO WAL file:    000000020000000000000003
Latest checkpoint's TimeLineID:       2
Time of latest checkpoint:            Mon 01 Jan 2026 10:11:12 AM UTC
Minimum recovery ending location:     0/30000D8
Min recovery ending loc's timeline:   2
max_connections setting:              100
WAL block size:                       8192
Bytes per WAL segment:                16777216
";

    #[test]
    fn what_matters_is_read() {
        let c = parse(TEXT, "", true).unwrap();
        assert_eq!(c.system_identifier, 7_575_757_575_757_575_757);
        assert!(c.clean && !c.primary);
        assert_eq!(c.redo.as_deref(), Some("000000020000000000000003"));
        assert!(
            parse(&TEXT.replace("shut down in recovery", "in production"), "", true)
                .unwrap()
                .primary
        );
        assert_eq!(
            c.minimum,
            Position {
                term: Term(2),
                lsn: Lsn(0x300_00D8)
            }
        );
        assert_eq!(c.floors.get("max_connections"), Some(&100));
        assert_eq!(c.end(Path::new("/nonexistent")), c.minimum);
        assert!(parse("nonsense", "", true).is_err());
        let torn = format!("WARNING: Calculated CRC checksum does not match value stored in file.\n{TEXT}");
        assert!(parse(&torn, "", true).unwrap_err().to_string().contains("checksum"));
        let apart = "pg_controldata: warning: calculated CRC checksum does not match value stored in control file";
        assert!(parse(TEXT, apart, true).unwrap_err().to_string().contains("checksum"));
        assert!(parse(TEXT, apart, false).is_ok(), "another major version's");
    }

    #[test]
    fn a_crash_recovery_that_was_stopped_is_no_clean_end() {
        // As PostgreSQL 15 left it, its log going on for 15 MiB.
        let text = TEXT
            .replace("location:     0/30000D8", "location:     0/0")
            .replace("timeline:   2\nmax", "timeline:   0\nmax");
        assert!(!parse(&text, "", true).unwrap().clean);
        assert!(
            parse(&text.replace("shut down in recovery", "shut down"), "", true)
                .unwrap()
                .clean
        );
    }

    #[test]
    fn a_record_ends_after_its_padding_and_the_page_headers_that_it_crosses() {
        let at = |lsn| advance(Lsn(lsn), 114, 16 << 20, 8192).unwrap().0;
        assert_eq!(at(0x28), 0x28 + 120);
        assert_eq!(at(0x2000 - 120), 0x2000, "exactly to the page's end");
        assert_eq!(at(0x2000 - 8), 0x2000 + 24 + 112);
        assert_eq!(at(0x100_0000 - 8), 0x100_0000 + 40 + 112);
        assert_eq!(advance(Lsn(0), 0, 16 << 20, 8192), None);
    }

    #[test]
    fn segments_are_named_as_postgresql_does() {
        assert_eq!(
            segment_name(Term(5), Lsn(0x16_B374_D848), 16 << 20).unwrap(),
            "0000000500000016000000B3"
        );
    }
}
