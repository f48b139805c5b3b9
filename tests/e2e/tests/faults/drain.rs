//! A node is drained that holds the primaries of many sets: every one hands over before its Pod is evicted.

use std::panic::catch_unwind;
use std::time::Duration;

use anyhow::Result;
use holdfast_e2e::fault::drain;
use holdfast_e2e::house::wait_for;
use holdfast_e2e::{Set, System, Writers, trial};

use crate::one_house::house;

const NAMESPACE: &str = "drain";
const SETS: usize = 4;
const READY: Duration = Duration::from_secs(300);
/// Of each set: together as many as the other faults have.
const CLIENTS: u32 = 2;

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_drained_node_that_holds_all_primaries_of_somebody() {
    let house = house();
    house.namespace(NAMESPACE).unwrap();
    let sets: Vec<Set<'_>> = (1..=SETS)
        .map(|n| Set::apply(house, NAMESPACE, &format!("db{n}"), 3, "").unwrap())
        .collect();
    let result = catch_unwind(|| hands_all_over(&sets));
    if result.is_err() {
        house.dump(NAMESPACE);
        house.bed.heal_all().unwrap();
    }
    house
        .kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"])
        .unwrap();
    result.unwrap();
}

fn hands_all_over(sets: &[Set<'_>]) {
    for set in sets {
        set.wait_ready(READY).unwrap();
    }
    let node = gather(sets);
    // Whatever comes of it: the faults after this one need the node, too.
    let drained = catch_unwind(|| leaves(sets, node));
    house().kubectl(&["uncordon", &format!("node{node}")]).unwrap();
    for (set, writers) in sets.iter().zip(drained.unwrap()) {
        set.wait_ready(READY).unwrap();
        let verdict = writers.finish().unwrap();
        let longest = verdict.outages.iter().map(|o| o.length()).max().unwrap_or(0);
        eprintln!(
            "  {}: {} rows acknowledged, {} unknown, longest outage {:.2} s",
            set.name,
            verdict.acknowledged,
            verdict.unknown,
            Duration::from_micros(longest).as_secs_f32()
        );
        assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
    }
}

/// Drains the node: each set leads and writes elsewhere, one term later, or one more for each time that a leader was lost, as
/// one is that gets no processor for two seconds. Gives the writers, who are still at work.
fn leaves(sets: &[Set<'_>], node: u8) -> Vec<Writers> {
    let now = |set: &Set<'_>| -> Result<(u64, u64)> { Ok((set.term()?, set.elections_told()?)) };
    let before: Vec<(u64, u64)> = sets.iter().map(|set| now(set).unwrap()).collect();
    let writers: Vec<Writers> = sets
        .iter()
        .map(|set| Writers::start(set.access().unwrap(), CLIENTS).unwrap())
        .collect();
    for writers in &writers {
        trial::more_rows(writers, 50).unwrap();
    }
    let drained = drain(house(), node);
    for (set, (before, _)) in sets.iter().zip(&before) {
        // Status is told a moment after the fact.
        wait_for(&format!("{} has another primary", set.name), READY, || {
            let (primary, now) = (set.primary()?, set.term()?);
            let elsewhere = !primary.is_empty() && set.node(&primary).is_ok_and(|at| at != node);
            Ok(if elsewhere && now > *before {
                Ok(())
            } else {
                Err(format!("primary {primary:?}, term {now} after {before}"))
            })
        })
        .unwrap();
    }
    for writers in &writers {
        trial::more_rows(writers, 50).unwrap();
    }
    drained.unwrap();
    for (set, (term, told)) in sets.iter().zip(&before) {
        // An Event arrives in its own time.
        let what = format!("{} hands over once, but for lost leaders", set.name);
        wait_for(&what, Duration::from_secs(20), || {
            let now = now(set)?;
            let (terms, elections) = (now.0 - term, now.1.saturating_sub(*told));
            Ok(if terms <= 1 + elections {
                Ok(())
            } else {
                Err(format!("{terms} terms, {elections} elections for a lost leader"))
            })
        })
        .unwrap();
    }
    writers
}

/// Makes each set's member on one node its primary; gives the node's number.
fn gather(sets: &[Set<'_>]) -> u8 {
    let leads = |set: &Set<'_>| set.node(&set.primary().unwrap()).unwrap();
    let node = sets.first().map(leads).unwrap();
    for set in sets {
        if leads(set) == node {
            continue;
        }
        let there = set
            .replicas()
            .unwrap()
            .into_iter()
            .find(|pod| set.node(pod).is_ok_and(|at| at == node));
        let there = there.unwrap_or_else(|| panic!("{} has no member on node {node}", set.name));
        set.switchover_to(&["--to", &there]).unwrap();
        set.wait_ready(READY).unwrap();
        assert_eq!(set.primary().unwrap(), there);
    }
    node
}
