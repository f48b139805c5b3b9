//! The record store: one record, conditional writes, every version remembered.

use holdfast_core::failover::Record;
use holdfast_core::instance::Version;

/// The store.
#[derive(Clone, Debug, Default)]
pub struct Store {
    /// Every version; the last is in force.
    pub versions: Vec<Record>,
}

impl Store {
    /// The record in force.
    pub fn record(&self) -> Option<&Record> {
        self.versions.last()
    }

    /// The name of the n-th version.
    pub fn version(n: usize) -> Version {
        Version(n.to_string())
    }

    /// Writes if `expect` is in force.
    pub fn replace(&mut self, expect: &Version, record: Record) -> bool {
        let matches = *expect == Store::version(self.versions.len());
        if matches {
            self.versions.push(record);
        }
        matches
    }
}
