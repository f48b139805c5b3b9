//! What goes wrong, and what users do.

use holdfast_core::failover::Phase;
use holdfast_core::instance::Durability;
use serde::{Deserialize, Serialize};

/// Something that goes wrong, or that a user does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// SIGKILL of the engine.
    KillEngine { member: usize },
    /// SIGKILL of the agent, and with it of the engine.
    KillAgent { member: usize, down: u64 },
    /// Power cut: what was not fsynced is gone, and nobody is told.
    PowerCut { member: usize, down: u64 },
    /// Power cut, and the volume is gone for good.
    LoseVolume { member: usize, down: u64 },
    /// The machine stops, and goes on later as if nothing had been.
    Freeze { member: usize, lasts: u64 },
    /// Nothing passes from one to the other.
    CutOneWay { from: usize, to: usize, lasts: u64 },
    /// Nothing passes between them.
    Cut { one: usize, other: usize, lasts: u64 },
    /// One agent's connections to another are refused, as by a network policy.
    Reject { from: usize, to: usize, lasts: u64 },
    /// A member reaches no other; with `api` not the API server either.
    Isolate { member: usize, api: bool, lasts: u64 },
    /// These reach each other, but neither the others nor the API server.
    Split { away: Vec<usize>, lasts: u64 },
    /// A member does not reach the API server.
    CutApi { member: usize, lasts: u64 },
    /// The API server is down.
    ApiDown { lasts: u64 },
    /// The API server is slow, and loses answers.
    ApiFlaky { lasts: u64 },
    /// Watches fall behind, and tell old news.
    WatchLag { lasts: u64 },
    /// Messages between members are lost, delayed, doubled, reordered.
    Lossy { lasts: u64 },
    /// fsync does not come back.
    StallDisk { member: usize, lasts: u64 },
    /// fsync takes long.
    SlowDisk { member: usize, lasts: u64 },
    /// Nothing more can be written beside the data.
    FullDisk { member: usize, lasts: u64 },
    /// Walsenders take a reload up late.
    SlowReload { lasts: u64 },
    /// A person asks for a switchover.
    Switchover { to: Option<usize> },
    /// A person asks for a restart.
    Restart { member: usize },
    /// The Pod is deleted: SIGTERM, then a new one.
    DeletePod { member: usize },
    /// The number of copies changes.
    Copies { copies: u16 },
    /// The durability changes.
    Durability { durability: Durability },
    /// A member is on its way out, and comes back.
    Leaving { member: usize, lasts: u64 },
    /// A person fences a member, and lets it go again.
    FenceByHand { member: usize, lasts: u64 },
    /// The operator tells an old wish again.
    OldWish,
    /// The set is to have so many members.
    Scale { members: usize },
    /// A parameter changes: the operator restarts the members one by one.
    Parameter,
    /// A member's clock leaps ahead.
    ClockJump { member: usize, by: u64 },
    /// No operator is there.
    OperatorAway { lasts: u64 },
    /// Two operators are at work, one of which knows what was true before.
    Operators { lasts: u64 },
    /// Strikes so long after the next write that changes the rule has been asked for, and that write takes so much longer;
    /// if it does, its answer is lost. Members count from the leader.
    RuleTrap { after: u64, limbo: u64, fault: Box<Fault> },
    /// From then on a person looks now and then. When members have said for so long that an election cannot be proved, and
    /// whoever has the missing directories is off, the person accepts that what only these hold is lost.
    AcceptLoss { patience: u64 },
    /// Strikes so long after the record's next such phase; members count from its leader.
    Ambush {
        phase: Phase,
        after: u64,
        fault: Box<Fault>,
    },
}

