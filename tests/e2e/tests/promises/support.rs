//! One house for all tests of a run.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
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

/// Runs a test in an empty namespace; shows what is in it when the test fails, and removes it when it does not.
pub fn in_namespace(name: &str, test: impl FnOnce(&'static House, &str)) {
    let house = house();
    house.namespace(name).unwrap();
    match catch_unwind(AssertUnwindSafe(|| test(house, name))) {
        Ok(()) => {
            house.kubectl(&["delete", "namespace", name, "--wait=false"]).unwrap();
        }
        Err(panic) => {
            house.dump(name);
            resume_unwind(panic)
        }
    }
}
