//! One fault each, for the primary and for a replica.

use std::time::Duration;

use holdfast_bed::Host;
use holdfast_e2e::house::wait_for;
use holdfast_e2e::{House, Set, Writers};

use crate::support::in_namespace;

const START: Duration = Duration::from_secs(180);

/// A set under load that is to live through something.
struct Trial<'a> {
    house: &'static House,
    namespace: &'a str,
    set: Set<'a>,
    writers: Writers,
    primary: String,
}

/// Three members under load, then `story`, then the verdict: no promise broken, all members fit again.
fn trial(name: &str, story: impl FnOnce(&Trial<'_>)) {
    in_namespace(name, |house, namespace| {
        let set = Set::apply(house, namespace, "db", 3, "").unwrap();
        set.wait_ready(START).unwrap();
        let primary = set.primary().unwrap();
        let writers = Writers::start(&set, 8).unwrap();
        let trial = Trial {
            house,
            namespace,
            set,
            writers,
            primary,
        };
        trial.more_rows(100);
        story(&trial);
        trial.set.wait_ready(START).unwrap();
        let verdict = trial.writers.finish().unwrap();
        eprintln!(
            "  {name}: {} rows acknowledged, {} unknown, 0 may be lost, longest outage {:.2} s",
            verdict.acknowledged,
            verdict.unknown,
            verdict.longest().as_secs_f32()
        );
        let broken: Vec<String> = verdict.violations.iter().map(ToString::to_string).collect();
        assert!(broken.is_empty(), "{broken:#?}");
    });
}

impl Trial<'_> {
    /// Waits until `count` more rows are acknowledged.
    fn more_rows(&self, count: usize) {
        let before = self.writers.acknowledged();
        wait_for("writes go on", Duration::from_secs(90), || {
            let more = self.writers.acknowledged() - before;
            Ok(if more > count {
                Ok(())
            } else {
                Err(format!("{more} more rows"))
            })
        })
        .unwrap();
    }

    /// A member that is not the primary.
    fn replica(&self) -> String {
        self.set.behind("ro").unwrap().first().unwrap().clone()
    }

    /// The number of the node that a member runs on.
    fn node(&self, member: &str) -> u8 {
        let args = [
            "-n",
            self.namespace,
            "get",
            "pod",
            member,
            "-o",
            "jsonpath={.spec.nodeName}",
        ];
        let node = self.house.kubectl(&args).unwrap();
        node.trim().trim_start_matches("node").parse().unwrap()
    }
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_killed_engine_of_the_primary() {
    trial("engine", |t| {
        assert!(t.house.bed.kill(t.namespace, &t.primary, "postgres").unwrap() > 0);
        t.more_rows(200);
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_killed_agent_of_the_primary() {
    trial("agent", |t| {
        assert!(t.house.bed.kill(t.namespace, &t.primary, "holdfast").unwrap() > 0);
        t.more_rows(200);
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_power_cut_of_the_primarys_node() {
    trial("power", |t| {
        let node = t.node(&t.primary);
        t.house.bed.power_off(node).unwrap();
        t.more_rows(200);
        t.house.bed.power_on(node).unwrap();
        t.house.bed.wait_nodes(START).unwrap();
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_power_cut_of_a_replicas_node() {
    trial("replica", |t| {
        let node = t.node(&t.replica());
        t.house.bed.power_off(node).unwrap();
        t.more_rows(200);
        t.house.bed.power_on(node).unwrap();
        t.house.bed.wait_nodes(START).unwrap();
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_primary_that_freezes_and_wakes_up_believing_that_it_leads() {
    trial("freeze", |t| {
        let node = Host::Node(t.node(&t.primary));
        t.house.bed.freeze(node, Some(Duration::from_secs(30))).unwrap();
        t.more_rows(200);
        // It wakes up 30 s after it was frozen, while the writers go on.
        std::thread::sleep(Duration::from_secs(32));
        t.more_rows(200);
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_primary_that_nobody_hears() {
    trial("deaf", |t| {
        let node = Host::Node(t.node(&t.primary));
        t.house.bed.isolate(node).unwrap();
        t.more_rows(200);
        t.house.bed.heal().unwrap();
        t.house.bed.wait_nodes(START).unwrap();
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn an_api_server_that_is_away_stops_no_write() {
    trial("noapi", |t| {
        t.house.bed.api_down().unwrap();
        for _ in 0..4 {
            std::thread::sleep(Duration::from_secs(10));
            t.more_rows(200);
        }
        t.house.bed.api_up().unwrap();
    });
}
