//! What an agent does. Each effect is idempotent; the shell performs them in order and reports completions as events.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::failover::{DirId, MemberName, Record, Term};

use super::event::DiskState;
use super::message::Message;

/// The resourceVersion of a record: a conditional write names the one it was decided on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub String);

/// What `synchronous_standby_names` is to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncNames {
    /// Empty: a commit is acknowledged by the leader alone.
    #[default]
    Alone,
    /// `ANY 1 (holdfast_nobody)`: nobody who exists, so nothing can be acknowledged.
    Nobody,
    /// `ANY quorum (standbys…)`.
    Any { quorum: u16, standbys: BTreeSet<DirId> },
}

/// Whose log to take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// The leader.
    pub member: MemberName,
    /// Its term.
    pub term: Term,
    /// Its address.
    pub address: String,
}

/// How the engine is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartAs {
    /// As the leader, its gate closed (no client but the agent and replication), with these synchronous standbys.
    Primary { sync: SyncNames },
    /// As a standby that takes log from `upstream`, or from nobody when sealed.
    Standby { upstream: Option<Upstream> },
}

/// How the engine is to be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HowToStop {
    /// Fast shutdown (sessions ended, shutdown checkpoint, standbys receive all of the log): for switchover and restart.
    Clean,
    /// Immediate shutdown, then SIGKILL after `kill_after_ms`: the fence.
    Fence { kill_after_ms: u64 },
}

/// Who is fit for each Service. The leader writes the EndpointSlices; no operator is in the path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// `-rw`: the leader, or nobody.
    pub rw: Option<MemberName>,
    /// `-ro`: replicas within the lag bound.
    pub ro: BTreeSet<MemberName>,
    /// `-r`: everyone who may be read from.
    pub r: BTreeSet<MemberName>,
}

/// Something for the shell to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Read the record afresh (not from a cache) with a deadline.
    ReadRecord,
    /// Replace the record if it is still at `expect`.
    WriteRecord { expect: Version, record: Record },
    /// Renew the Lease's time stamp for people and tools; durability does not rest on it.
    RenewLease,
    /// Send to a peer; may be lost.
    Send { to: MemberName, message: Message },
    /// Write the state beside the data and fsync it. Ends with `Done(Persist)`. Answers that depend on it wait for that.
    Persist(DiskState),
    /// Make the first data directory, with a new identity. Ends with `Done(Initdb)`.
    Initdb,
    /// Copy from a member, with a new identity; what is there is set aside or, when `half`, removed first.
    Clone { from: Upstream },
    /// Rewind a stopped directory to the leader's log.
    Rewind { to: Upstream },
    /// Keep the directory for a person, under another name: it might hold the only copy of something.
    SetAside { why: String },
    /// Start the engine.
    Start(StartAs),
    /// Stop the engine.
    Stop(HowToStop),
    /// Running standby: take log from `Some`, or stop the WAL receiver and take from nobody.
    Follow(Option<Upstream>),
    /// Running standby: occupy timelines up to `term - 1`, set nobody as synchronous, promote. Ends with `Done(Promote)`.
    Promote { term: Term },
    /// Running primary: change the synchronous standbys (reload).
    SetSync(SyncNames),
    /// Running primary: end these standbys' walsenders (they leave S before having taken a rule change up).
    EndWalsenders(BTreeSet<DirId>),
    /// Running primary: let clients in, or keep them out and end their sessions.
    Gate { open: bool },
    /// Running primary: exactly these physical slots exist (made for, and named after, members).
    Slots(BTreeSet<MemberName>),
    /// Move the traffic.
    Publish(Endpoints),
    /// Tell people: one Event, log line and metric, in the vocabulary of [`super::Why`].
    Say(super::Why),
    /// End the process (after a clean stop at Shutdown).
    Exit,
}
