//! The ledger: clients write numbered rows and remember exactly what was acknowledged, refused or left unknown; afterwards
//! the rows are read back from whoever leads, and a judge compares.
//!
//! Times are microseconds on one clock, the observer's: real histories are taken by one process, simulated ones have
//! virtual time. The judge is the same for both.

mod judge;
mod outage;

pub use judge::{Violation, judge};
pub use outage::{Outage, outages};

use serde::{Deserialize, Serialize};

/// One attempt to write one row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Who wrote.
    pub client: u32,
    /// The client's own number of the row: 1, 2, 3 …
    pub number: u64,
    /// When it was sent (µs).
    pub sent: u64,
    /// When the answer came, or the client gave up (µs).
    pub ended: u64,
    /// What the client was told.
    pub outcome: Outcome,
}

/// What a client was told of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Committed and acknowledged by this member in this term.
    Acknowledged { member: String, term: u32 },
    /// Refused before anything was written: it must never be there.
    Refused,
    /// No answer, an answer lost on the way, or a commit whose wait was cancelled: it may be there or not.
    Unknown,
}

/// One row as read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Row {
    /// Who wrote it.
    pub client: u32,
    /// The client's number.
    pub number: u64,
}
