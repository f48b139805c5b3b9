//! The bed: a real multi-node Kubernetes on one Linux machine, made of namespaces, control groups and loop devices,
//! so that the faults it offers are not simulated. A node is a network, mount, pid, uts and ipc namespace of its own:
//! killing its first process is a power cut, dropping packets in its network namespace is a partition, and shutting
//! down its file systems without a log flush loses exactly what was never fsynced.
//!
//! Start with [`Bed::up`] or [`Bed::attach`]. Everything a bed makes outlives the process that made it, and carries the
//! bed's id in its name, so that [`Bed::down`] can remove it whatever state it is in.
//!
//! The library is synchronous on purpose: each call is a few system calls or short programs, and tests call it from
//! threads and from async code alike.

pub mod access;
pub mod bed;
pub mod binaries;
pub mod cgroup;
pub mod client;
pub mod cluster;
pub mod control;
pub mod download;
pub mod engine;
pub mod faults;
pub mod flux;
pub mod git;
pub mod image;
pub mod init;
pub mod links;
pub mod modules;
pub mod net;
pub mod node;
pub mod packages;
pub mod paths;
pub mod pki;
pub mod provision;
pub mod registry;
pub mod remove;
pub mod run;
pub mod state;
pub mod status;
pub mod volume;

pub use bed::{Bed, Options, Owner};
pub use git::GitServers;
pub use image::{ImageRef, ImageSpec};
pub use net::{Host, Net};
pub use nix::sys::signal::Signal;
pub use state::Lock;
pub use volume::Volume;
