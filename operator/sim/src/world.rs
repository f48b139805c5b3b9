//! The world: virtual time, the queue of what happens next, the network, and agents' steps.

use holdfast_core::failover::{MemberName, Phase, Record};
use holdfast_core::instance::{Event, MemberSpec, Message, Mutant, SetSpec, Timings, Work};

use crate::event::{Ev, Queue};
use crate::ledger::Ledger;
use crate::model::{Conn, Dir, Member};
use crate::person::Person;
use crate::plan::{Fault, Plan};
use crate::rng::Rng;
use crate::store::Store;

/// Every member's address: there is one way to each, so it says nothing. Not empty: comparing nothing with nothing is
/// slow on some processors, because an empty string has no memory of its own to look at.
pub const ADDRESS: &str = "-";

/// Faults in force, by the time at which they end.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    pub cut: Vec<Vec<u64>>,
    /// An agent's connections to another are refused, though both are there.
    pub reject: Vec<Vec<u64>>,
    /// An agent is connected to another.
    pub linked: Vec<Vec<bool>>,
    pub api_cut: Vec<u64>,
    pub api_down: u64,
    pub api_flaky: u64,
    pub watch_lag: u64,
    pub lossy: u64,
    pub slow_reload: u64,
    /// No operator is there until then.
    pub operator: u64,
    /// Two operators are at work until then.
    pub operators: u64,
}

/// The world.
#[derive(Clone, Debug)]
pub struct World {
    pub now: u64,
    seq: u64,
    pub rng: Rng,
    queue: Queue,
    pub members: Vec<Member>,
    pub conns: Vec<Conn>,
    pub made: u64,
    pub store: Store,
    pub specs: Vec<SetSpec>,
    /// Which of them was written, in order.
    pub told: Vec<usize>,
    /// Of what people wish.
    pub generation: i64,
    pub copies: u16,
    /// How many members should be.
    pub wanted: usize,
    /// The operator has something to do.
    pub operating: bool,
    /// Faults that wait for a phase of the record.
    pub ambushes: Vec<(Phase, u64, Fault)>,
    /// Faults that wait for a write that changes the rule.
    pub traps: Vec<(u64, u64, Fault)>,
    /// Directories that are gone: what they had flushed was flushed.
    pub ghosts: Vec<Dir>,
    pub weather: Weather,
    pub ledger: Ledger,
    pub plan: Plan,
    pub timings: Timings,
    pub mutant: Option<Mutant>,
    pub story: Option<Vec<String>>,
    pub steps: u64,
    pub done: bool,
    /// Faults end here; from then on everything must heal.
    pub heals_at: u64,
    /// A volume was lost for good.
    pub lost_volume: bool,
    /// Whoever may accept a loss.
    pub person: Person,
    /// The directories that were on it.
    pub lost: Vec<holdfast_core::failover::DirId>,
}

impl World {
    /// A world in which nothing has happened yet.
    pub fn new(plan: Plan, mutant: Option<Mutant>) -> World {
        let n = plan.members;
        let name = |i: usize| MemberName(format!("m{i}"));
        let spec = SetSpec {
            generation: 1,
            members: (0..n)
                .map(|i| MemberSpec {
                    name: name(i),
                    address: Some(ADDRESS.to_owned()),
                    leaving: false,
                    fenced: false,
                })
                .collect(),
            durability: plan.durability,
            copies: plan.copies,
            maximum_lag_bytes: 20,
            read_lag_bytes: 20,
            parameters: Default::default(),
            command: None,
        };
        let weather = Weather {
            cut: vec![vec![0; n]; n],
            reject: vec![vec![0; n]; n],
            linked: vec![vec![false; n]; n],
            api_cut: vec![0; n],
            ..Weather::default()
        };
        let mut world = World {
            now: 0,
            seq: 0,
            rng: Rng::new(plan.seed),
            queue: Queue::default(),
            members: (0..n).map(|i| Member::new(name(i))).collect(),
            conns: Vec::new(),
            made: 0,
            store: Store::default(),
            specs: vec![spec],
            told: vec![0],
            generation: 1,
            copies: plan.copies,
            wanted: n,
            operating: false,
            ambushes: Vec::new(),
            traps: Vec::new(),
            ghosts: Vec::new(),
            weather,
            ledger: Ledger::default(),
            plan,
            // a look costs a step: as seldom as the protocol bears
            timings: Timings {
                look_hurried: 60,
                ..Timings::default()
            },
            mutant,
            story: None,
            steps: 0,
            done: false,
            heals_at: u64::MAX,
            lost_volume: false,
            person: Person::default(),
            lost: Vec::new(),
        };
        world.store.versions.push(Record::bootstrap(name(0)));
        for m in 0..n {
            let delay = world.rng.below(300);
            world.push(delay, Ev::AgentStart { m, epoch: 0 });
        }
        world
    }

