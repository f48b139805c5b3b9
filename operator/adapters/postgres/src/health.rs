//! The leader's honest health: a small committed write, so that a stalled disk shows.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::pg::Pg;
use crate::session::Session;

/// Between writes.
const EVERY: Duration = Duration::from_millis(1000);
/// A write slower than this is no sign of health.
const DEADLINE: Duration = Duration::from_millis(1000);

/// Writes while it lives.
pub struct HealthWrites {
    last: Arc<Mutex<Option<Instant>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for HealthWrites {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HealthWrites {
    /// Begins to write.
    pub fn begin(pg: Arc<Pg>) -> HealthWrites {
        let last = Arc::new(Mutex::new(None));
        let task = tokio::spawn(write(pg, Arc::clone(&last)));
        HealthWrites { last, task }
    }

    /// The last write was committed within its deadline, and not longer ago than the next one may take.
    pub fn healthy(&self) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|at| at.elapsed() <= EVERY + DEADLINE)
    }
}

async fn write(pg: Arc<Pg>, last: Arc<Mutex<Option<Instant>>>) {
    let mut session: Option<Session> = None;
    loop {
        let begun = Instant::now();
        if session.as_ref().is_none_or(Session::is_closed) {
            session = pg.session("holdfast health", DEADLINE).await.ok();
        }
        if let Some(s) = &session {
            // A transactional message is a commit record of its own: it needs no table that could bloat or be dropped. The
            // session commits locally: health must not depend on standbys. No deadline ends the wait, so that a stalled
            // disk never collects more than this one session.
            match s
                .execute("SELECT pg_logical_emit_message(true, 'holdfast', '')", &[])
                .await
            {
                Ok(_) if begun.elapsed() <= DEADLINE => {
                    *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                }
                Ok(_) => tracing::warn!(
                    took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(0),
                    "health write was slow"
                ),
                Err(e) => {
                    tracing::debug!("health write failed: {}", crate::error::describe(&e));
                    session = None;
                }
            }
        }
        tokio::time::sleep(EVERY.saturating_sub(begun.elapsed()).max(Duration::from_millis(50))).await;
    }
}
