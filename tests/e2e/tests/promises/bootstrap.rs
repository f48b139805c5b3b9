//! A manifest becomes a running replica set.

use std::time::Duration;

use holdfast_e2e::Set;
use holdfast_e2e::house::{SOON, wait_for};
use holdfast_e2e::sql::Access;

use crate::support::in_namespace;

const START: Duration = Duration::from_secs(180);

#[test]
#[ignore = "needs root and a bed: make test"]
fn three_members_come_up_and_a_commit_is_on_two_of_them() {
    in_namespace("boot", |house, ns| {
        let set = Set::apply(house, ns, "db", 3, "").unwrap();
        set.wait_ready(START).unwrap();
        let rw = Access::to(&set, "rw").unwrap();
        rw.query("create table t(x int); insert into t values (42)").unwrap();
        assert_eq!(rw.query("select x from t").unwrap(), "42");
        // Ready is what members have told; what they write elsewhere takes each its own time.
        wait_for("commits wait for one of the others", SOON, || {
            let names = rw.query("show synchronous_standby_names")?;
            Ok(if names.starts_with("ANY 1 (") {
                Ok(())
            } else {
                Err(names)
            })
        })
        .unwrap();
        assert_eq!(rw.query("select pg_is_in_recovery()").unwrap(), "f");

        // The primary alone is behind -rw, its replicas alone behind -ro, all behind -r.
        wait_for("Services lead to their members", SOON, || {
            let primary = set.primary()?;
            let (rw, ro, r) = (set.behind("rw")?, set.behind("ro")?, set.behind("r")?);
            let right = rw == [primary.as_str()] && ro.len() == 2 && !ro.contains(&primary) && r.len() == 3;
            Ok(if right {
                Ok(())
            } else {
                Err(format!("{primary:?} leads; -rw {rw:?}, -ro {ro:?}, -r {r:?}"))
            })
        })
        .unwrap();
        let ro = Access::to(&set, "ro").unwrap();
        wait_for("the row is on a replica", SOON, || {
            Ok(if ro.query("select x from t")? == "42" {
                Ok(())
            } else {
                Err("not yet".into())
            })
        })
        .unwrap();
        assert_eq!(ro.query("select pg_is_in_recovery()").unwrap(), "t");
        assert!(
            ro.query("insert into t values (1)").is_err(),
            "a replica refuses writes"
        );

        // Every member runs the image that the tag meant once, by digest.
        assert!(set.status("/image").unwrap().contains("@sha256:"));
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn one_member_serves_alone_and_grows_to_three() {
    in_namespace("grow", |house, ns| {
        let set = Set::apply(house, ns, "db", 1, "").unwrap();
        set.wait_ready(START).unwrap();
        let rw = Access::to(&set, "rw").unwrap();
        rw.query("create table t(x int); insert into t values (1)").unwrap();
        set.change(3, "").unwrap();
        set.wait_ready(START).unwrap();
        set.wait_behind("ro", |pods| pods.len() == 2).unwrap();
        assert_eq!(rw.query("select count(*) from t").unwrap(), "1");
        set.change(2, "").unwrap();
        set.wait_ready(START).unwrap();
        set.wait_behind("r", |pods| pods.len() == 2).unwrap();
        wait_for("the slot of a gone member is dropped", SOON, || {
            let slots = rw.query("select count(*) from pg_replication_slots")?;
            Ok(if slots == "1" { Ok(()) } else { Err(slots) })
        })
        .unwrap();
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn nobody_connects_without_tls_or_password() {
    in_namespace("tls", |house, ns| {
        let set = Set::apply(house, ns, "db", 1, "").unwrap();
        set.wait_ready(START).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let address = set.service("rw").unwrap();
        let plain = format!(
            "host={address} user={} password={} dbname={} connect_timeout=3",
            set.secret("user").unwrap(),
            set.secret("password").unwrap(),
            set.secret("dbname").unwrap()
        );
        let refused = runtime
            .block_on(tokio_postgres::connect(&plain, tokio_postgres::NoTls))
            .err()
            .unwrap();
        assert!(format!("{refused:?}").contains("pg_hba"), "{refused:?}");
    });
}
