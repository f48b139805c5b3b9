//! What agents of one replica set say to each other over mTLS.

use serde::{Deserialize, Serialize};

use crate::failover::{DirId, Lsn, Position, Record, Term};

use super::effect::Version;
use super::event::Testimony;

/// What a member does at present, as it says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Serves as the leader of its term.
    Leader,
    /// Elected, promoting; acknowledges nothing.
    Candidate,
    /// Follows the leader.
    Replica,
    /// Sealed for a term: takes no log until it knows whom to follow.
    Sealed,
    /// Initialising, cloning, rewinding or starting.
    Preparing,
    /// The engine is down and kept down.
    Stopped,
}

/// Sent to every peer about once a second, and at once when anything in it but the LSN changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// The highest term that the sender knows.
    pub term: Term,
    /// What it does.
    pub role: Role,
    /// Its data directory, if it has a whole one.
    pub dir: Option<DirId>,
    /// The directory that it has given up and can still testify for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<DirId>,
    /// The directories that it has set aside and can still answer for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<DirId>,
    /// The term whose leader's log it takes, written down before it takes any. A standby's flush means nothing to a leader whose
    /// term this is not: its engine may have come over by itself, and its member would not claim what it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub following: Option<Term>,
    /// Where its log ends, as far as it knows.
    pub position: Position,
    /// How far it has replayed (equal to `position.lsn` on a leader).
    pub replayed: Lsn,
    /// Leader: a small committed write succeeded within its deadline. Standby: engine answers. False also when the engine
    /// has died: said at once, so that nobody waits for a time-out.
    pub healthy: bool,
    /// The sender has itself heard a healthy leader of `term` within the detection time. A member that hears the leader
    /// says so: one cut link starts no election.
    pub hears_leader: bool,
    /// Leader: the history of its timeline, so that a member that comes back knows whether it must rewind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<(Term, Lsn)>,
    /// Candidate: it has slots for those whom the old rule names, and all of its log is replayed, so that they may come while its engine
    /// is still being promoted.
    #[serde(default)]
    pub ready: bool,
    /// The sender leads by a record that hands leadership over only if its log ends where that says. (Members of before did not look.)
    #[serde(default)]
    pub takes_over: bool,
    /// The sender's own address (its shell fills it in), so that peers find it after a reboot without the API server.
    pub address: Option<String>,
}

/// A standby's answer to an opened election, given only after the seal is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SealAnswer {
    /// The term that it is sealed for.
    pub term: Term,
    /// Its directory.
    pub dir: DirId,
    /// Where its log ends.
    pub position: Position,
    /// The directory is no more: its member testifies for it, and cannot be elected.
    #[serde(default)]
    pub gone: bool,
    /// The term that this directory led, if it is the directory of a leader, stopped, and was never rewound since.
    pub led: Option<Term>,
    /// What its member testifies for beside it: directories that it has set aside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<Testimony>,
}

/// Everything agents send each other. Each carries a term; a receiver ignores what is older than what it knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Message {
    /// I am here.
    Heartbeat(Heartbeat),
    /// The record as the sender has just written it, so that peers need not wait for their watch. As good as a hint: a
    /// higher term in it is believed (its sender is authenticated), any write based on it is conditional on `version`.
    Record { record: Record, version: Version },
    /// The seal.
    Sealed(SealAnswer),
}
