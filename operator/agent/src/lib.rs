//! The instance manager: first process of a member's Pod, the shell around `holdfast_core::instance`.
//!
//! [`run`] turns what happens (time, engine, record, peers, signals) into events, lets the machine decide, and performs its
//! effects. Nothing is decided here.

pub mod cluster;
pub mod health;
pub mod looking;
pub mod metrics;
pub mod options;
pub mod peers;
pub mod setup;
pub mod shell;
pub mod status;
pub mod work;

pub use options::Options;
pub use setup::setup;
pub use shell::run;

/// The agent's version, as the operator compares it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
