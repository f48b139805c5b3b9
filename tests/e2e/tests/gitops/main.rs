//! GitSource on a real Kubernetes with real Git servers: what a commit does, what it may not do, and how people are told.
//!
//! Needs root; run by `make test` (`cargo test -p holdfast-e2e --test gitops -- --ignored --test-threads=3`). The objects are
//! cheap: ConfigMaps, and HAReplicaSets in namespaces where no Pod may start.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is the assertion")]

mod bad_inputs;
mod commits;
mod diff;
mod drift;
mod guards;
#[path = "../promises/one_house.rs"]
mod one_house;
mod order;
#[path = "../promises/support.rs"]
mod support;
mod trust;
mod ways_in;
