//! A deterministic world around `core::instance`: members × faults × virtual time, with invariants after every event.
//!
//! A seed is a history. The agent and this simulator run the very same machine; everything around it (engines, disks,
//! network, API server, people) is modelled here, and misbehaves.
#![expect(
    clippy::indexing_slicing,
    reason = "members are numbered by the world itself; a slip should fail loudly here"
)]

mod agents;
mod api;
mod commit;
mod engine;
mod faults;
mod operator;
mod person;
mod replication;
mod shell;
mod work;

pub mod event;
pub mod fault;
pub mod fuzz;
pub mod history;
pub mod ledger;
pub mod model;
pub mod plan;
pub mod rng;
pub mod shrink;
pub mod store;
pub mod world;

pub use history::{Outcome, Runner};
pub use ledger::Violation;
pub use plan::{Fault, Kept, Plan};
