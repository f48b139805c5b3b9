//! The machine: its state, how it takes an event in, and the order in which it decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::failover::{DirId, Lsn, MemberName, Phase, Position, Record, Term, position};

use super::change::Change;
use super::effect::{Effect, HowToStop, StartAs, SyncNames, Upstream};
use super::endpoints::Served;
use super::event::{DiskState, Engine, Event, VolumeSeen, Work, WorkResult};
use super::heal::Heal;
use super::lead::Lead;
use super::message::{Message, Role, SealAnswer};
use super::mutant::{Mutant, Mutation};
use super::peers::Peers;
use super::register::Register;
use super::spec::{MemberSpec, SetSpec};
use super::switchover::Hand;
use super::walsenders::Views;
use super::{Moment, Timings, Why};

/// How the engine was last asked to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Run {
    Down,
    Primary,
    Standby { upstream: Option<Upstream> },
}

/// What the record asks of this member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// It is the leader of this term, or elected.
    Lead,
    /// Another is.
    Follow,
    /// An election for this term is open, or a later term than the record's was heard of.
    Seal(Term),
}

/// One member's agent, without its hands: see the module's documentation.
///
/// It is level-triggered: [`Instance::step`] first takes the event into what is known, then decides afresh from all that
/// is known. A lost or doubled event delays, and never misleads.
#[derive(Clone, Debug)]
pub struct Instance {
    pub(super) me: MemberName,
    pub(super) timings: Timings,
    pub(super) seed: u64,
    pub(super) mutation: Mutation,
    pub(super) now: Moment,
    stepped: bool,
    pub(super) out: Vec<Effect>,
    pub(super) spec: Option<SetSpec>,
    pub(super) volume: Option<VolumeSeen>,
    /// As last persisted.
    pub(super) disk: DiskState,
    /// Being persisted.
    pub(super) persisting: Option<DiskState>,
    /// A call of the volume or the engine failed: nothing is tried again before this.
    not_before: Moment,
    pub(super) register: Register,
    /// When this member asked for the last write of the record that succeeded.
    pub(super) confirmed_at: Option<Moment>,
    pub(super) engine: Arc<Engine>,
    /// Work on the engine has ended since it was last looked at.
    pub(super) stale: bool,
    pub(super) silent_since: Option<Moment>,
    pub(super) run: Run,
    /// The one work on engine or directory under way.
    pub(super) busy: Option<Work>,
    /// Changes of the upstream under way: they end in the order asked for.
    pub(super) following: u32,
    /// The last clean stop's control file still tells where the log ends.
    pub(super) clean_end: Option<Position>,
    /// Where a standby's log ended when it was last seen to take log from nobody.
    pub(super) stood: Option<Position>,
    /// When this member's standby was last seen to take log from a leader; before that is seen, when this process began.
    pub(super) took_log: Moment,
    /// What was set aside and is being removed.
    pub(super) dropping: Option<DirId>,
    pub(super) peers: Peers,
    /// The latest term that anyone mentioned.
    pub(super) called: Term,
    pub(super) seals: BTreeMap<MemberName, (SealAnswer, Moment)>,
    pub(super) answered: Option<(Term, Moment)>,
    /// Since when the present leader is watched, and found lost.
    pub(super) watch_since: Moment,
    pub(super) lost_since: Option<Moment>,
    pub(super) lead: Option<Lead>,
    pub(super) change: Option<Change>,
    pub(super) hand: Option<Hand>,
    pub(super) heal: Heal,
    pub(super) served: Served,
    pub(super) shutdown: Option<Moment>,
    pub(super) exited: bool,
    pub(super) role: Role,
    pub(super) why: Option<Why>,
    pub(super) said: Option<Why>,
    pub(super) look: u64,
    pub(super) beat: super::heartbeat::Beat,
}

impl Instance {
    /// A machine that has seen nothing yet. `seed` only spreads members' timers.
    pub fn new(me: MemberName, timings: Timings, seed: u64) -> Instance {
        Instance {
            me,
            timings,
            seed,
            mutation: Mutation::default(),
            now: Moment(0),
            stepped: false,
            out: Vec::new(),
            spec: None,
            volume: None,
            disk: DiskState::default(),
            persisting: None,
            not_before: Moment(0),
            register: Register::default(),
            confirmed_at: None,
            engine: Arc::new(Engine::Down { clean: false }),
            stale: true,
            silent_since: None,
            run: Run::Down,
            busy: None,
            following: 0,
            clean_end: None,
            stood: None,
            took_log: Moment(0),
            dropping: None,
            peers: Peers::default(),
            called: Term(0),
            seals: BTreeMap::new(),
            answered: None,
            watch_since: Moment(0),
            lost_since: None,
            lead: None,
            change: None,
            hand: None,
            heal: Heal::default(),
            served: Served::default(),
            shutdown: None,
            exited: false,
            role: Role::Preparing,
            why: None,
            said: None,
            look: 0,
            beat: super::heartbeat::Beat::default(),
        }
    }

