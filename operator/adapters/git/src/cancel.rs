//! Ending an exchange early.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Set by whoever no longer wants the answer; looked at whenever libgit2 calls back.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends every exchange that was given this.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was set.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The end of one exchange.
#[derive(Clone, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    cancel: Cancel,
}

impl Deadline {
    pub(crate) fn new(timeout: Duration, cancel: &Cancel) -> Self {
        Deadline {
            at: Instant::now() + timeout,
            cancel: cancel.clone(),
        }
    }

    /// Time left, for what takes a time-out itself.
    pub(crate) fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    pub(crate) fn passed(&self) -> bool {
        self.cancel.is_set() || Instant::now() >= self.at
    }
}
