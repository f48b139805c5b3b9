//! One fault each, on one set that has to live through all of them.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::time::Duration;

use holdfast_core::failover::Record;
use holdfast_e2e::fault::Fault;
use holdfast_e2e::house::{SYSTEM, wait_for};
use holdfast_e2e::{Set, System, Writers, trial};

use crate::one_house::house;

const NAMESPACE: &str = "faults";

/// The set, made once.
fn set() -> &'static Set<'static> {
    static SET: OnceLock<Set<'static>> = OnceLock::new();
    SET.get_or_init(|| {
        house().namespace(NAMESPACE).unwrap();
        let set = Set::apply(house(), NAMESPACE, "db", 3, "").unwrap();
        set.wait_ready(Duration::from_secs(180)).unwrap();
        set
    })
}

/// Nothing acknowledged is lost, nobody acknowledges beside the leader, writes go on, and all members come back.
fn survives(fault: Fault) {
    let result = trial::run(set(), fault);
    if result.as_ref().map_or(true, |trial| !trial.violations.is_empty()) {
        house().dump(NAMESPACE);
        house().bed.heal_all().unwrap();
    }
    let trial = result.unwrap();
    eprintln!(
        "  {}: {} rows acknowledged, {} unknown, longest outage {:.2} s, all fit {:.1} s after its end",
        fault.name(),
        trial.acknowledged,
        trial.unknown,
        trial.outage_ms / 1000.0,
        trial.fit_again_ms / 1000.0
    );
    assert!(trial.violations.is_empty(), "{:#?}", trial.violations);
    if goes_on_during(fault) {
        assert!(
            trial.outage_ms < NOTICED_MS,
            "writes stopped for {} ms",
            trial.outage_ms
        );
    }
}

/// A fraction of how long these faults last, and far more than a machine that stands still costs.
const NOTICED_MS: f64 = 15_000.0;

/// Faults of something that no commit waits for.
fn goes_on_during(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::ApiAway | Fault::Operator | Fault::ReplicaSilent | Fault::ReplicaEngine | Fault::ReplicaFreeze
    )
}

/// Writes go on. And what is not observed is not told: after a while without a word the member is in no state that anybody knows.
#[test]
#[ignore = "needs root and a bed: make test"]
fn a_replica_without_power_is_no_loss_and_then_unknown() {
    set().wait_fit(Duration::from_secs(180)).unwrap();
    let writers = Writers::start(set().access().unwrap(), 8).unwrap();
    trial::more_rows(&writers, 200).unwrap();
    let silent = set().replica().unwrap();
    let node = set().node(&silent).unwrap();
    house().bed.power_off(node).unwrap();
    let unknown = wait_for("status knows nothing of it", Duration::from_secs(240), || {
        let members = set().object()?["status"]["members"].clone();
        let all = members.as_array().into_iter().flatten();
        let member = all
            .clone()
            .find(|m| m["name"] == silent.as_str())
            .cloned()
            .unwrap_or_default();
        let known = all.filter(|m| m["state"] != "Unknown").count();
        let unseen = member["role"] == "Unknown" && member["state"] == "Unknown";
        let told = member["lsn"].is_null() && member["lagBytes"].is_null() && member["ready"] == false;
        Ok(if unseen && told && known == 2 {
            Ok(member)
        } else {
            Err(members.to_string())
        })
    });
    house().bed.power_on(node).unwrap();
    let message = unknown.unwrap().get("message").map(ToString::to_string);
    assert!(message.as_ref().is_some_and(|m| m.contains("not heard")), "{message:?}");
    house().bed.wait_nodes(Duration::from_secs(120)).unwrap();
    set().wait_fit(Duration::from_secs(240)).unwrap();
    let verdict = writers.finish().unwrap();
    let longest = verdict.outages.iter().map(|o| o.length()).max().unwrap_or(0);
    let longest = Duration::from_micros(longest).as_secs_f64() * 1000.0;
    eprintln!(
        "  {} rows acknowledged, longest outage {longest:.0} ms",
        verdict.acknowledged
    );
    assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
    assert!(longest < NOTICED_MS, "writes stopped for {longest} ms");
}

