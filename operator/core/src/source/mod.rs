//! What a `GitSource` decides: when to ask, whether a revision may be followed, what a commit means for the cluster, what
//! may be deleted, who owns a field.
//!
//! Everything here is a function of bytes and objects in hand. Reading Git and talking to the API server are the
//! adapters' work; the order of it all is the controller's.

pub mod check;
pub mod conflict;
pub mod diff;
pub mod drift;
pub mod health;
pub mod inventory;
pub mod kinds;
pub mod locate;
pub mod object;
pub mod order;
pub mod owned;
pub mod plan;
pub mod poll;
pub mod prune;
pub mod redact;
pub mod report;
pub mod revision;
#[cfg(test)]
mod tests;
pub mod url;
pub mod why;
pub mod yaml;

pub use holdfast_api::git_source::Problem;
pub use object::{Digest, Manifest, ObjectKey, Origin};
pub use why::Why;

/// How many problems status shows; the rest is counted. 20 problems of 1 KiB keep a status far below etcd's limit.
pub const MAX_PROBLEMS: usize = 20;
/// How many applied revisions status remembers.
pub const MAX_HISTORY: usize = 10;
