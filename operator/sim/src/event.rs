//! What can happen, and what happens next.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use holdfast_core::failover::{Lsn, MemberName, Record};
use holdfast_core::instance::{Event, Message, SyncNames, Upstream, Version, Work};

use crate::model::Rec;
use crate::plan::Fault;

/// Something that happens at a time. `epoch` names the agent's process, `run` the engine's: what was meant for an earlier
/// one is dropped. What is large is boxed: each is moved several times.
#[derive(Clone, Debug)]
pub enum Ev {
    Tick {
        m: usize,
        epoch: u32,
    },
    Look {
        m: usize,
        epoch: u32,
        id: u32,
    },
    Agent {
        m: usize,
        epoch: u32,
        event: Box<Event>,
    },
    Arrive {
        from: usize,
        m: usize,
        message: Box<Message>,
    },
    Read {
        m: usize,
        epoch: u32,
        op: u32,
    },
    Write {
        m: usize,
        epoch: u32,
        op: u32,
        expect: Version,
        record: Box<Record>,
    },
    Deadline {
        m: usize,
        epoch: u32,
        op: u32,
        write: bool,
    },
    Watch {
        m: usize,
        epoch: u32,
        version: usize,
    },
    Spec {
        m: usize,
        epoch: u32,
        n: usize,
    },
    AgentStart {
        m: usize,
        epoch: u32,
    },
    Thaw {
        m: usize,
    },
    EngineUp {
        m: usize,
        run: u32,
    },
    Persisted {
        m: usize,
        epoch: u32,
        disk: Box<holdfast_core::instance::DiskState>,
    },
    WorkEnds {
        m: usize,
        epoch: u32,
        work: Work,
        from: Option<Upstream>,
    },
    Promoted {
        m: usize,
        epoch: u32,
        run: u32,
        term: u32,
        sync: SyncNames,
    },
    StopPoll {
        m: usize,
        epoch: u32,
        run: u32,
        stop: u32,
        begun: bool,
    },
    Killed {
        m: usize,
        epoch: u32,
        run: u32,
        stop: u32,
    },
    Followed {
        m: usize,
        epoch: u32,
        run: u32,
        upstream: Option<Upstream>,
    },
    SyncSet {
        m: usize,
        epoch: u32,
        run: u32,
        sync: SyncNames,
    },
    WalsendersEnded {
        m: usize,
        epoch: u32,
        run: u32,
        conns: Vec<u64>,
    },
    GateSet {
        m: usize,
        epoch: u32,
        run: u32,
        open: bool,
        asked: u64,
    },
    SlotsSet {
        m: usize,
        epoch: u32,
        run: u32,
        slots: BTreeSet<MemberName>,
    },
    ViewSet {
        conn: u64,
    },
    Connect {
        m: usize,
        run: u32,
    },
    Recv {
        conn: u64,
        m: usize,
        start: usize,
        recs: Vec<Rec>,
        /// So much of the record after them.
        torn: u64,
    },
    Flush {
        m: usize,
        run: u32,
        upto: usize,
    },
    Ack {
        conn: u64,
        m: usize,
        flushed: usize,
        told: Lsn,
    },
    KeepAlive {
        conn: u64,
    },
    /// A walsender of an engine whose log has ended is gone.
    Gone {
        conn: u64,
    },
    GoesOver {
        conn: u64,
    },
    LocalFlush {
        m: usize,
        run: u32,
        upto: usize,
    },
    Client {
        m: usize,
        run: u32,
    },
    Strike {
        n: usize,
    },
    /// An ambush is sprung.
    Spring {
        fault: Fault,
    },
    /// A person looks whether an election needs a decision.
    Person {
        patience: u64,
    },
    /// The operator takes one step.
    Operate,
    Undo {
        fault: Fault,
    },
    Check,
}

/// So many bits of a key name the place: more events than that never wait at once, nor are more than 2^40 ever asked for.
const PLACES: u32 = 24;

/// What happens when: a heap of small keys, and the events themselves beside it, where the heap need not move them.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// Time, number in order of asking, place in `events`: as one number, which compares at once.
    keys: BinaryHeap<Reverse<u128>>,
    events: Vec<Option<Ev>>,
    free: Vec<usize>,
}

impl Queue {
    /// Adds one.
    pub fn push(&mut self, at: u64, seq: u64, ev: Ev) {
        let place = match self.free.pop() {
            Some(place) => {
                self.events[place] = Some(ev);
                place
            }
            None => {
                self.events.push(Some(ev));
                self.events.len() - 1
            }
        };
        self.keys.push(Reverse(
            u128::from(at) << 64 | u128::from(seq) << PLACES | place as u128,
        ));
    }

    /// Takes the next.
    pub fn pop(&mut self) -> Option<(u64, Ev)> {
        let Reverse(key) = self.keys.pop()?;
        let (at, place) = ((key >> 64) as u64, key as usize & ((1 << PLACES) - 1));
        self.free.push(place);
        Some((at, self.events[place].take()?))
    }
}

impl Ev {
    /// The member that must be awake for this to happen.
    pub fn whose(&self) -> Option<usize> {
        match self {
            Ev::Tick { m, .. }
            | Ev::Look { m, .. }
            | Ev::Agent { m, .. }
            | Ev::Arrive { m, .. }
            | Ev::Deadline { m, .. }
            | Ev::Watch { m, .. }
            | Ev::Spec { m, .. }
            | Ev::EngineUp { m, .. }
            | Ev::Persisted { m, .. }
            | Ev::WorkEnds { m, .. }
            | Ev::Promoted { m, .. }
            | Ev::StopPoll { m, .. }
            | Ev::Killed { m, .. }
            | Ev::Followed { m, .. }
            | Ev::SyncSet { m, .. }
            | Ev::WalsendersEnded { m, .. }
            | Ev::GateSet { m, .. }
            | Ev::SlotsSet { m, .. }
            | Ev::Connect { m, .. }
            | Ev::Recv { m, .. }
            | Ev::Flush { m, .. }
            | Ev::Ack { m, .. }
            | Ev::LocalFlush { m, .. }
            | Ev::Client { m, .. } => Some(*m),
            _ => None,
        }
    }
}
