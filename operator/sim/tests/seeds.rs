//! Every seed that ever failed, and some fresh ones.

use holdfast_sim::{Kept, Plan, Runner};

/// Each kept plan runs with its own noise and with as many others, since the world's noise shifts as the world grows.
const NOISES: u64 = 12;

#[test]
fn every_kept_plan_is_clean() {
    let kept: Vec<Kept> = serde_json::from_str(include_str!("../seeds/kept.json")).unwrap();
    assert!(!kept.is_empty());
    let mut runner = Runner::default();
    for Kept { why, plan } in kept {
        for noise in 0..NOISES {
            let plan = Plan {
                seed: plan.seed + noise,
                ..plan.clone()
            };
            assert_eq!(
                runner.run(&plan, None, false).violation,
                None,
                "once {why}; noise {noise}"
            );
        }
    }
}

#[test]
fn fresh_seeds_are_clean() {
    let first = option_env!("HOLDFAST_SIM_SEED")
        .and_then(|text| text.parse().ok())
        .unwrap_or(10_000_000_u64);
    println!("seeds from {first}");
    let mut runner = Runner::default();
    for seed in first..first + 150 {
        let outcome = runner.run(&Plan::new(seed), None, false);
        assert_eq!(outcome.violation, None, "seed {seed}: run `holdfast-sim replay {seed}`");
    }
}

#[test]
fn one_seed_is_one_history() {
    for seed in 1..20 {
        let once = Runner::default().run(&Plan::new(seed), None, true);
        let again = Runner::default().run(&Plan::new(seed), None, true);
        assert_eq!(once.story, again.story);
    }
}

/// What a plan showed after others, it shows alone: a set that runs, which many plans begin with, has nothing of the first of them.
#[test]
fn a_history_does_not_depend_on_those_before_it() {
    for seed in 40..48 {
        let plan = Plan {
            from_nothing: false,
            ..Plan::new(seed)
        };
        let before = Plan {
            keeps: 5,
            torn: false,
            drift: 50,
            faults: Vec::new(),
            ..plan.clone()
        };
        let mut runner = Runner::default();
        runner.run(&before, None, false);
        let after = runner.run(&plan, None, true);
        assert_eq!(
            after.story,
            Runner::default().run(&plan, None, true).story,
            "seed {seed}"
        );
    }
}
