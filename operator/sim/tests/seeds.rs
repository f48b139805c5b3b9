//! Every seed that ever failed, and some fresh ones.

use holdfast_sim::{Plan, Runner};

/// Seeds kept after they had failed: one a line in `seeds/*.txt`, what they showed after a `#`.
fn kept() -> Vec<u64> {
    include_str!("../seeds/kept.txt")
        .lines()
        .filter_map(|line| line.split('#').next()?.trim().parse().ok())
        .collect()
}

#[test]
fn every_kept_seed_is_clean() {
    let mut runner = Runner::default();
    let seeds = kept();
    assert!(!seeds.is_empty());
    for seed in seeds {
        let outcome = runner.run(&Plan::new(seed), None, false);
        assert_eq!(outcome.violation, None, "seed {seed}: run `holdfast-sim replay {seed}`");
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
