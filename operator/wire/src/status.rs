//! What an agent reports of itself.

use std::time::Duration;

use holdfast_core::archive::Archiving;
use holdfast_core::failover::{DirId, Lsn, MemberName, Position, Term};
use holdfast_core::instance::Role;
use serde::{Deserialize, Serialize};

/// What the engine of a member is doing, in words that status shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberState {
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
    /// Cannot go on without a person; the message says why.
    Failed,
}

/// An agent writes its status at least this often. Positions alone are no news: the operator tells them once a minute. Of a
/// thousand quiet sets of three, 100 writes a second.
pub const STATUS_EVERY: Duration = Duration::from_secs(30);

/// The agent's own view, written to its Pod's annotation when anything but positions changes, and every [`STATUS_EVERY`]
/// otherwise. Observed, never assumed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// [`crate::WIRE_VERSION`] of the writer.
    pub wire: u32,
    /// The agent's version.
    pub agent: String,
    /// The Pod's UID: a status of a former Pod by the same name is nobody's.
    pub pod_uid: String,
    /// RFC 3339 time of writing.
    pub at: String,
    /// The `generation` of the wish that this agent has taken up.
    pub spec_generation: i64,
    /// Its role.
    pub role: Role,
    /// What its engine is doing.
    pub state: MemberState,
    /// Reason (closed set) and message from `core::instance::Why`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The term it knows.
    pub term: Term,
    /// Its data directory.
    pub dir: Option<DirId>,
    /// End of its log.
    pub position: Position,
    /// Replayed up to.
    pub replayed: Lsn,
    /// Bytes of log that it has not replayed yet, if it has heard how far the leader is.
    pub lag_bytes: Option<u64>,
    /// The leader that it knows.
    pub leader: Option<MemberName>,
    /// `server_version` of the running engine.
    pub engine_version: Option<String>,
    /// PostgreSQL's system identifier.
    pub system_identifier: Option<u64>,
    /// Parameters that only take effect at a restart of this member.
    #[serde(default)]
    pub pending_restart: Vec<String>,
    /// Parameters that the engine refuses; the last good values stay in force.
    #[serde(default)]
    pub rejected: Vec<RejectedParameter>,
    /// How its archiving goes; none where nothing is archived, or nothing is known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archiving: Option<Archiving>,
    /// Expiry (RFC 3339) of the certificate in use.
    pub certificate_expires: Option<String>,
    /// Bytes free and total on the volume.
    pub volume_free_bytes: Option<u64>,
    /// Size of the volume.
    pub volume_bytes: Option<u64>,
}

/// A parameter that cannot be what the user wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RejectedParameter {
    /// Its name.
    pub name: String,
    /// What was written.
    pub value: String,
    /// What would be right.
    pub why: String,
}