impl Fault {
    /// How long it lasts, in milliseconds, as far as it has an end of its own.
    pub fn lasts(&self) -> u64 {
        match self {
            Fault::KillAgent { down, .. } | Fault::PowerCut { down, .. } | Fault::LoseVolume { down, .. } => *down,
            Fault::Freeze { lasts, .. }
            | Fault::CutOneWay { lasts, .. }
            | Fault::Cut { lasts, .. }
            | Fault::Reject { lasts, .. }
            | Fault::Isolate { lasts, .. }
            | Fault::CutApi { lasts, .. }
            | Fault::Split { lasts, .. }
            | Fault::ApiDown { lasts }
            | Fault::ApiFlaky { lasts }
            | Fault::WatchLag { lasts }
            | Fault::Lossy { lasts }
            | Fault::StallDisk { lasts, .. }
            | Fault::SlowDisk { lasts, .. }
            | Fault::FullDisk { lasts, .. }
            | Fault::SlowReload { lasts }
            | Fault::Leaving { lasts, .. }
            | Fault::OperatorAway { lasts }
            | Fault::Operators { lasts }
            | Fault::FenceByHand { lasts, .. } => *lasts,
            Fault::Ambush { after, fault, .. } | Fault::RuleTrap { after, fault, .. } => after + fault.lasts(),
            _ => 500,
        }
    }

    /// Each length of time in it, in milliseconds; of one that lies in wait those of what it does, too.
    pub fn lengths(&mut self) -> Vec<&mut u64> {
        match self {
            Fault::KillAgent { down, .. } | Fault::PowerCut { down, .. } | Fault::LoseVolume { down, .. } => vec![down],
            Fault::Freeze { lasts, .. }
            | Fault::CutOneWay { lasts, .. }
            | Fault::Cut { lasts, .. }
            | Fault::Reject { lasts, .. }
            | Fault::Isolate { lasts, .. }
            | Fault::CutApi { lasts, .. }
            | Fault::Split { lasts, .. }
            | Fault::ApiDown { lasts }
            | Fault::ApiFlaky { lasts }
            | Fault::WatchLag { lasts }
            | Fault::Lossy { lasts }
            | Fault::StallDisk { lasts, .. }
            | Fault::SlowDisk { lasts, .. }
            | Fault::FullDisk { lasts, .. }
            | Fault::SlowReload { lasts }
            | Fault::Leaving { lasts, .. }
            | Fault::OperatorAway { lasts }
            | Fault::Operators { lasts }
            | Fault::FenceByHand { lasts, .. } => vec![lasts],
            Fault::AcceptLoss { patience } => vec![patience],
            Fault::RuleTrap { after, limbo, fault } => [after, limbo].into_iter().chain(fault.lengths()).collect(),
            Fault::Ambush { after, fault, .. } => std::iter::once(after).chain(fault.lengths()).collect(),
            _ => Vec::new(),
        }
    }

    /// How many members there must be for it.
    pub fn grows(&self) -> usize {
        match self {
            Fault::Scale { members } => *members,
            _ => 0,
        }
    }

    /// The members that it strikes.
    pub fn members(&self) -> Vec<usize> {
        let mut all = Vec::new();
        let _ = self.clone().aimed(|m| {
            all.push(m);
            m
        });
        all
    }

    /// The same, with its members renamed. An ambush is not: it aims when it is sprung.
    pub fn aimed(mut self, mut at: impl FnMut(usize) -> usize) -> Fault {
        match &mut self {
            Fault::KillEngine { member }
            | Fault::KillAgent { member, .. }
            | Fault::PowerCut { member, .. }
            | Fault::LoseVolume { member, .. }
            | Fault::Freeze { member, .. }
            | Fault::Isolate { member, .. }
            | Fault::CutApi { member, .. }
            | Fault::StallDisk { member, .. }
            | Fault::SlowDisk { member, .. }
            | Fault::FullDisk { member, .. }
            | Fault::Restart { member }
            | Fault::DeletePod { member }
            | Fault::Leaving { member, .. }
            | Fault::FenceByHand { member, .. }
            | Fault::ClockJump { member, .. }
            | Fault::Switchover { to: Some(member) } => *member = at(*member),
            Fault::CutOneWay {
                from: one, to: other, ..
            }
            | Fault::Reject {
                from: one, to: other, ..
            }
            | Fault::Cut { one, other, .. } => {
                *one = at(*one);
                *other = at(*other);
            }
            Fault::Split { away, .. } => away.iter_mut().for_each(|member| *member = at(*member)),
            _ => {}
        }
        self
    }
}
