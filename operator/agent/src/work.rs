//! Work on the engine: one piece at a time, in order; a stop overtakes everything.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_core::failover::{DirId, MemberName, Term};
use holdfast_core::instance::{
    Aside, DiskState, Effect, Event, HowToStop, StartAs, SyncNames, Upstream, VolumeSeen, Work, WorkResult,
};
use holdfast_postgres::{Error, Pg};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::cluster::hand;
use crate::metrics::Metrics;
use crate::shell::Inbox;

/// The gate is not opened when that was asked for longer ago than this.
const LATE: Duration = Duration::from_millis(500);

/// A piece of work.
#[derive(Debug)]
pub enum Job {
    Initdb,
    Clone(Upstream),
    Rewind(Upstream),
    SetAside(String, Option<Aside>),
    PutBack(DirId),
    DropAside(DirId, bool),
    Start(StartAs),
    Stop(HowToStop),
    Follow(Option<Upstream>),
    Promote(Term, SyncNames),
    SetSync(SyncNames),
    EndWalsenders(BTreeSet<DirId>),
    /// Open or close, and when that was asked for.
    Gate(bool, Instant),
    HoldSubscribers(BTreeSet<MemberName>),
}

/// Does the work.
pub struct Hands {
    queue: UnboundedSender<Job>,
    stops: UnboundedSender<Job>,
    disk: UnboundedSender<DiskState>,
    slots: UnboundedSender<BTreeSet<MemberName>>,
}

impl Hands {
    /// Ready to work.
    pub fn new(pg: &Arc<Pg>, inbox: &Inbox, metrics: &Arc<Metrics>) -> Hands {
        let (queue, jobs) = unbounded_channel();
        let (stops, urgent) = unbounded_channel();
        let (disk, states) = unbounded_channel();
        let (slots, wanted) = unbounded_channel();
        let worker = Worker {
            pg: Arc::clone(pg),
            inbox: inbox.clone(),
            metrics: Arc::clone(metrics),
        };
        tokio::spawn(worker.run(jobs, urgent));
        tokio::spawn(persist(Arc::clone(pg), inbox.clone(), states));
        let metrics = Arc::clone(metrics);
        tokio::spawn(keep_slots(Arc::clone(pg), inbox.clone(), metrics, wanted));
        Hands {
            queue,
            stops,
            disk,
            slots,
        }
    }

    /// Takes an effect that is work on the engine; gives back any other.
    pub fn take(&self, effect: Effect) -> Option<Effect> {
        let job = match effect {
            Effect::Persist(state) => {
                let _ = self.disk.send(state);
                return None;
            }
            Effect::Stop(how) => {
                let _ = self.stops.send(Job::Stop(how));
                return None;
            }
            Effect::Initdb => Job::Initdb,
            Effect::Clone { from } => Job::Clone(from),
            Effect::Rewind { to } => Job::Rewind(to),
            Effect::SetAside { why, aside } => Job::SetAside(why, aside),
            Effect::PutBack { dir } => Job::PutBack(dir),
            Effect::DropAside { dir, keep } => Job::DropAside(dir, keep),
            Effect::Start(how) => Job::Start(how),
            Effect::Follow(upstream) => Job::Follow(upstream),
            Effect::Promote { term, sync } => Job::Promote(term, sync),
            Effect::SetSync(sync) => Job::SetSync(sync),
            Effect::EndWalsenders(dirs) => Job::EndWalsenders(dirs),
            Effect::Gate { open } => Job::Gate(open, Instant::now()),
            Effect::Slots(members) => {
                let _ = self.slots.send(members);
                return None;
            }
            Effect::HoldSubscribers(behind) => Job::HoldSubscribers(behind),
            other => return Some(other),
        };
        let _ = self.queue.send(job);
        None
    }
}

/// The disk may be stalled while the engine has to be stopped, so state is written beside the queue.
async fn persist(pg: Arc<Pg>, inbox: Inbox, mut states: UnboundedReceiver<DiskState>) {
    while let Some(state) = states.recv().await {
        let result = match pg.persist(state).await {
            Ok(()) => WorkResult::Ok { volume: None },
            Err(e) => failed(&e),
        };
        let work = Work::Persist;
        hand(&inbox, Event::Done { work, result });
    }
}

/// Slots are files, each of them synced several times: a promotion need not wait for them.
async fn keep_slots(
    pg: Arc<Pg>,
    inbox: Inbox,
    metrics: Arc<Metrics>,
    mut wanted: UnboundedReceiver<BTreeSet<MemberName>>,
) {
    while let Some(members) = wanted.recv().await {
        let result = plain(pg.slots(&members).await);
        if let WorkResult::Failed { why, permanent } = &result {
            metrics.failed("Slots");
            tracing::warn!(work = "Slots", permanent, "work failed: {why}");
        }
        let work = Work::Slots;
        hand(&inbox, Event::Done { work, result });
    }
}

