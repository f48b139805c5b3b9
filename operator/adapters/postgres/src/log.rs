//! The engine's log: from its standard error to the agent's JSON.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use holdfast_core::instance::Refusal;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// `log_line_prefix`: process, kind of process, user, database, SQLSTATE, between bars that none of them contains.
pub const PREFIX: &str = "|%p|%b|%u|%d|%e|";

/// One message of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Process.
    pub pid: String,
    /// Kind of process: `client backend`, `walreceiver`.
    pub backend: String,
    /// User, if any.
    pub user: String,
    /// Database, if any.
    pub database: String,
    /// SQLSTATE.
    pub code: String,
    /// `LOG`, `ERROR`, `FATAL`, …
    pub severity: String,
    /// The message, with its continuation lines.
    pub message: String,
}

/// Reads one line with [`PREFIX`].
pub fn parse(line: &str) -> Option<Entry> {
    let mut f = line.strip_prefix('|')?.splitn(6, '|');
    let mut next = || f.next().map(str::to_owned);
    let (pid, backend, user, database, code, rest) = (next()?, next()?, next()?, next()?, next()?, next()?);
    let (severity, message) = rest.split_once(": ")?;
    Some(Entry {
        pid,
        backend,
        user,
        database,
        code,
        severity: severity.trim().to_owned(),
        message: message.trim_start().to_owned(),
    })
}

/// What the engine's log tells the observer.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<Mutex<HeardInner>>);

#[derive(Debug, Default)]
struct HeardInner {
    diverged: Option<Refusal>,
    /// When a file of the log was first and last missed, of those tries that follow one another.
    missed: Option<(Instant, Instant)>,
    fatal: Option<String>,
}

impl Heard {
    /// Why the upstream's log cannot be followed, if the engine said so since [`Heard::forget`].
    pub fn diverged(&self) -> Option<Refusal> {
        self.lock().diverged.clone()
    }

    /// The last FATAL or PANIC: why the engine did not come up.
    pub fn fatal(&self) -> Option<String> {
        self.lock().fatal.clone()
    }

