//! How long a push may keep an engine from stopping.

use std::path::Path;
use std::time::{Duration, SystemTime};

/// A postmaster that stops lets its archiver push all that waits, and waits for it, however long a push or a backlog takes. A switchover
/// waits for the stop. Enough for the segment that the stop itself ends; what is left is pushed by the others, and after the next start.
const PATIENCE: Duration = Duration::from_secs(1);

/// Between looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The exit status of a push that is given up because the engine stops. Above 125 it ends the archiver; for less it would try twice more,
/// a second apart. The archiver comes back with the engine.
const GIVES_UP: i32 = 255;

/// For how long the engine of a data directory has been stopping; `None` when it is not. The postmaster says so in its lock file.
fn stopping(pgdata: &Path) -> Option<Duration> {
    let lock = pgdata.join("postmaster.pid");
    // PostgreSQL's LOCK_FILE_LINE_PM_STATUS.
    let status = std::fs::read_to_string(&lock).ok()?.lines().nth(7)?.trim().to_owned();
    if status != "stopping" {
        return None;
    }
    let since = std::fs::metadata(&lock).and_then(|m| m.modified()).ok()?;
    Some(SystemTime::now().duration_since(since).unwrap_or_default())
}

/// Whether the engine has been stopping for so long that nothing more is pushed.
fn too_long(pgdata: &Path) -> bool {
    stopping(pgdata).is_some_and(|time| time > PATIENCE)
}

/// Ends this process once the engine has waited long enough, even while the archive does not answer. Where it is over already, the first
/// look ends it before anything is pushed.
pub fn give_up_when_stopping(pgdata: &Path) {
    let end = || {
        eprintln!(
            "holdfast-agent wal-push: gives up, because the engine stops; the file stays and is pushed after the next start"
        );
        std::process::exit(GIVES_UP);
    };
    if too_long(pgdata) {
        end();
    }
    let pgdata = pgdata.to_owned();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(LOOK_EVERY);
            if too_long(&pgdata) {
                end();
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_engine_that_stops_is_stopping() {
        let tmp = tempfile::tempdir().unwrap();
        assert_eq!(stopping(tmp.path()), None);
        let lock = |status: &str| {
            let text = format!("42\n/data\n1700000000\n5432\n/run\n*\n  123 4\n{status}\n");
            std::fs::write(tmp.path().join("postmaster.pid"), text).unwrap();
        };
        lock("ready   ");
        assert_eq!(stopping(tmp.path()), None);
        lock("stopping");
        assert!(stopping(tmp.path()).is_some_and(|time| time < Duration::from_secs(60)));
        assert!(!too_long(tmp.path()));
    }
}
