//! A namespace for each test.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use holdfast_e2e::House;

pub use crate::one_house::house;

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
