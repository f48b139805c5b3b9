//! What the adapter promises, against real servers: OpenSSH's sshd, and git's own http-backend behind TLS.
//!
//! Needs the Debian packages git and openssh-server; the servers run on free ports of this machine and end with the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod https;
mod revisions;
mod signatures;
mod ssh;
mod support;
mod trees;