    /// Puts a deliberate bug in force, for the simulator.
    #[cfg(feature = "mutants")]
    pub fn with_mutant(mut self, mutant: Option<Mutant>) -> Instance {
        self.mutation.is = mutant;
        self
    }

    /// Takes one event and says what to do, in this order.
    pub fn step(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        let gap = now.since(self.now);
        if !self.stepped {
            self.watch_since = now;
            self.took_log = now;
        }
        let thawed = self.stepped && gap > self.timings.thaw;
        self.stepped = true;
        self.now = self.now.max(now);
        if thawed {
            self.thaw(gap);
        }
        self.take_in(event);
        if !self.exited {
            self.decide();
            self.report();
        }
        std::mem::take(&mut self.out)
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Tick => {}
            Event::Volume(volume) => {
                self.disk = volume.disk.clone();
                self.called = self.called.max(self.disk.term);
                self.volume = Some(volume);
            }
            Event::Spec(spec) => {
                if self
                    .spec
                    .as_ref()
                    .is_none_or(|known| known.generation <= spec.generation)
                {
                    self.spec = Some(spec);
                }
            }
            Event::Record(seen) => self.on_record(seen),
            Event::RecordHint(seen) => self.on_hint(seen),
            Event::Cas(outcome) => self.on_cas(outcome),
            Event::Engine(engine) => self.on_engine(engine),
            Event::Done { work, result } => self.on_done(work, result),
            Event::Message { from, message } => self.on_message(from, message),
            Event::Refused { by } => self.on_refused(&by),
            Event::Shutdown => self.shutdown = Some(self.shutdown.unwrap_or(self.now)),
        }
    }

    fn on_message(&mut self, from: MemberName, message: Message) {
        match message {
            Message::Heartbeat(beat) => self.on_heartbeat(from, beat),
            Message::Record { record, version } => {
                self.called = self.called.max(record.term);
                self.on_hint(super::RecordSeen::Found { record, version });
            }
            Message::Sealed(answer) => self.on_sealed(from, answer),
        }
    }

    fn on_engine(&mut self, engine: Engine) {
        let died = matches!(engine, Engine::Down { .. }) && self.run != Run::Down && self.busy.is_none();
        self.silent_since = match engine {
            Engine::Silent => Some(self.silent_since.unwrap_or(self.now)),
            _ => None,
        };
        self.engine = Arc::new(engine);
        self.stale = false;
        if let (Engine::Standby(seen), Run::Standby { upstream }) = (&*self.engine, &self.run)
            && self.following == 0
        {
            match (upstream, seen.receiving) {
                (None, false) => self.stood = Some(self.position()),
                // a receiver that is refused runs for a moment, too
                (Some(_), true) if seen.diverged.is_none() => self.took_log = self.now,
                _ => {}
            }
        }
        if died {
            self.engine_gone();
            self.crashed("engine", "it ended by itself");
        }
        if let (Engine::Standby(_) | Engine::Primary(_), None) = (&*self.engine, self.busy) {
            self.heal.well(self.now);
        }
    }

    fn on_done(&mut self, work: Work, result: WorkResult) {
        self.stale = true;
        match work {
            Work::Persist => self.on_persisted(&result),
            Work::Follow => return self.followed(&result),
            Work::SetSync | Work::EndWalsenders => return self.on_changed(work, &result),
            Work::Gate => return self.on_gate(&result),
            Work::Slots => return self.slotted(&result),
            Work::DropAside => return self.dropped(result),
            _ => {}
        }
        let directory = !matches!(work, Work::Persist);
        if directory && self.busy != Some(work) {
            // a clean stop that a fence took the place of, or a work that a fence interrupted: the fence's end counts
            return;
        }
        if directory {
            self.busy = None;
        }
        let failed = match result {
            WorkResult::Ok { volume } => {
                if let (Some(volume), false) = (volume, work == Work::Persist) {
                    match work {
                        Work::SetAside | Work::PutBack => self.disk = volume.disk.clone(),
                        _ => self.disk.dir = volume.disk.dir.clone(),
                    }
                    self.volume = Some(volume);
                }
                None
            }
            WorkResult::Failed { why, permanent } => Some((why, permanent)),
        };
        self.finished(work, failed);
    }

    /// What was set aside is gone, or will be asked for again.
    fn dropped(&mut self, result: WorkResult) {
        let Some(dir) = self.dropping.take() else { return };
        match result {
            WorkResult::Ok { .. } => self.disk = std::mem::take(&mut self.disk).drop_aside(&dir),
            WorkResult::Failed { why, permanent } => self.failed(Work::DropAside, &why, permanent),
        }
    }

    /// What follows from the end of a work on engine or directory.
    fn finished(&mut self, work: Work, failed: Option<(String, bool)>) {
        if let (Some((why, permanent)), false) = (&failed, work == Work::Persist) {
            self.failed(work, why, *permanent);
        }
        let ok = failed.is_none();
        match work {
            Work::Stop if ok => {
                // A standby's control file tells how far it was replayed, which is not how far it was flushed.
                let standby = matches!(self.run, Run::Standby { .. });
                self.engine_gone();
                self.served.fencing = None;
                self.engine = Arc::new(Engine::Down { clean: false });
                let clean = self.volume.as_ref().filter(|volume| volume.clean && volume.whole);
                let stood = self.stood.take();
                self.clean_end = clean.and_then(|volume| if standby { stood } else { volume.control });
            }
            Work::Start if ok => {
                if matches!(*self.engine, Engine::Down { .. }) {
                    self.engine = Arc::new(Engine::Starting);
                }
            }
            Work::Start => self.run = Run::Down,
            Work::Promote if ok => {
                self.run = Run::Primary;
                self.engine = Arc::new(Engine::Starting);
                self.served.promoted = self.disk.led;
            }
            Work::Promote => self.served.promotion_failed = self.disk.led,
            Work::Initdb | Work::Clone | Work::Rewind if ok => self.made(work),
            Work::PutBack if ok => {
                self.heal.another_directory();
                self.clean_end = None;
            }
            _ => {}
        }
    }

    fn on_persisted(&mut self, result: &WorkResult) {
        let Some(written) = self.persisting.take() else { return };
        match result {
            WorkResult::Ok { .. } => self.disk = written,
            WorkResult::Failed { why, .. } => {
                self.call_failed("writing beside the data", why);
            }
        }
    }

    /// Decides, in this order:
    ///
    /// 1. Without a look at the volume, or the operator's wish, nothing is done.
    /// 2. A leader that must fence does so whatever else it waits for.
    /// 3. A member fenced by a person is stopped; one that is asked to end, ends.
    /// 4. Until the record has been read since start or thaw, nobody is followed or served.
    /// 5. While a work or a persist is under way, the next waits.
    /// 6. An engine that runs unasked is stopped.
    /// 7. What the record asks: lead, follow, or seal.
    fn decide(&mut self) {
        if self.volume.is_none() {
            return;
        }
        self.keep_reading();
        if self.spec.is_none() {
            return self.wait(Why::WaitsForSpec);
        }
        if self.fence_if_due() || self.fenced_by_hand() || self.ending() {
            return;
        }
        let Some(record) = self.record_shared() else {
            return self.wait(Why::WaitsForRecord);
        };
        if self.persisting.is_some() || self.now < self.not_before {
            return;
        }
        if self.run == Run::Down && self.busy.is_none() && !matches!(*self.engine, Engine::Down { .. }) {
            return self.fence("an engine runs that was not asked for");
        }
        match self.duty(&record) {
            Duty::Lead => self.lead(&record),
            Duty::Follow => self.follow(&record),
            Duty::Seal(term) => self.seal(term, &record),
        }
    }

    pub(super) fn duty(&self, record: &Record) -> Duty {
        if self.called > record.term && !self.is_naming(self.called) {
            return Duty::Seal(self.called);
        }
        match record.phase {
            Phase::Sealing => Duty::Seal(record.term),
            _ if record.leader == self.me => Duty::Lead,
            _ => Duty::Follow,
        }
    }

    /// What a machine does first that was frozen for `gap` ms: others may have elected. It reads the record before it
    /// answers anyone, and after a freeze as long as the fence its lease may have run out.
    fn thaw(&mut self, gap: u64) {
        self.register.trusted = false;
        self.register.thawed = Some(self.now);
        self.watch_since = self.now;
        self.lost_since = None;
        if self.run == Run::Primary {
            self.close_gate();
            if gap > self.timings.fence && !self.mutation.is(Mutant::NoFence) {
                self.fence("it was frozen");
            }
        }
    }

    /// Keeps a reason for status.
    pub(super) fn wait(&mut self, why: Why) {
        self.why = Some(why);
    }

    /// Persists a changed state. Nothing else is done until it is durable.
    pub(super) fn persist(&mut self, change: impl FnOnce(&mut DiskState)) {
        let mut disk = self.disk.clone();
        change(&mut disk);
        self.persisting = Some(disk.clone());
        self.out.push(Effect::Persist(disk));
    }

    /// Starts the engine, if nothing is under way and the heal ladder does not ask for a pause.
    pub(super) fn start(&mut self, how: StartAs) {
        if self.busy.is_some() || self.persisting.is_some() || self.shutdown.is_some() || !self.heal.ready(self.now) {
            return;
        }
        self.clean_end = None;
        self.stood = None;
        self.heal.retires = None;
        self.engine = Arc::new(Engine::Down { clean: false });
        self.run = match &how {
            StartAs::Primary { sync } => {
                self.lead = None;
                self.served.sync = Some(sync.clone());
                self.served.views = Views::of(sync);
                Run::Primary
            }
            StartAs::Standby { upstream } => Run::Standby {
                upstream: upstream.clone(),
            },
        };
        self.busy = Some(Work::Start);
        self.out.push(Effect::Start(how));
    }

    /// Stops the engine. A fence interrupts whatever is under way; a clean stop waits for it.
    pub(super) fn stop(&mut self, how: HowToStop) {
        let interrupts = matches!(how, HowToStop::Fence { .. });
        if self.busy == Some(Work::Stop) && !interrupts {
            return;
        }
        if self.busy.is_some() && !interrupts {
            return;
        }
        self.close_gate();
        self.lead = None;
        self.change = None;
        self.busy = Some(Work::Stop);
        self.out.push(Effect::Stop(how));
    }

    /// Follows somebody or nobody, once.
    pub(super) fn set_upstream(&mut self, upstream: Option<Upstream>) {
        self.run = Run::Standby {
            upstream: upstream.clone(),
        };
        self.following = self.following.saturating_add(1);
        self.stood = None;
        self.outdate_engine();
        self.out.push(Effect::Follow(upstream));
    }

    /// A changed upstream is in force, or which one is cannot be told: then it is set again.
    fn followed(&mut self, result: &WorkResult) {
        // The end of an earlier change says nothing of a later one.
        self.following = self.following.saturating_sub(1);
        self.outdate_engine();
        if let (WorkResult::Failed { why, .. }, Run::Standby { .. }) = (result, &self.run) {
            let unknown = Upstream {
                member: self.me.clone(),
                term: Term(0),
                address: String::new(),
            };
            self.run = Run::Standby {
                upstream: Some(unknown),
            };
            self.call_failed("changing the upstream", why);
        }
    }

    /// A call failed that will be made again: tell, and pause.
    pub(super) fn call_failed(&mut self, what: &'static str, why: &str) {
        self.not_before = self.now.plus(self.timings.backoff);
        self.say(Why::WorkFailed {
            what,
            why: why.to_owned(),
        });
    }

    /// What the engine said of its receiver is out of date: until it says otherwise, one runs.
    fn outdate_engine(&mut self) {
        if let Engine::Standby(seen) = Arc::make_mut(&mut self.engine) {
            seen.receiving = true;
        }
    }

    /// What was true of an engine process ends with it.
    fn engine_gone(&mut self) {
        self.run = Run::Down;
        // The next process has to show anew that it runs well.
        self.heal.runs_since = None;
        self.following = 0;
        self.lead = None;
        self.change = None;
        self.served.gate = false;
        self.served.fencing = None;
        self.served.asked = None;
        self.served.sync = None;
        self.served.views = Views::default();
        // The next process drops the slots that it finds.
        self.served.early = None;
    }

    /// Whether a whole data directory is here.
    pub(super) fn whole(&self) -> bool {
        let whole = self.volume.as_ref().is_some_and(|volume| volume.whole);
        whole && self.disk.dir.is_some() && (!self.disk.half || self.mutation.is(Mutant::HalfSeals))
    }

    /// Where this member's log ends, as far as is known now.
    pub(super) fn position(&self) -> Position {
        match &*self.engine {
            Engine::Primary(seen) => Position {
                term: seen.term,
                lsn: seen.flushed,
            },
            Engine::Standby(seen) => {
                if self.mutation.is(Mutant::ClaimsFollowing) {
                    let term = self.disk.following.unwrap_or(self.disk.base.term);
                    return Position {
                        term,
                        lsn: seen.flushed,
                    };
                }
                let following = self.disk.following;
                let led =
                    following.is_some() && self.disk.led == following && !self.mutation.is(Mutant::ForgetsItsFork);
                position::position(self.disk.base, following, led, &seen.history, seen.flushed)
            }
            _ => self.clean_end.unwrap_or(self.disk.base),
        }
    }

    pub(super) fn replayed(&self) -> Lsn {
        match &*self.engine {
            Engine::Standby(seen) => seen.replayed,
            _ => self.position().lsn,
        }
    }

    pub(super) fn my_spec(&self) -> Option<&MemberSpec> {
        self.spec
            .iter()
            .flat_map(|spec| &spec.members)
            .find(|m| m.name == self.me)
    }

    /// The setting in force, or asked for at start.
    pub(super) fn sync_in_force(&self) -> Option<&SyncNames> {
        self.served.sync.as_ref()
    }
}
