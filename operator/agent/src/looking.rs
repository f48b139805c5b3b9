//! Looks at the engine as often as the machine wants, and at once when its process changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_core::archive::Archiving;
use holdfast_postgres::{Observer, Pg};
use tokio::sync::watch;

use crate::shell::{Inbox, Input};

/// Between looks at what changes seldom.
const SELDOM: Duration = Duration::from_secs(5);

/// Steers the looking.
pub struct Looking {
    every: watch::Sender<Duration>,
    epoch: Arc<AtomicU64>,
    seldom: watch::Receiver<Seldom>,
}

/// What is looked at seldom: parameters that wait for a restart, and how archiving goes.
type Seldom = (Vec<String>, Option<Archiving>);

impl Looking {
    /// Begins to look.
    pub fn begin(pg: Arc<Pg>, inbox: Inbox) -> Looking {
        let epoch = Arc::new(AtomicU64::new(0));
        let (every, wanted) = watch::channel(Duration::from_millis(500));
        let (tell_seldom, seldom) = watch::channel(Seldom::default());
        tokio::spawn(look(pg, inbox, wanted, Arc::clone(&epoch), tell_seldom));
        Looking { every, epoch, seldom }
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
        self.seldom.borrow().0.clone()
    }

    /// How archiving goes, if log is archived and that was seen.
    pub fn archiving(&self) -> Option<Archiving> {
        self.seldom.borrow().1.clone()
    }
}

async fn look(
    pg: Arc<Pg>,
    inbox: Inbox,
    mut every: watch::Receiver<Duration>,
    epoch: Arc<AtomicU64>,
    seldom: watch::Sender<Seldom>,
) {
    let mut process = pg.watch();
    let mut observer = Observer::new(pg);
    let mut looked_seldom = Instant::now();
    loop {
        process.mark_unchanged();
        every.mark_unchanged();
        let at = epoch.load(Ordering::Relaxed);
        let engine = observer.observe().await;
        if inbox.send(Input::Engine { epoch: at, engine }).is_err() {
            return;
        }
        if looked_seldom.elapsed() >= SELDOM {
            looked_seldom = Instant::now();
            observer.look_for_pending().await;
            observer.look_at_archiving().await;
            seldom.send_replace((observer.pending_restart.clone(), observer.archiving.clone()));
        }
        let pause = *every.borrow();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = process.changed() => {}
            changed = every.changed() => if changed.is_err() { return },
        }
    }
}
