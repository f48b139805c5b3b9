//! Looks at the engine as often as the machine wants, and at once when its process changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_postgres::{Observer, Pg};
use tokio::sync::watch;

use crate::shell::{Inbox, Input};

/// Between looks for parameters that wait for a restart.
const PENDING_EVERY: Duration = Duration::from_secs(5);

/// Steers the looking.
pub struct Looking {
    every: watch::Sender<Duration>,
    epoch: Arc<AtomicU64>,
    pending: watch::Receiver<Vec<String>>,
}

impl Looking {
    /// Begins to look.
    pub fn begin(pg: Arc<Pg>, inbox: Inbox) -> Looking {
        let epoch = Arc::new(AtomicU64::new(0));
        let (every, wanted) = watch::channel(Duration::from_millis(500));
        let (tell_pending, pending) = watch::channel(Vec::new());
        tokio::spawn(look(pg, inbox, wanted, Arc::clone(&epoch), tell_pending));
        Looking { every, epoch, pending }
    }

    /// Looks this often from now on, and once at once.
    pub fn every(&self, ms: u64) {
        self.every.send_replace(Duration::from_millis(ms.max(5)));
    }

    /// What was sampled before this moment is not to be believed any more.
    pub fn outdate(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
        // Wakes the looker.
        self.every.send_modify(|_| {});
    }

    /// Whether a sample was taken after the last [`Looking::outdate`].
    pub fn current(&self, epoch: u64) -> bool {
        self.epoch.load(Ordering::Relaxed) == epoch
    }

    /// Parameters that wait for a restart.
    pub fn pending_restart(&self) -> Vec<String> {
        self.pending.borrow().clone()
    }
}

async fn look(
    pg: Arc<Pg>,
    inbox: Inbox,
    mut every: watch::Receiver<Duration>,
    epoch: Arc<AtomicU64>,
    pending: watch::Sender<Vec<String>>,
) {
    let mut process = pg.watch();
    let mut observer = Observer::new(pg);
    let mut looked_for_pending = Instant::now();
    loop {
        process.mark_unchanged();
        every.mark_unchanged();
        let at = epoch.load(Ordering::Relaxed);
        let engine = observer.observe().await;
        if inbox.send(Input::Engine { epoch: at, engine }).is_err() {
            return;
        }
        if looked_for_pending.elapsed() >= PENDING_EVERY {
            looked_for_pending = Instant::now();
            observer.look_for_pending().await;
            pending.send_if_modified(|p| {
                let changed = *p != observer.pending_restart;
                p.clone_from(&observer.pending_restart);
                changed
            });
        }
        let pause = *every.borrow();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = process.changed() => {}
            changed = every.changed() => if changed.is_err() { return },
        }
    }
}
