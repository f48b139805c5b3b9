//! Physical faults, with the ledger running: nothing acknowledged is lost, and nobody acknowledges beside the leader.
//!
//! One at a time, because a fault of the bed is everybody's. `cargo test -p holdfast-e2e --test faults -- --ignored
//! --test-threads=1 --nocapture` prints rows and outages.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is the assertion")]

mod archive;
mod bulk;
mod drain;
mod modes;
#[path = "../promises/one_house.rs"]
mod one_house;
mod placement;
mod rotation;
mod single;
mod subscription;
mod upgrade;
