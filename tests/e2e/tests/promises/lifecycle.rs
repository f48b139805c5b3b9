//! What happens to a set over the years: it shrinks, its certificates run out, its disk fills, its operator dies, it is
//! deleted and comes back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use holdfast_e2e::house::{SOON, SYSTEM, wait_for};
use holdfast_e2e::sql::Access;
use holdfast_e2e::{House, Set};
use rand::RngExt;

use crate::support::in_namespace;

const START: Duration = Duration::from_secs(240);

fn jsonpath(house: &House, namespace: &str, what: &str, path: &str) -> String {
    let path = format!("jsonpath={path}");
    house
        .kubectl(&["-n", namespace, "get", what, "-o", &path])
        .unwrap_or_default()
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn data_of_a_deleted_set_is_kept_and_taken_over_only_when_asked() {
    in_namespace("retained", |house, ns| {
        let set = Set::apply(house, ns, "db", 3, "").unwrap();
        set.wait_ready(START).unwrap();
        let rw = Access::to(&set, "rw").unwrap();
        rw.query("create table t(x int); insert into t values (42)").unwrap();
        house
            .kubectl(&["-n", ns, "delete", "hrs", "db", "--wait=true", "--timeout=120s"])
            .unwrap();
        wait_for("the pods are gone", START, || {
            let pods = jsonpath(house, ns, "pods", "{.items[*].metadata.name}");
            Ok(if pods.is_empty() { Ok(()) } else { Err(pods) })
        })
        .unwrap();
        assert_eq!(
            jsonpath(house, ns, "pvc", "{.items[*].metadata.name}"),
            "db-1 db-2 db-3"
        );

        let set = Set::apply(house, ns, "db", 3, "").unwrap();
        wait_for("it says what is there and what to do", SOON, || {
            let message = set.status("/message")?;
            Ok(if message.contains("adopt: true") {
                Ok(())
            } else {
                Err(message)
            })
        })
        .unwrap();
        assert_eq!(
            jsonpath(house, ns, "pods", "{.items[*].metadata.name}"),
            "",
            "nothing runs on it"
        );

        // As the message says.
        patch(&set, r#"{"bootstrap":{"adopt":true}}"#);
        set.wait_ready(START).unwrap();
        let rw = Access::to(&set, "rw").unwrap();
        assert_eq!(rw.query("select x from t").unwrap(), "42");
    });
}

fn patch(set: &Set<'_>, spec: &str) {
    let body = format!("{{\"spec\":{spec}}}");
    let args = [
        "-n",
        &set.namespace,
        "patch",
        "hrs",
        &set.name,
        "--type=merge",
        "-p",
        &body,
    ];
    set.house.kubectl(&args).unwrap();
}

/// The policy of the moment counts, however the set began: an owner reference is what garbage collection goes by.
#[test]
#[ignore = "needs root and a bed: make test"]
fn a_deletion_takes_the_data_or_leaves_it_as_the_policy_says_by_then() {
    const DATA: &str = "pvc,lease,secret";
    in_namespace("policy", |house, ns| {
        let names = || jsonpath(house, ns, DATA, "{.items[*].metadata.name}");
        let tied = || jsonpath(house, ns, DATA, "{.items[*].metadata.ownerReferences[*].kind}");
        let made = || {
            let set = Set::apply(house, ns, "db", 2, "deletionPolicy: Delete").unwrap();
            set.wait_ready(START).unwrap();
            set
        };
        let ties = |wanted: bool| {
            wait_for("data goes with the set, or stays", SOON, || {
                // Two claims, the record, and Secrets of the application and of the authority; never more than those that are there.
                let now = tied();
                let count = now.matches("HAReplicaSet").count();
                let claims = jsonpath(house, ns, "pvc", "{.items[*].metadata.ownerReferences[*].kind}");
                let right = if wanted {
                    claims.matches("HAReplicaSet").count() == 2 && count >= 4
                } else {
                    claims.is_empty()
                };
                Ok(if right { Ok(()) } else { Err(now) })
            })
            .unwrap();
        };
        let delete = || {
            house
                .kubectl(&["-n", ns, "delete", "hrs", "db", "--wait", "--timeout=120s"])
                .unwrap();
            wait_for("the pods are gone", START, || {
                let pods = jsonpath(house, ns, "pods", "{.items[*].metadata.name}");
                Ok(if pods.is_empty() { Ok(()) } else { Err(pods) })
            })
            .unwrap();
        };
        let set = made();
        ties(true);
        let rw = Access::to(&set, "rw").unwrap();
        rw.query("create table t(x int); insert into t values (42)").unwrap();
        patch(&set, r#"{"deletionPolicy":"Retain"}"#);
        ties(false);
        delete();
        // The collector has had its time.
        std::thread::sleep(Duration::from_secs(5));
        assert_eq!(jsonpath(house, ns, "pvc", "{.items[*].metadata.name}"), "db-1 db-2");
        for kept in ["db-app", "db-ca"] {
            assert!(
                names().split_whitespace().any(|name| name == kept),
                "{kept}: {}",
                names()
            );
        }

        let set = Set::apply(house, ns, "db", 2, "bootstrap: {adopt: true}").unwrap();
        set.wait_ready(START).unwrap();
        assert_eq!(Access::to(&set, "rw").unwrap().query("select x from t").unwrap(), "42");
        patch(&set, r#"{"deletionPolicy":"Delete"}"#);
        ties(true);
        delete();
        wait_for("nothing of it is left", SOON, || {
            let left: Vec<String> = names()
                .split_whitespace()
                .filter(|n| n.starts_with("db"))
                .map(Into::into)
                .collect();
            Ok(if left.is_empty() { Ok(()) } else { Err(left.join(" ")) })
        })
        .unwrap();
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_leader_that_is_to_go_hands_over_first_and_takes_its_slot_with_it() {
    in_namespace("shrink", |house, ns| {
        let set = Set::apply(house, ns, "db", 3, "").unwrap();
        set.wait_ready(START).unwrap();
        let rw = Access::to(&set, "rw").unwrap();
        rw.query("create table t(x int); insert into t values (42)").unwrap();
        set.switchover_to(&["--to", "db-3"]).unwrap();
        set.wait_ready(START).unwrap();
        assert_eq!(set.primary().unwrap(), "db-3");
        set.change(2, "durability: {mode: Quorum}").unwrap();
        set.wait_ready(START).unwrap();
        assert_ne!(set.primary().unwrap(), "db-3");
        set.wait_behind("r", |pods| *pods == ["db-1", "db-2"]).unwrap();
        assert_eq!(rw.query("select x from t").unwrap(), "42");
        let slots =
            "select coalesce(string_agg(slot_name, ' '), '') from pg_replication_slots where slot_name = 'db_3'";
        wait_for("its slot is gone", SOON, || {
            let left = rw.query(slots)?;
            Ok(if left.is_empty() { Ok(()) } else { Err(left) })
        })
        .unwrap();
        let names = rw.query("show synchronous_standby_names").unwrap();
        assert!(!names.contains("db_3"), "{names}");
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn an_operator_killed_again_and_again_wedges_nothing() {
    in_namespace("killed", |house, ns| {
        let set = Set::apply(house, ns, "db", 3, "").unwrap();
        let mut identifiers = BTreeSet::new();
        let mut kill_for = |time: Duration| {
            let start = Instant::now();
            while start.elapsed() < time {
                // At any moment, so that each step is left half done sooner or later.
                std::thread::sleep(Duration::from_millis(rand::rng().random_range(300..3_000)));
                let select = ["-l", "app.kubernetes.io/name=holdfast", "--grace-period=0", "--force"];
                let _ = house.kubectl(&[["-n", SYSTEM, "delete", "pod"].as_slice(), &select].concat());
                // The members' own record has it from the first moment on.
                identifiers.extend(set.record().ok().and_then(|record| record.system_identifier));
            }
        };
        kill_for(Duration::from_secs(15));
        set.wait_ready(START).unwrap();
        let rw = Access::to(&set, "rw").unwrap();
        rw.query("create table t(x int); insert into t values (42)").unwrap();
        let identifier = "select system_identifier from pg_control_system()";
        let first = rw.query(identifier).unwrap();

        set.change(5, "").unwrap();
        kill_for(Duration::from_secs(10));
        set.wait_ready(START).unwrap();
        set.change(3, "").unwrap();
        kill_for(Duration::from_secs(10));
        set.wait_ready(START).unwrap();
        assert_eq!(rw.query(identifier).unwrap(), first, "there was no second initdb");
        identifiers.insert(first.parse().unwrap());
        assert_eq!(identifiers.len(), 1, "there was no second initdb: {identifiers:?}");
        assert_eq!(rw.query("select x from t").unwrap(), "42");
        set.wait_behind("r", |pods| pods.len() == 3).unwrap();
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_full_volume_is_told_and_service_goes_on_when_there_is_room_again() {
    in_namespace("full", |house, ns| {
        let set = Set::apply(house, ns, "db", 1, "").unwrap();
        set.wait_ready(START).unwrap();
        let rw = Access::to(&set, "rw").unwrap();
        rw.query("create table t(x text); insert into t values ('kept')")
            .unwrap();
        let volume = house.bed.volume(ns, "db-1").unwrap();
        house.bed.fill(&volume, 0).unwrap();
        // Enough to need new files.
        let more = "insert into t select repeat('x', 1000) from generate_series(1, 40000)";
        wait_for("writes are refused", SOON, || {
            Ok(match rw.query(more) {
                Ok(_) => Err("still room".into()),
                Err(_) => Ok(()),
            })
        })
        .unwrap();
        wait_for("status says that the volume is full", SOON, || {
            let message = set.status("/message")?;
            let full = message.contains("full") || message.contains("No space left");
            Ok(if full { Ok(()) } else { Err(message) })
        })
        .unwrap();
        house.bed.unfill(&volume).unwrap();
        wait_for("writes go on", SOON, || {
            Ok(rw
                .query("insert into t values ('after')")
                .map(drop)
                .map_err(|e| format!("{e:#}")))
        })
        .unwrap();
        assert_eq!(rw.query("select count(*) from t where x = 'kept'").unwrap(), "1");
        set.wait_ready(START).unwrap();
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_certificate_is_replaced_without_a_restart() {
    in_namespace("renewed", |house, ns| {
        let set = Set::apply(house, ns, "db", 3, "").unwrap();
        set.wait_ready(START).unwrap();
        let rw = Access::to(&set, "rw").unwrap();
        let begun = "select pg_postmaster_start_time()::text || host(inet_server_addr())";
        let before = rw.query(begun).unwrap();
        let serial = |member: &str| jsonpath(house, ns, &format!("secret/{member}-tls"), "{.data.tls\\.crt}");
        let primary = set.primary().unwrap();
        let old = serial(&primary);
        assert!(!old.is_empty());
        for member in ["db-1", "db-2", "db-3"] {
            house
                .kubectl(&["-n", ns, "delete", "secret", &format!("{member}-tls")])
                .unwrap();
        }
        wait_for("there is a new certificate", SOON, || {
            let new = serial(&primary);
            Ok(if new.is_empty() || new == old {
                Err("the old one".into())
            } else {
                Ok(())
            })
        })
        .unwrap();
        // The kubelet brings a changed Secret to its pods within its sync period, which is a minute or two.
        wait_for("the agent takes it up", Duration::from_secs(180), || {
            let log = house.kubectl(&["-n", ns, "logs", &primary, "-c", "postgresql"])?;
            let taken = log.matches("certificate taken up").count();
            Ok(if taken >= 2 {
                Ok(())
            } else {
                Err(format!("{taken} times"))
            })
        })
        .unwrap();
        assert_eq!(rw.query(begun).unwrap(), before, "the engine was not restarted");
        set.wait_ready(START).unwrap();
    });
}
