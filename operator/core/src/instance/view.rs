//! What a member's status shows of the machine.

use serde::{Deserialize, Serialize};

use crate::failover::{DirId, Lsn, MemberName, Phase, Position, Term};

use super::message::Role;
use super::why::Why;

/// What the engine of a member is doing, in words that status shows (`wire::MemberState` has the same names).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// initdb runs.
    Initializing,
    /// Copying from another member.
    Cloning,
    /// Rewinding to the leader's log.
    Rewinding,
    /// The engine starts or recovers.
    Starting,
    /// Serves as the primary.
    Serving,
    /// A primary whose commits wait for standbys, or whose gate is not open yet.
    Waiting,
    /// Streaming and caught up.
    Streaming,
    /// Streaming, not caught up.
    CatchingUp,
    /// A standby without an upstream, sealed for an election.
    Sealed,
    /// The engine is down.
    Stopped,
    /// Cannot go on without a person; `why` says more.
    Failed,
}

/// The machine as status shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// What it does.
    pub role: Role,
    /// What its engine is doing.
    pub state: State,
    /// The highest term it knows.
    pub term: Term,
    /// The phase of the record as last seen.
    pub phase: Option<Phase>,
    /// The leader that it knows, in `Promoting` or `Leading`.
    pub leader: Option<MemberName>,
    /// Its data directory.
    pub dir: Option<DirId>,
    /// PostgreSQL's system identifier, from the record.
    pub system_identifier: Option<u64>,
    /// The end of its log.
    pub position: Position,
    /// Replayed up to.
    pub replayed: Lsn,
    /// Bytes of log not replayed, if it has heard how far the leader is.
    pub lag_bytes: Option<u64>,
    /// The reason for what it does or waits for.
    pub why: Option<Why>,
    /// The generation of the wish that it acts on; 0 before the first.
    pub spec_generation: i64,
    /// Whether clients are let in.
    pub gate_open: bool,
    /// The id of the last finished command, by the record or by this volume.
    pub last_command: Option<String>,
}
