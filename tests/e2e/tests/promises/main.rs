//! The promises, each shown on a real Kubernetes with real PostgreSQL. One bed, one namespace per test.
//!
//! Needs root; run by `make test` (`cargo test -p holdfast-e2e -- --ignored --test-threads=3`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is the assertion")]

mod bootstrap;
mod day_two;
mod install;
mod lifecycle;
mod majors;
mod one_house;
mod person;
mod rights;
mod support;
mod walk;
