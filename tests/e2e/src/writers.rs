//! Clients that write numbered rows all the time and remember what they were told, for the ledger to judge.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use holdfast_ledger::{Attempt, Outage, Outcome, Row, Violation, judge, outages};
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client};

use crate::house::wait_for;
use crate::sql::Access;

/// A client that hears nothing for this long gives the row up as unknown and connects anew: what a careful application's
/// driver does.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Pause between two rows of one client, so that eight of them leave the machine time for its work.
const PACE: Duration = Duration::from_millis(10);

/// Service proxies that are behind for longer than this are broken.
const PROXIES: Duration = Duration::from_secs(30);

/// Writers at work.
pub struct Writers {
    stop: Arc<AtomicBool>,
    history: Arc<Mutex<Vec<Attempt>>>,
    thread: Option<JoinHandle<()>>,
    access: Access,
    started: Instant,
}

/// What came of it.
#[derive(Debug)]
pub struct Verdict {
    /// Promises broken; none is the only good number.
    pub violations: Vec<Violation>,
    /// Rows acknowledged.
    pub acknowledged: usize,
    /// Rows that nobody knows about.
    pub unknown: usize,
    /// Times without acknowledgement of 200 ms and more.
    pub outages: Vec<Outage>,
}

impl Writers {
    /// Makes the table and starts `clients` clients that write to whoever leads.
    pub fn start(access: Access, clients: u32) -> Result<Writers> {
        let sql = "create table if not exists ledger(id bigserial primary key, client int not null, number bigint not null); truncate ledger";
        // The proxy of a node that was cut off a moment ago may still lead to the primary of before.
        wait_for("a session that may write", PROXIES, || {
            Ok(access.query(sql).map(drop).map_err(|error| format!("{error:#}")))
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let history = Arc::new(Mutex::new(Vec::new()));
        let started = Instant::now();
        let thread = std::thread::spawn({
            let (stop, history, access) = (stop.clone(), history.clone(), access.clone());
            move || {
                let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                    return;
                };
                runtime.block_on(async {
                    let all = (1..=clients).map(|n| client(n, &access, &stop, &history, started));
                    futures::future::join_all(all).await;
                });
            }
        });
        Ok(Writers {
            stop,
            history,
            thread: Some(thread),
            access,
            started,
        })
    }

    /// Microseconds since the writers started: their clock.
    pub fn now(&self) -> u64 {
        micros(self.started)
    }

    /// How many rows have been acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.history.lock().map_or(0, |h| {
            h.iter()
                .filter(|a| matches!(a.outcome, Outcome::Acknowledged { .. }))
                .count()
        })
    }

    /// Stops the writers, reads the rows back from whoever leads, and judges.
    pub fn finish(mut self) -> Result<Verdict> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let history = self.history.lock().map(|h| h.clone()).unwrap_or_default();
        let rows = wait_for("the rows are read back", PROXIES, || Ok(Ok(self.rows()?)))?;
        let count = |wanted: fn(&Outcome) -> bool| history.iter().filter(|a| wanted(&a.outcome)).count();
        Ok(Verdict {
            violations: judge(&history, &rows),
            acknowledged: count(|o| matches!(o, Outcome::Acknowledged { .. })),
            unknown: count(|o| matches!(o, Outcome::Unknown)),
            outages: outages(&history, 200_000),
        })
    }

    /// The rows that whoever leads has.
    fn rows(&self) -> Result<Vec<Row>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let client = self.access.connect().await?;
            let rows = client
                .query("select client, number from ledger order by id", &[])
                .await?;
            rows.iter()
                .map(|r| {
                    let number = u64::try_from(r.try_get::<_, i64>(1)?).context("a negative number")?;
                    Ok(Row {
                        client: u32::try_from(r.try_get::<_, i32>(0)?).context("a negative client")?,
                        number,
                    })
                })
                .collect::<Result<_>>()
        })
    }
}

/// A run that fails on its way leaves no writers behind: the next one's ledger would take their rows for broken promises.
impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// With `HOLDFAST_TRACE` set, what each client is told beside acknowledgements, with the time of day: for one who asks where
/// an outage comes from.
fn trace(client: u32, what: &str) {
    if std::env::var_os("HOLDFAST_TRACE").is_some() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let ms = now.map_or(0, |d| d.as_millis());
        eprintln!(
            "trace {:02}:{:06.3} client {client}: {what}",
            ms / 60_000 % 60,
            (ms % 60_000) as f64 / 1000.0
        );
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// One session; `warned` is set by any warning, such as that of a commit whose wait for standbys was cancelled.
struct Session {
    client: Client,
    warned: Arc<AtomicBool>,
}

async fn open(access: &Access) -> Result<Session> {
    let (client, mut connection) = access.open().await?;
    let warned = Arc::new(AtomicBool::new(false));
    let flag = warned.clone();
    tokio::spawn(async move {
        let mut messages = futures::stream::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(Ok(message)) = messages.next().await {
            if matches!(message, AsyncMessage::Notice(_)) {
                flag.store(true, Ordering::Relaxed);
            }
        }
    });
    Ok(Session { client, warned })
}

async fn client(me: u32, access: &Access, stop: &AtomicBool, history: &Mutex<Vec<Attempt>>, started: Instant) {
    let mut session: Option<Session> = None;
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(PACE).await;
        if session.is_none() {
            session = match tokio::time::timeout(PATIENCE, open(access)).await {
                Ok(Ok(session)) => Some(session),
                Ok(Err(error)) => {
                    trace(me, &format!("cannot connect: {error:#}"));
                    None
                }
                Err(_) => {
                    trace(me, "cannot connect in time");
                    None
                }
            };
        }
        // Not connected: nothing was sent, so there is no row to remember.
        let Some(open) = &session else { continue };
        number += 1;
        let sent = micros(started);
        open.warned.store(false, Ordering::Relaxed);
        let outcome = match tokio::time::timeout(PATIENCE, write(&open.client, access.identity, me, number)).await {
            Ok(Ok(_)) if open.warned.load(Ordering::Relaxed) => Outcome::Unknown,
            Ok(Ok((member, term))) => Outcome::Acknowledged { member, term },
            Ok(Err(error)) => {
                trace(me, &error.to_string());
                told(&error)
            }
            Err(_) => Outcome::Unknown,
        };
        if !matches!(outcome, Outcome::Acknowledged { .. }) {
            trace(me, &format!("{outcome:?}"));
            session = None;
        }
        if let Ok(mut history) = history.lock() {
            history.push(Attempt {
                client: me,
                number,
                sent,
                ended: micros(started),
                outcome,
            });
        }
    }
}

/// What an error means: only those that come before anything is written are a refusal.
fn told(error: &tokio_postgres::Error) -> Outcome {
    match error.code() {
        Some(code) if *code == SqlState::READ_ONLY_SQL_TRANSACTION || *code == SqlState::CANNOT_CONNECT_NOW => {
            Outcome::Refused
        }
        _ => Outcome::Unknown,
    }
}

/// Writes a row in one statement, which commits by itself; says who did and in which term (= timeline).
async fn write(client: &Client, identity: &str, me: u32, number: u64) -> Result<(String, u32), tokio_postgres::Error> {
    let text = format!(
        "insert into ledger(client, number) values ({me}, {number}) \
         returning {identity} || ' ' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)"
    );
    let row = client.query_one(&text, &[]).await?;
    let said: String = row.try_get(0)?;
    let (member, term) = said.rsplit_once(' ').unwrap_or(("?", "0"));
    Ok((member.to_owned(), u32::from_str_radix(term, 16).unwrap_or(0)))
}
