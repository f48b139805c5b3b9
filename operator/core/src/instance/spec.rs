//! What the operator asks of a replica set's agents. Travels as JSON in the set's `ConfigMap`; an agent keeps the last one
//! on its volume, so that a rebooted node needs no operator.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::failover::{DirId, MemberName};

use super::effect::Version;

/// When a commit is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// `copies` members hold a commit before it is acknowledged; without them, commits wait.
    Quorum,
    /// As `Quorum` while enough standbys are there; with fewer the set of required standbys shrinks, first in the record,
    /// so that a stale standby can never be elected over commits it lacks.
    Preferred,
    /// Acknowledged by the leader alone. Failover may lose up to `maximum_lag_bytes`.
    Async,
}

/// The desired replica set as agents need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetSpec {
    /// `metadata.generation` of the HAReplicaSet this was made from; an agent ignores an older one.
    pub generation: i64,
    /// Every member that should exist, in order of their number.
    pub members: Vec<MemberSpec>,
    /// When a commit is acknowledged.
    pub durability: Durability,
    /// How many members, the leader included, hold a commit before it is acknowledged (1..=members).
    pub copies: u16,
    /// `Async` only: how far behind, in bytes, a standby may be and still be elected.
    pub maximum_lag_bytes: u64,
    /// Members further behind than this, in bytes of replay, leave the read-only Service.
    pub read_lag_bytes: u64,
    /// Engine parameters as the user wrote them, already checked for names that Holdfast manages.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// A request by a person, carried out once: agents remember the last id that they finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
}

/// One member that should exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberSpec {
    /// Its Pod's name.
    pub name: MemberName,
    /// The Pod's address as last seen by the operator; peers tell each other newer ones in heartbeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Being removed by a scale-down: leave the sync set first, then the slot is dropped.
    #[serde(default)]
    pub leaving: bool,
    /// Fenced by a person: the engine is stopped and stays so until unfenced.
    #[serde(default)]
    pub fenced: bool,
}

/// A one-time request. `id` makes it idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Command {
    /// Move leadership to `to`, or to the best standby.
    Switchover { id: String, to: Option<MemberName> },
    /// Elect although proof is impossible; commits that only `without` hold may be lost. Meant for the record as it was `seen`,
    /// at that version: if anybody has led or opened an election since, the request is void.
    FailoverAcceptingLoss {
        id: String,
        #[serde(default)]
        seen: Version,
        without: Vec<DirId>,
    },
    /// Restart the engine of one member (parameters that need it), the leader by switchover or in place.
    Restart { id: String, member: MemberName },
}