struct Worker {
    pg: Arc<Pg>,
    inbox: Inbox,
    metrics: Arc<Metrics>,
}

impl Worker {
    async fn run(self, mut jobs: UnboundedReceiver<Job>, mut urgent: UnboundedReceiver<Job>) {
        let mut next: Option<Job> = None;
        loop {
            let job = match next.take() {
                Some(job) => job,
                None => tokio::select! {
                    biased;
                    Some(stop) = urgent.recv() => stop,
                    Some(job) = jobs.recv() => job,
                    else => return,
                },
            };
            let work = job.work();
            let stopping = matches!(job, Job::Stop(_));
            if stopping {
                // Asked for before the stop: overtaken by it.
                while let Ok(late) = jobs.try_recv() {
                    self.tell(late.work(), overtaken());
                }
            }
            tokio::select! {
                biased;
                Some(stop) = urgent.recv() => {
                    // A stop that is replaced by a harder one ends with that one's end.
                    if !stopping {
                        self.tell(work, overtaken());
                    }
                    next = Some(stop);
                }
                result = self.perform(job) => self.tell(work, result),
            }
        }
    }

    fn tell(&self, work: Option<Work>, result: WorkResult) {
        if let WorkResult::Failed { why, permanent } = &result {
            let name = work.map_or_else(|| "Settings".to_owned(), |w| format!("{w:?}"));
            self.metrics.failed(&name);
            tracing::warn!(work = name, permanent, "work failed: {why}");
        }
        if let Some(work) = work {
            hand(&self.inbox, Event::Done { work, result });
        }
    }

    async fn perform(&self, job: Job) -> WorkResult {
        let pg = &self.pg;
        tracing::debug!(?job, "begins");
        let done = match job {
            Job::Initdb => pg.initdb().await,
            Job::Clone(from) => pg.clone_from(&from).await,
            Job::Rewind(to) => pg.rewind(&to).await,
            Job::SetAside(why, aside) => pg.set_aside(why, aside).await,
            Job::PutBack(dir) => pg.put_back(dir).await,
            Job::DropAside(dir, keep) => return plain(pg.drop_aside(dir, keep).await),
            Job::Stop(how) => pg.stop(how).await,
            Job::Start(how) => {
                self.metrics.starts.inc();
                return plain(pg.start(how).await);
            }
            Job::Follow(upstream) => return plain(pg.follow(upstream).await),
            Job::Promote(term, sync) => return plain(pg.promote(term, sync).await),
            Job::SetSync(sync) => return plain(pg.set_sync(sync).await),
            Job::EndWalsenders(dirs) => return plain(pg.end_walsenders(&dirs).await),
            // Asked for before the machine was frozen, say: another may lead by now.
            Job::Gate(true, asked) if asked.elapsed() > LATE => return late(),
            Job::Gate(open, _) => return plain(pg.gate(open).await),
            Job::HoldSubscribers(behind) => return plain(pg.hold_subscribers(behind)),
        };
        match done {
            Ok(()) => match pg.look_at_volume().await {
                Ok(volume) => WorkResult::Ok { volume: Some(volume) },
                Err(e) => failed(&e),
            },
            Err(e) => failed(&e),
        }
    }
}

impl Job {
    fn work(&self) -> Option<Work> {
        match self {
            Job::Initdb => Some(Work::Initdb),
            Job::Clone(_) => Some(Work::Clone),
            Job::Rewind(_) => Some(Work::Rewind),
            Job::SetAside(..) => Some(Work::SetAside),
            Job::PutBack(_) => Some(Work::PutBack),
            Job::DropAside(..) => Some(Work::DropAside),
            Job::Start(_) => Some(Work::Start),
            Job::Stop(_) => Some(Work::Stop),
            Job::Follow(_) => Some(Work::Follow),
            Job::Promote(..) => Some(Work::Promote),
            Job::SetSync(_) => Some(Work::SetSync),
            Job::EndWalsenders(_) => Some(Work::EndWalsenders),
            Job::Gate(..) => Some(Work::Gate),
            Job::HoldSubscribers(_) => None,
        }
    }
}

fn plain(done: Result<(), Error>) -> WorkResult {
    match done {
        Ok(()) => WorkResult::Ok {
            volume: None::<VolumeSeen>,
        },
        Err(e) => failed(&e),
    }
}

fn failed(e: &Error) -> WorkResult {
    WorkResult::Failed {
        why: e.to_string(),
        permanent: e.permanent(),
    }
}

fn late() -> WorkResult {
    WorkResult::Failed {
        why: "asked for too long ago".to_owned(),
        permanent: false,
    }
}

fn overtaken() -> WorkResult {
    WorkResult::Failed {
        why: "overtaken by a stop".to_owned(),
        permanent: false,
    }
}
