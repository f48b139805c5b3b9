//! Physical faults, with the ledger running: nothing acknowledged is lost, and nobody acknowledges beside the leader.

use std::time::Duration;

use holdfast_e2e::house::wait_for;
use holdfast_e2e::{House, Set, Writers};

use crate::support::in_namespace;

const START: Duration = Duration::from_secs(180);

/// A set under load, a fault, its recovery, the verdict.
fn under_load(house: &'static House, ns: &str, fault: impl FnOnce(&Set<'_>, &str), heal: impl FnOnce(&Set<'_>)) {
    let set = Set::apply(house, ns, "db", 3, "").unwrap();
    set.wait_ready(START).unwrap();
    let old = set.primary().unwrap();
    let writers = Writers::start(&set, 8).unwrap();
    wait_for("the writers write", Duration::from_secs(20), || {
        Ok(if writers.acknowledged() > 100 {
            Ok(())
        } else {
            Err(format!("{} rows", writers.acknowledged()))
        })
    })
    .unwrap();
    fault(&set, &old);
    let before = writers.acknowledged();
    wait_for("writes go on", Duration::from_secs(60), || {
        let now = writers.acknowledged();
        Ok(if now > before + 100 {
            Ok(())
        } else {
            Err(format!("{} more rows", now - before))
        })
    })
    .unwrap();
    heal(&set);
    set.wait_ready(START).unwrap();
    let verdict = writers.finish().unwrap();
    eprintln!(
        "  {} rows acknowledged, {} unknown, longest outage {:.2} s",
        verdict.acknowledged,
        verdict.unknown,
        verdict.longest().as_secs_f32()
    );
    let broken: Vec<String> = verdict.violations.iter().map(ToString::to_string).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

fn node_of(house: &House, ns: &str, pod: &str) -> u8 {
    let node = house
        .kubectl(&["-n", ns, "get", "pod", pod, "-o", "jsonpath={.spec.nodeName}"])
        .unwrap();
    node.trim().trim_start_matches("node").parse().unwrap()
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_killed_engine_costs_no_row() {
    in_namespace("killed", |house, ns| {
        under_load(
            house,
            ns,
            |_, primary| {
                assert!(house.bed.kill(ns, primary, "postgres").unwrap() > 0);
            },
            |_| {},
        );
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_power_cut_of_the_primarys_node_costs_no_row() {
    in_namespace("power", |house, ns| {
        let node = std::cell::Cell::new(0);
        under_load(
            house,
            ns,
            |_, primary| {
                node.set(node_of(house, ns, primary));
                house.bed.power_off(node.get()).unwrap();
            },
            |_| house.bed.power_on(node.get()).unwrap(),
        );
    });
}
