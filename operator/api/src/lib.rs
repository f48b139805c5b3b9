//! The kinds that users read and write, group `holdfast.dev`. Types only: no client, no decisions.

pub mod git_source;
pub mod replica_set;

pub use git_source::{GitSource, GitSourceSpec, GitSourceStatus};
pub use replica_set::{HAReplicaSet, HAReplicaSetSpec, HAReplicaSetStatus};

/// The API group of every kind.
pub const GROUP: &str = "holdfast.dev";
