//! What the user wants, checked once at the edge: after this, nothing is parsed again.

use std::collections::BTreeMap;

use holdfast_api::replica_set::{DeletionPolicy, DurabilityMode, HAReplicaSetSpec, Initdb};
use kube_quantity::ParsedQuantity;

use crate::failover::MemberName;
use crate::instance::Durability;

/// A field that cannot be what it is, with what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, for example `spec.storage.size`.
    pub field: String,
    /// What was written.
    pub value: String,
    /// What would be right.
    pub right: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is {:?}: {}", self.field, self.value, self.right)
    }
}

/// A checked `HAReplicaSetSpec`.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// How many members, 1..=7.
    pub members: u16,
    /// The engine's image as written.
    pub image: String,
    /// The engine's user ID.
    pub run_as_user: i64,
    /// Engine parameters as written.
    pub parameters: BTreeMap<String, String>,
    /// When a commit is acknowledged.
    pub durability: Durability,
    /// Members that hold a commit before it is acknowledged, the leader included.
    pub copies: u16,
    /// `Async`: bytes.
    pub maximum_lag_bytes: u64,
    /// Bytes of replay lag at which a replica leaves `-ro`.
    pub read_lag_bytes: u64,
    /// Bytes of each volume.
    pub storage_bytes: u64,
    /// The claim that log is archived on, if it is.
    pub archive: Option<String>,
    /// How the first directory is made.
    pub initdb: Initdb,
    /// Take over volumes that are already there.
    pub adopt: bool,
    /// What happens to the data at deletion.
    pub deletion: DeletionPolicy,
    /// Members to keep stopped.
    pub fenced: Vec<MemberName>,
}

/// Default bound for `Async`: one WAL segment.
const DEFAULT_MAXIMUM_LAG: u64 = 16 << 20;
/// Default bound for reads: four WAL segments, a few seconds of a busy system.
const DEFAULT_READ_LAG: u64 = 64 << 20;

impl Plan {
    /// Checks a spec. The CRD's schema refuses most of this already; here is what it cannot say, and what an API server
    /// with an older CRD lets through.
    pub fn check(spec: &HAReplicaSetSpec) -> Result<Plan, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut refuse = |field: &str, value: String, right: &str| {
            problems.push(Problem {
                field: field.into(),
                value,
                right: right.into(),
            });
        };
        let Some(engine) = spec.engine.postgresql.as_ref() else {
            refuse(
                "spec.engine",
                String::new(),
                "name exactly one engine, for example postgresql: {image: postgres:17}",
            );
            return Err(problems);
        };
        if !(1..=7).contains(&spec.members) {
            refuse("spec.members", spec.members.to_string(), "a number from 1 to 7");
        }
        if engine.image.trim() != engine.image || engine.image.is_empty() || engine.image.contains(char::is_whitespace)
        {
            refuse(
                "spec.engine.postgresql.image",
                engine.image.clone(),
                "an image reference such as postgres:17.6",
            );
        }
        let durability = match spec.durability.mode {
            Some(DurabilityMode::Quorum) => Durability::Quorum,
            Some(DurabilityMode::Preferred) => Durability::Preferred,
            Some(DurabilityMode::Async) => Durability::Async,
            None if spec.members >= 3 => Durability::Quorum,
            None => Durability::Preferred,
        };
        let copies = match durability {
            Durability::Async => 1,
            _ => spec.durability.copies.unwrap_or_else(|| spec.members.min(2)),
        };
        if copies < 1 || copies > spec.members {
            refuse(
                "spec.durability.copies",
                copies.to_string(),
                "a number from 1 to spec.members",
            );
        }
        let mut bytes = |field: &str, text: Option<&str>, default: u64| match text {
            None => default,
            Some(text) => quantity_bytes(text).unwrap_or_else(|| {
                problems.push(Problem {
                    field: field.into(),
                    value: text.into(),
                    right: "a size such as 16Mi or 20Gi".into(),
                });
                default
            }),
        };
        let maximum_lag_bytes = bytes(
            "spec.durability.maximumLag",
            spec.durability.maximum_lag.as_deref(),
            DEFAULT_MAXIMUM_LAG,
        );
        let read_lag_bytes = bytes(
            "spec.reads.maximumLag",
            spec.reads.maximum_lag.as_deref(),
            DEFAULT_READ_LAG,
        );
        let storage_bytes = bytes("spec.storage.size", Some(&spec.storage.size), 0);
        for name in &spec.fenced {
            if name.is_empty() {
                problems.push(Problem {
                    field: "spec.fenced".into(),
                    value: name.clone(),
                    right: "names of members, as status.members lists them".into(),
                });
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Plan {
            members: spec.members,
            image: engine.image.clone(),
            run_as_user: engine.run_as_user,
            parameters: engine.parameters.clone(),
            durability,
            copies,
            maximum_lag_bytes,
            read_lag_bytes,
            storage_bytes,
            archive: spec.archive.as_ref().map(|a| a.volume_claim_name.clone()),
            initdb: spec.bootstrap.initdb.clone().unwrap_or_default(),
            adopt: spec.bootstrap.adopt,
            deletion: spec.deletion_policy,
            fenced: spec.fenced.iter().cloned().map(MemberName).collect(),
        })
    }
}

/// Bytes of a Kubernetes quantity; `None` when it is none, negative or not whole bytes.
pub fn quantity_bytes(text: &str) -> Option<u64> {
    ParsedQuantity::try_from(text).ok()?.to_bytes_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: serde_json::Value) -> HAReplicaSetSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn three_members_commit_by_quorum_of_two() {
        let plan = Plan::check(&spec(serde_json::json!({
            "engine": {"postgresql": {"image": "postgres:17"}}, "storage": {"size": "20Gi"}
        })))
        .unwrap();
        assert_eq!((plan.members, plan.durability, plan.copies), (3, Durability::Quorum, 2));
        assert_eq!(plan.storage_bytes, 20 << 30);
    }

    #[test]
    fn every_bad_field_is_named_at_once() {
        let problems = Plan::check(&spec(serde_json::json!({
            "engine": {"postgresql": {"image": "post gres"}}, "members": 9,
            "durability": {"copies": 10, "maximumLag": "lots"}, "storage": {"size": "big"}
        })))
        .unwrap_err();
        let fields: Vec<&str> = problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "spec.members",
                "spec.engine.postgresql.image",
                "spec.durability.copies",
                "spec.durability.maximumLag",
                "spec.storage.size"
            ]
        );
        assert!(problems[3].to_string().contains("lots") && problems[3].to_string().contains("16Mi"));
    }
}
