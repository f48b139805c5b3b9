//! One house for all tests of a run.

use std::sync::OnceLock;

use holdfast_bed::bed::Owner;
use holdfast_e2e::House;

/// The house, opened once. The bed is the one named `HOLDFAST_BED`, which then stays up; else one that goes with this run.
pub fn house() -> &'static House {
    static HOUSE: OnceLock<House> = OnceLock::new();
    HOUSE.get_or_init(|| {
        let (name, owner) = match std::env::var("HOLDFAST_BED") {
            Ok(name) => (name, Owner::Nobody),
            Err(_) => ("e2e".to_owned(), Owner::Parent),
        };
        House::open(&name, owner).unwrap_or_else(|error| panic!("the house does not open: {error:#}"))
    })
}
