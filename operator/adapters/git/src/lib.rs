//! The only code that speaks to Git servers: where a ref stands, fetching it, who signed it, what files it has.
//!
//! The server is treated as hostile: every exchange has a deadline and a bound in bytes, the server's identity is checked
//! against what the source's Secret vouches for, redirects are off, and no work tree is ever checked out: files are read
//! from the object database, so links, hooks, filters and submodules have nothing to act on.
//!
//! Calls block. Run them where blocking is allowed, and set the [`Cancel`] when nobody waits for the answer any more.

mod access;
mod cancel;
mod error;
mod hostkey;
mod https;
mod process;
mod remote;
mod store;
mod tree;
mod verify;

pub use access::{Access, Credentials};
pub use cancel::Cancel;
pub use error::GitError;
pub use process::prepare_process;
pub use remote::tip;
pub use store::{CommitFacts, Store};
pub use tree::{File, Tree};

/// What one exchange, and one tree, may cost.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Bytes that one fetch may receive.
    pub fetch_bytes: usize,
    /// Size of one file in bytes.
    pub file_bytes: usize,
    /// Files under the path.
    pub files: usize,
    /// Commits that are verified at once.
    pub commits: usize,
    /// Time for one exchange with the server.
    pub timeout: std::time::Duration,
}
