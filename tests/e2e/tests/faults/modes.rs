//! The other two durability modes, on real engines: a pair that goes on alone, and one that never waits.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use holdfast_e2e::fault::Fault;
use holdfast_e2e::house::{SOON, wait_for};
use holdfast_e2e::{House, Set, System, trial};

use crate::one_house::house;

const NAMESPACE: &str = "modes";
const START: Duration = Duration::from_secs(240);
/// Aimed at is 3 s; a machine that stands still meanwhile is none of Holdfast's. `wal_sender_timeout` alone would be 60 s.
const RULE_CHANGES_WITHIN_MS: f64 = 15_000.0;

fn in_namespace(test: impl FnOnce(&House)) {
    let house = house();
    house.namespace(NAMESPACE).unwrap();
    let result = catch_unwind(AssertUnwindSafe(|| test(house)));
    if result.is_err() {
        house.dump(NAMESPACE);
        house.bed.heal_all().unwrap();
    }
    match result {
        Ok(()) => drop(
            house
                .kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"])
                .unwrap(),
        ),
        Err(panic) => resume_unwind(panic),
    }
}

/// Both hold each commit; when the only standby is lost, the rule is made smaller before writes go on, and larger when it is back.
#[test]
#[ignore = "needs root and a bed: make test"]
fn a_pair_goes_on_alone_and_takes_its_standby_back_into_the_rule() {
    in_namespace(|house| {
        let set = Set::apply(house, NAMESPACE, "pair", 2, "durability: {mode: Preferred, copies: 2}").unwrap();
        set.wait_ready(START).unwrap();
        rule_has(&set, 1);
        for fault in [Fault::ReplicaSilent, Fault::ReplicaEngine, Fault::Engine] {
            let trial = trial::run(&set, fault).unwrap();
            eprintln!(
                "  {}: {} rows acknowledged, longest outage {:.2} s",
                fault.name(),
                trial.acknowledged,
                trial.outage_ms / 1000.0
            );
            assert!(trial.violations.is_empty(), "{:#?}", trial.violations);
            assert!(trial.outage_ms < RULE_CHANGES_WITHIN_MS, "{} ms", trial.outage_ms);
            rule_has(&set, 1);
        }
    });
}

/// How many standbys' acknowledgement a commit waits for, by the record and by the engine.
fn rule_has(set: &Set<'_>, standbys: usize) {
    let rw = set.access().unwrap();
    wait_for(&format!("commits wait for {standbys}"), SOON, || {
        let (rule, names) = (set.record()?.rule, rw.query("show synchronous_standby_names")?);
        let engine = names.starts_with(&format!("ANY {standbys} ("));
        let agrees = rule.standbys.len() == standbys && usize::from(rule.quorum) == standbys;
        Ok(if agrees && (engine || (standbys == 0 && names.is_empty())) {
            Ok(())
        } else {
            Err(format!("{rule:?}, {names:?}"))
        })
    })
    .unwrap();
}

/// A commit waits for nobody; a standby that has all of the log is elected by itself all the same.
#[test]
#[ignore = "needs root and a bed: make test"]
fn an_asynchronous_pair_waits_for_nobody_and_fails_over() {
    in_namespace(|house| {
        let set = Set::apply(house, NAMESPACE, "async", 2, "durability: {mode: Async}").unwrap();
        set.wait_ready(START).unwrap();
        let rw = set.access().unwrap();
        assert_eq!(rw.query("show synchronous_standby_names").unwrap(), "");
        rw.query("create table t(x int); insert into t select generate_series(1, 1000)")
            .unwrap();
        let (old, term) = (System::primary(&set).unwrap(), set.term().unwrap());
        let standby = set.replica().unwrap();
        let there = rw.at(&set.address(&standby).unwrap()).unwrap();
        wait_for("the standby has the rows", SOON, || {
            let rows = there.query("select count(*) from t")?;
            Ok(if rows == "1000" { Ok(()) } else { Err(rows) })
        })
        .unwrap();
        let node = set.node(&old).unwrap();
        house.bed.power_off(node).unwrap();
        let elected = set.wait_term_after(term);
        let serves = elected.and_then(|()| {
            wait_for("writes go on", SOON, || {
                let written = rw.query("insert into t values (0)");
                Ok(written.map(drop).map_err(|e| format!("{e:#}")))
            })
        });
        house.bed.power_on(node).unwrap();
        serves.unwrap();
        assert_eq!(System::primary(&set).unwrap(), standby);
        house.bed.wait_nodes(Duration::from_secs(120)).unwrap();
        set.wait_ready(START).unwrap();
        assert_eq!(rw.query("select count(*) from t").unwrap(), "1001");
    });
}