    /// Another upstream is followed, or the engine is started anew.
    pub fn forget(&self) {
        *self.lock() = HeardInner::default();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HeardInner> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn hear(&self, e: &Entry) {
        self.hear_at(e, Instant::now());
    }

    fn hear_at(&self, e: &Entry, now: Instant) {
        let mut heard = self.lock();
        if matches!(e.severity.as_str(), "FATAL" | "PANIC") {
            heard.fatal = Some(e.message.clone());
        }
        let Some(removed) = refuses(e) else { return };
        if e.message.contains(MISSED) {
            let first = match heard.missed {
                Some((first, last)) if now.saturating_duration_since(last) < FORGOTTEN => first,
                _ => now,
            };
            heard.missed = Some((first, now));
            if now.saturating_duration_since(first) < STAYS_MISSED {
                return;
            }
        }
        let why = e.message.clone();
        heard.diverged = Some(Refusal { why, removed });
    }
}

/// What a walsender says of a file of the log that is not there. With archiving it says so for a moment of one that is: a promotion renames
/// the segment in which the old timeline ended to `.partial`, and a standby asks for that segment again.
const MISSED: &str = "has already been removed";
/// A receiver tries again every 200 ms (`wal_retrieve_retry_interval`). What is missed for so long is gone.
const STAYS_MISSED: Duration = Duration::from_secs(1);
/// What was missed longer ago has nothing to do with it: on a loaded machine a try takes its time.
const FORGOTTEN: Duration = Duration::from_secs(5);

/// Messages (with `lc_messages=C`) after which following the same upstream again cannot work; whether because the log is not
/// there any more.
fn refuses(e: &Entry) -> Option<bool> {
    const REMOVED: &[&str] = &[
        MISSED,
        "can no longer get changes from replication slot",
        "cannot read from replication slot",
    ];
    const DIVERGED: &[&str] = &[
        "is not in this server's history",
        "forked off current database system timeline",
        "is not a child of database system timeline",
        "is not a child of this server's history",
        "highest timeline",
        "database system identifier differs between",
        "is ahead of the WAL flush position of this server",
    ];
    let says = |words: &[&str]| words.iter().any(|w| e.message.contains(w));
    match (says(DIVERGED), says(REMOVED)) {
        (true, _) => Some(false),
        (false, true) => Some(true),
        _ => None,
    }
}

/// What is forwarded of one message (bytes): a statement can have megabytes, and the log waits in memory.
const LONGEST: usize = 16_384;

/// A message's beginning.
fn cut(message: &str) -> &str {
    message.get(..message.floor_char_boundary(LONGEST)).unwrap_or_default()
}

/// Forwards the engine's standard error until it ends.
pub async fn forward(stream: impl AsyncRead + Unpin, heard: Heard) {
    let mut lines = BufReader::with_capacity(4096, stream).split(b'\n');
    let mut held: Option<Entry> = None;
    loop {
        // The last entry waits a little for its continuation lines, which begin with a tab.
        let next = if held.is_some() {
            match tokio::time::timeout(Duration::from_millis(20), lines.next_segment()).await {
                Ok(next) => next,
                Err(_) => {
                    flush(held.take(), &heard);
                    continue;
                }
            }
        } else {
            lines.next_segment().await
        };
        let Ok(Some(bytes)) = next else { break };
        let line = String::from_utf8_lossy(&bytes);
        match (line.strip_prefix('\t'), held.as_mut()) {
            (Some(more), Some(entry)) if entry.message.len() < LONGEST => {
                entry.message.push('\n');
                entry.message.push_str(more);
            }
            _ => {
                flush(held.take(), &heard);
                match parse(&line) {
                    Some(entry) => held = Some(entry),
                    None if line.trim().is_empty() => {}
                    None => tracing::info!(target: "postgres", "{}", cut(line.trim())),
                }
            }
        }
    }
    flush(held, &heard);
}

fn flush(entry: Option<Entry>, heard: &Heard) {
    let Some(e) = entry else { return };
    // A session that came too early or too late: the agent's own looks, mostly.
    let early = e.code == "57P03";
    if !early {
        heard.hear(&e);
    }
    macro_rules! say {
        ($level:ident) => {
            tracing::$level!(
                target: "postgres",
                severity = e.severity, pid = e.pid, backend = e.backend, user = e.user, database = e.database,
                code = e.code, "{}", cut(&e.message)
            )
        };
    }
    match e.severity.as_str() {
        _ if early => say!(debug),
        "ERROR" | "FATAL" | "PANIC" => say!(error),
        "WARNING" => say!(warn),
        s if s.starts_with("DEBUG") => say!(debug),
        _ => say!(info),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_its_prefix() {
        let e = parse("|42|client backend|app|shop|42P01|ERROR:  relation \"a|b\" does not exist").unwrap();
        assert_eq!(
            (e.pid.as_str(), e.user.as_str(), e.severity.as_str()),
            ("42", "app", "ERROR")
        );
        assert_eq!(e.message, "relation \"a|b\" does not exist");
        assert_eq!(parse("initdb: nothing"), None);
    }

    #[test]
    fn a_message_of_megabytes_is_cut_where_a_character_ends() {
        assert_eq!(cut("short"), "short");
        let long = "ä".repeat(1 << 20);
        assert!(cut(&long).len() <= LONGEST && cut(&long).len() > LONGEST - 4);
    }

    #[tokio::test]
    async fn a_divergence_that_the_engine_tells_is_kept_until_forgotten() {
        let heard = Heard::default();
        let text = "|7|walreceiver|||XX000|FATAL:  could not start WAL streaming: ERROR:  can no longer get changes from replication slot b\n\tmore\n";
        forward(text.as_bytes(), heard.clone()).await;
        let refusal = heard.diverged().unwrap();
        assert!(refusal.removed && refusal.why.ends_with("slot b\nmore"));
        heard.forget();
        assert_eq!(heard.diverged(), None);
    }

    #[test]
    fn a_file_of_the_log_is_gone_once_it_is_missed_for_a_second() {
        let missed = "|7|walreceiver|||XX000|FATAL:  could not receive data from WAL stream: ERROR:  requested WAL segment \
                      000000010000000000000003 has already been removed";
        let missed = parse(missed).unwrap();
        let (heard, begun) = (Heard::default(), Instant::now());
        let says = |ms: u64| {
            heard.hear_at(&missed, begun + Duration::from_millis(ms));
            heard.diverged().is_some_and(|refusal| refusal.removed)
        };
        assert!(!says(0) && !says(200), "while it was renamed");
        assert!(!says(60_000) && !says(66_000), "other times");
        assert!(!says(66_900) && says(67_100));
    }
}
