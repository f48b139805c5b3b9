//! The mutation check: the simulator finds every deliberate protocol bug. `cargo test -p holdfast-sim --features mutants`.
#![cfg(feature = "mutants")]

use holdfast_core::instance::Mutant;
use holdfast_sim::{Kept, Plan, Runner};

/// A plan that showed a bug is tried with this many noises before the bug is looked for anew.
const NOISES: u64 = 100;
/// Fresh histories in which a bug must be found if its kept plan shows it no longer.
const FRESH: u64 = 3_000;

#[test]
fn every_deliberate_bug_is_found() {
    let kept: Vec<Kept> = serde_json::from_str(include_str!("../seeds/mutants.json")).unwrap();
    let mut missed = Vec::new();
    for mutant in Mutant::ALL {
        let known = kept.iter().filter(|kept| kept.why == format!("{mutant:?}"));
        let noisy = known.flat_map(|kept| {
            (0..NOISES).map(|noise| Plan {
                seed: kept.plan.seed + noise,
                ..kept.plan.clone()
            })
        });
        let mut runner = Runner::default();
        let found = noisy
            .chain((1..=FRESH).map(Plan::new))
            .find_map(|plan| Some((plan.seed, runner.run(&plan, Some(mutant), false).violation?)));
        match found {
            Some((seed, violation)) => println!("{mutant:?}: {} (seed {seed})", violation.invariant),
            None => missed.push(mutant),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// Without the bug the same plans are clean: it is the bug that was found, not the plan.
#[test]
fn the_same_plans_are_clean_without_the_bug() {
    let kept: Vec<Kept> = serde_json::from_str(include_str!("../seeds/mutants.json")).unwrap();
    let mut runner = Runner::default();
    for Kept { why, plan } in kept {
        assert_eq!(
            runner.run(&plan, None, false).violation,
            None,
            "the plan that shows {why}"
        );
    }
}