/// Members elect by themselves: nobody operates them here.
#[test]
#[ignore = "needs root and a bed: make test"]
fn an_election_while_there_is_no_operator() {
    let scale = |replicas: &str| {
        let to = format!("--replicas={replicas}");
        house()
            .kubectl(&["-n", SYSTEM, "scale", "deployment/holdfast", &to])
            .unwrap();
    };
    set().wait_fit(Duration::from_secs(180)).unwrap();
    let (access, leader, before) = (
        set().access().unwrap(),
        set().primary().unwrap(),
        set().record().unwrap(),
    );
    scale("0");
    let done = catch_unwind(AssertUnwindSafe(|| {
        wait_for("no operator is there", Duration::from_secs(120), || {
            let select = [
                "-n",
                SYSTEM,
                "get",
                "pods",
                "-l",
                "app.kubernetes.io/component=operator",
                "-o",
                "name",
            ];
            let left = house().kubectl(&select)?;
            Ok(if left.is_empty() { Ok(()) } else { Err(left) })
        })
        .unwrap();
        let writers = Writers::start(access, 4).unwrap();
        trial::more_rows(&writers, 200).unwrap();
        house().bed.kill(NAMESPACE, &leader, "postgres").unwrap();
        trial::more_rows(&writers, 200).unwrap();
        wait_for("the members have elected", Duration::from_secs(60), || {
            let now = set().record()?;
            Ok(if now.term > before.term {
                Ok(())
            } else {
                Err(format!("{now:?}"))
            })
        })
        .unwrap();
        writers.finish().unwrap()
    }));
    scale("2");
    set().wait_fit(Duration::from_secs(180)).unwrap();
    let verdict = done.unwrap();
    eprintln!(
        "  {} rows acknowledged, {} unknown",
        verdict.acknowledged, verdict.unknown
    );
    assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
}

macro_rules! faults {
    ($($name:ident: $fault:ident,)*) => {$(
        #[test]
        #[ignore = "needs root and a bed: make test"]
        fn $name() {
            survives(Fault::$fault);
        }
    )*};
}

/// Members hear of a request each in their own time, and one that still knows the former request must not carry that out
/// again: the record names each switchover once, and each is one change of leader. An election for a leader that was lost,
/// as one is that gets no processor for two seconds, is one more, and is told.
#[test]
#[ignore = "needs root and a bed: make test"]
fn switchovers_one_after_another_are_each_carried_out_once() {
    const TIMES: u32 = 5;
    let done = |record: &Record| -> Vec<String> {
        record
            .earlier_commands
            .iter()
            .chain(&record.last_command)
            .cloned()
            .collect()
    };
    set().wait_fit(Duration::from_secs(180)).unwrap();
    let (before, told_before) = (set().record().unwrap(), set().elections_told().unwrap());
    let known = done(&before);
    for _ in 0..TIMES {
        set().switchover_to(&[]).unwrap();
        set().wait_fit(Duration::from_secs(180)).unwrap();
    }
    let after = set().record().unwrap();
    let all = done(&after);
    let once: BTreeSet<&String> = all.iter().collect();
    assert_eq!(once.len(), all.len(), "one was carried out again: {all:?}");
    let carried_out = all.iter().filter(|id| !known.contains(id)).count();
    let opened = after.term.0 - before.term.0;
    assert!(opened >= TIMES, "{opened} terms for {TIMES} switchovers");
    // An Event arrives in its own time.
    wait_for(
        "each switchover opens one term, and each election for a lost leader",
        Duration::from_secs(20),
        || {
            let told = set().elections_told()?.saturating_sub(told_before);
            Ok(if u64::from(opened) <= carried_out as u64 + told {
                Ok(())
            } else {
                Err(format!("{opened} terms, {carried_out} switchovers, {told} elections"))
            })
        },
    )
    .unwrap();
}

faults! {
    a_killed_engine_of_the_primary: Engine,
    a_killed_agent_of_the_primary: Agent,
    a_deleted_pod_of_the_primary: Pod,
    a_power_cut_of_the_primarys_node: Power,
    a_primary_that_is_silent: Silent,
    a_primary_that_nobody_hears: Mute,
    a_primary_that_hears_nobody: Deaf,
    a_primary_that_does_not_reach_the_api_server: NoApi,
    a_primary_that_freezes_and_wakes_up_believing_that_it_leads: Freeze,
    a_primary_whose_disk_stalls: Stall,
    a_planned_switchover: Switchover,
    a_drained_node: Drain,
    a_silent_replica: ReplicaSilent,
    a_killed_engine_of_a_replica: ReplicaEngine,
    a_replica_that_freezes: ReplicaFreeze,
    an_api_server_that_is_away: ApiAway,
    a_primary_that_is_lost_while_the_api_server_is_away: ApiAwayThenEngine,
    operator_pods_that_are_killed: Operator,
    a_second_fault_during_the_election: SecondDuringElection,
    a_second_fault_during_the_promotion: SecondDuringPromotion,
    a_second_fault_during_the_rewind: SecondDuringRewind,
}
