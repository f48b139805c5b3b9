//! Every decision that Holdfast takes, as synchronous total functions over values.
//!
//! No async, no clock, no randomness, no Kubernetes client: what a function here needs comes in as an argument, and
//! what it wants done goes out as data. Adapters observe and act; this crate only chooses.

pub mod archive;
pub mod failover;
pub mod instance;
pub mod pki;
pub mod plan;
pub mod replica_set;
pub mod source;
pub mod status;
