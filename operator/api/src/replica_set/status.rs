//! What was observed. Written by the operator only; what was not seen is `Unknown`, never a default.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Observed state of a replica set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HAReplicaSetStatus {
    /// `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// In one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// What it waits for, or what happens, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The primary, as the authority record names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// Leadership term (= PostgreSQL timeline).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<i64>,
    /// Members fit for service of those wanted, for example 3/3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// The rule in force: how many standbys, of which, hold a commit before it is acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The engine's image as written, resolved to a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// PostgreSQL's system identifier: which database this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// Each member as observed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberView>,
    /// Parameters that were refused, with what would be right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected_parameters: Vec<String>,
    /// Expiry of the set's certificate authority, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_expires: Option<String>,
    /// Ready, Reconciling, Stalled, Serving, ParametersApplied, StorageAvailable; with spec.archive also Archiving.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// In one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Objects are being made; no primary yet.
    Creating,
    /// The primary serves, and every member is fit.
    Ready,
    /// The primary serves; fewer members are fit than wanted.
    Degraded,
    /// An election, promotion or restart of the primary is under way.
    Electing,
    /// A change is being carried out member by member.
    Updating,
    /// Nobody serves writes, and it does not heal without something from outside; the message says what.
    Unavailable,
    /// Being deleted.
    Deleting,
    /// There are members, and none of them is heard of.
    Unknown,
}

/// One member as observed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberView {
    /// Its name (Pod and volume).
    pub name: String,
    /// Primary, Replica, Candidate, Sealed, Preparing, Stopped or Unknown.
    pub role: String,
    /// What its engine does; Unknown where the member is not heard of.
    pub state: String,
    /// Why, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The node that it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// End of its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn: Option<String>,
    /// Bytes of log that it has not replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_bytes: Option<i64>,
    /// Digest of the image that its engine container runs, as the kubelet says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// `server_version` of the running engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Fit for its Service.
    pub ready: bool,
    /// Parameters that wait for a restart of this member.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending_restart: Vec<String>,
}