    /// Lets something happen `delay` ms from now.
    pub fn push(&mut self, delay: u64, ev: Ev) {
        self.seq += 1;
        self.queue.push(self.now + delay, self.seq, ev);
    }

    /// Tells the story, if somebody listens.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(story) = &mut self.story {
            story.push(format!("{:>7} ms  {}", now, line()));
        }
    }

    /// Lets the next thing happen. False when nothing is left, or the history is over.
    pub fn turn(&mut self) -> bool {
        if self.done || self.ledger.violation.is_some() {
            return false;
        }
        let Some((at, ev)) = self.queue.pop() else { return false };
        self.now = at;
        if let Some(m) = ev.whose() {
            let frozen = self.members[m].frozen;
            if frozen > at {
                self.push(frozen - at, ev);
                return true;
            }
        }
        self.happen(ev);
        self.invariant_one_able();
        true
    }

    fn happen(&mut self, ev: Ev) {
        let at = self.now;
        match ev {
            Ev::Tick { m, epoch } if self.is_epoch(m, epoch) => {
                let pause = 150 + self.rng.below(150);
                self.push(pause, Ev::Tick { m, epoch });
                self.step(m, Event::Tick);
                self.invariant_not_cut_off(m);
            }
            Ev::Look { m, epoch, id } if self.is_epoch(m, epoch) && self.members[m].look_id == id => {
                let pause = self.members[m].look;
                self.push(pause, Ev::Look { m, epoch, id });
                self.tell_engine(m);
            }
            Ev::Agent { m, epoch, event } if self.is_epoch(m, epoch) => self.step(m, *event),
            Ev::Arrive { from, m, message } if self.members[m].agent.is_some() => {
                self.members[m].words.insert(from, at);
                if let Message::Heartbeat(beat) = &*message
                    && beat.role == holdfast_core::instance::Role::Leader
                {
                    let far = beat.position.lsn;
                    let sized = self.members[from].dir.as_ref().filter(|dir| dir.sized);
                    let far = sized.map_or(far.0, |dir| dir.upto(far) as u64);
                    self.members[m].heard.insert(from, far);
                }
                let from = self.members[from].name.clone();
                let message = *message;
                self.step(m, Event::Message { from, message });
            }
            Ev::Read { m, epoch, op } => self.api_read(m, epoch, op),
            Ev::Write {
                m,
                epoch,
                op,
                expect,
                record,
            } => self.api_write(m, epoch, op, &expect, *record),
            Ev::Deadline { m, epoch, op, write } => self.api_deadline(m, epoch, op, write),
            Ev::Watch { m, epoch, version } if self.is_epoch(m, epoch) => self.watch(m, version),
            Ev::Spec { m, epoch, n } if self.is_epoch(m, epoch) => self.hear_wish(m, n),
            Ev::AgentStart { m, epoch } if self.members[m].epoch == epoch && self.members[m].present => {
                self.agent_start(m);
            }
            Ev::Thaw { m } if self.members[m].agent.is_some() => {
                // what came for it meanwhile waited in its sockets: to it that is news
                self.members[m].contact = self.now;
                self.members[m].thawed = self.now;
                self.step(m, Event::Tick);
            }
            Ev::EngineUp { m, run } if self.members[m].engine.epoch == run => self.engine_up(m),
            Ev::Persisted { m, epoch, disk } if self.is_epoch(m, epoch) => self.persisted(m, *disk),
            Ev::WorkEnds { m, epoch, work, from } if self.is_epoch(m, epoch) => self.work_ends(m, work, from),
            Ev::Promoted {
                m,
                epoch,
                run,
                term,
                sync,
            } if self.is_run(m, run) => self.promoted(m, epoch, term, sync),
            Ev::Promoted { m, epoch, .. } => self.tell_done(m, epoch, Work::Promote, false),
            // The shell tells of it before it tells that the engine has ended.
            Ev::Followed { m, run, .. } if !self.is_run(m, run) => {}
            Ev::SyncSet { m, epoch, run, .. } if !self.is_run(m, run) => self.tell_done(m, epoch, Work::SetSync, false),
            Ev::StopPoll {
                m, epoch, run, stop, ..
            } if !self.is_run(m, run) => self.stopped(m, epoch, stop),
            Ev::StopPoll {
                m, epoch, stop, begun, ..
            } => self.stop_poll(m, epoch, stop, begun),
            Ev::Killed { m, epoch, run, stop } => self.killed(m, epoch, run, stop),
            Ev::Followed {
                m,
                epoch,
                run,
                upstream,
            } if self.is_run(m, run) => self.followed(m, epoch, upstream),
            Ev::SyncSet { m, epoch, run, sync } if self.is_run(m, run) => self.sync_set(m, epoch, sync),
            Ev::WalsendersEnded { m, epoch, run, .. } if !self.is_run(m, run) => {
                self.tell_done(m, epoch, Work::EndWalsenders, false);
            }
            Ev::WalsendersEnded { m, epoch, conns, .. } => self.walsenders_ended(m, epoch, conns),
            Ev::GateSet { m, epoch, run, .. } if !self.is_run(m, run) => self.tell_done(m, epoch, Work::Gate, false),
            Ev::GateSet {
                m, epoch, open, asked, ..
            } => self.gate_set(m, epoch, open, asked),
            Ev::SlotsSet { m, epoch, run, .. } if !self.is_run(m, run) => self.tell_done(m, epoch, Work::Slots, false),
            Ev::SlotsSet { m, epoch, slots, .. } => self.slots_set(m, epoch, slots),
            Ev::ViewSet { conn } => self.view_set(conn),
            Ev::Connect { m, run } if self.is_run(m, run) => self.connect(m),
            Ev::Recv {
                conn,
                m,
                start,
                recs,
                torn,
            } => self.recv(conn, m, start, recs, torn),
            Ev::Flush { m, run, upto } if self.is_run(m, run) => self.flush(m, upto),
            Ev::Ack { conn, m, flushed, told } => self.ack(conn, m, flushed, told),
            Ev::KeepAlive { conn } => self.keep_alive(conn),
            Ev::Gone { conn } => self.break_conn(conn),
            Ev::GoesOver { conn } => self.goes_over(conn),
            Ev::LocalFlush { m, run, upto } if self.is_run(m, run) => self.local_flush(m, upto),
            Ev::Client { m, run } if self.is_run(m, run) => self.client(m),
            Ev::Strike { n } => self.strike(n),
            Ev::Spring { fault } => self.strike_with(usize::MAX, fault),
            Ev::Operate => self.operate(),
            Ev::Person { patience } => self.person_looks(patience),
            Ev::Undo { fault } => self.undo(fault),
            Ev::Check => self.check(),
            _ => {}
        }
    }

    fn is_epoch(&self, m: usize, epoch: u32) -> bool {
        self.members[m].epoch == epoch && self.members[m].agent.is_some()
    }

    fn is_run(&self, m: usize, run: u32) -> bool {
        self.members[m].engine.epoch == run
    }

    /// The member of this name.
    pub fn index(&self, name: &MemberName) -> Option<usize> {
        self.members.iter().position(|member| member.name == *name)
    }
}
