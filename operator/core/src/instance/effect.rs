//! What an agent does. Each effect is idempotent; the shell performs them in order and reports completions as events.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::failover::{DirId, MemberName, Record, Term};

use super::event::{Aside, DiskState};
use super::message::Message;

/// The resourceVersion of a record: a conditional write names the one it was decided on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
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
    /// The term of the leader that writes them: kept in an annotation of each slice, and a slice of a later term is left
    /// alone. The shell tries again until written, superseded by a later `Publish`, or no longer this term's leader.
    pub term: Term,
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
    /// Replace the record if it is still at `expect`. The shell also sets the Lease's `holderIdentity` and `renewTime`,
    /// for people and tools: a leader renews by writing the record it already has. At most one read or write is under
    /// way at a time; each ends with exactly one `Record` or `Cas` event, by the shell's own deadline if nothing comes.
    WriteRecord { expect: Version, record: Record },
    /// Send to a peer; may be lost.
    Send { to: MemberName, message: Message },
    /// Write the state beside the data and fsync it. Ends with `Done(Persist)`. Answers that depend on it wait for that.
    Persist(DiskState),
    /// Make the first data directory. Ends with `Done(Initdb)`, whose volume has a new identity in `disk.dir`; the shell
    /// has persisted that identity as `disk { dir, ..default }`. What a former attempt left half-made is removed first.
    Initdb,
    /// Copy from a member. What is there is removed first (the machine asks for `SetAside` before, where it matters).
    /// Ends with `Done(Clone)`, whose volume has a new identity in `disk.dir` and is otherwise as last persisted.
    Clone { from: Upstream },
    /// Rewind a stopped directory to the leader's log. Ends with `Done(Rewind)`.
    Rewind { to: Upstream },
    /// Keep the directory under another name: it might hold the only copy of something. With `aside` it may have to come back;
    /// without, it is for a person. Ends with `Done(SetAside)`, whose volume has [`DiskState::set_aside`].
    SetAside { why: String, aside: Option<Aside> },
    /// Put a directory back that was set aside; what is in its place, and not whole, is removed. Ends with `Done(PutBack)`, whose
    /// volume has [`DiskState::put_back`].
    PutBack { dir: DirId },
    /// A directory that was set aside has to come back no more: it is removed, or with `keep` left for a person. Ends with
    /// `Done(DropAside)`, whose volume has [`DiskState::drop_aside`]; whatever else goes on meanwhile.
    DropAside { dir: DirId, keep: bool },
    /// Start the engine. Ends with `Done(Start)` once the process exists (not: answers). A primary starts with its gate
    /// closed. A standby without upstream replays its own log to the end and waits there.
    Start(StartAs),
    /// Stop the engine. Ends with `Done(Stop)`, whose volume holds the control file's end of log after a clean stop.
    Stop(HowToStop),
    /// Running standby: take log from `Some`, or stop the WAL receiver and take from nobody. Ends with `Done(Follow)`.
    Follow(Option<Upstream>),
    /// Running standby: occupy timelines up to `term - 1`, set who is to acknowledge commits, promote. Ends with
    /// `Done(Promote)`. Whether the setting is in force by then, the next look tells.
    Promote { term: Term, sync: SyncNames },
    /// Running primary: change the synchronous standbys (reload). Ends with `Done(SetSync)`.
    SetSync(SyncNames),
    /// Running primary: end these standbys' walsenders and wait until the processes are gone (they might still count by
    /// a setting of before). Ends with `Done(EndWalsenders)`; [`super::PrimarySeen`]s before it in the queue are older.
    EndWalsenders(BTreeSet<DirId>),
    /// Running primary: let clients in, or keep them out and end their sessions. Ends with `Done(Gate)`; when it closes,
    /// no session of a client is left then.
    Gate { open: bool },
    /// Running primary: exactly these physical slots exist (made for, and named after, members). A standby must stream by
    /// its slot and by nothing else: that the slot admits one walsender keeps one standby from being counted twice while
    /// the walsender of its former connection is not gone yet. Ends with `Done(Slots)`.
    Slots(BTreeSet<MemberName>),
    /// Running primary: a logical subscriber whose slot is made for failover gets a change once these members have flushed
    /// it. In force before whatever is asked for after it. Its end is not reported: the wish stands, and each later write of
    /// the engine's settings carries it.
    HoldSubscribers(BTreeSet<MemberName>),
    /// Look at the engine this often from now on, and once at once (unhurried: 500 ms; in a transition: 20 ms).
    Look { every_ms: u64 },
    /// Move the traffic.
    Publish(Endpoints),
    /// Tell people: one Event, log line and metric, in the vocabulary of [`super::Why`].
    Say(super::Why),
    /// End the process (after a clean stop at Shutdown).
    Exit,
}
