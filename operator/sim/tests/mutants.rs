//! The mutation check: the simulator finds every deliberate protocol bug. `cargo test -p holdfast-sim --features mutants`.
#![cfg(feature = "mutants")]

use holdfast_core::instance::Mutant;
use holdfast_sim::{Plan, Runner};

/// A seed that shows each bug, found by `holdfast-sim mutants`; one a line: name, seed.
fn shown() -> Vec<(String, u64)> {
    include_str!("../seeds/mutants.txt")
        .lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        })
        .collect()
}

#[test]
fn every_deliberate_bug_is_found() {
    let shown = shown();
    let mut missed = Vec::new();
    for mutant in Mutant::ALL {
        let seed = shown
            .iter()
            .find(|(name, _)| *name == format!("{mutant:?}"))
            .map(|(_, seed)| *seed);
        // where the kept seed no longer shows it, because the world has changed, it is looked for anew
        let found = seed.into_iter().chain(1..3_000).find(|seed| {
            let (plan, mut runner) = (Plan::new(*seed), Runner::default());
            runner.run(&plan, Some(mutant), false).violation.is_some()
        });
        match found {
            Some(seed) => println!("{mutant:?} {seed}"),
            None => missed.push(mutant),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
