//! Members that go come back by themselves, and settings change without anybody noticing.

use std::time::Duration;

use holdfast_e2e::Set;
use holdfast_e2e::house::{SOON, wait_for};
use holdfast_e2e::sql::Access;

use crate::support::in_namespace;

const START: Duration = Duration::from_secs(180);

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_deleted_primary_loses_nothing_and_comes_back_as_a_member() {
    in_namespace("deleted", |house, ns| {
        let set = Set::apply(house, ns, "db", 3, "").unwrap();
        set.wait_ready(START).unwrap();
        let rw = Access::to(&set, "rw").unwrap();
        rw.query("create table t(x int); insert into t select generate_series(1, 1000)")
            .unwrap();
        let old = set.primary().unwrap();
        house
            .kubectl(&["-n", ns, "delete", "pod", &old, "--wait=false"])
            .unwrap();
        // It goes on serving until it hands over.
        wait_for("another member leads", SOON, || {
            let now = set.primary()?;
            Ok(if now.is_empty() || now == old { Err(now) } else { Ok(()) })
        })
        .unwrap();
        wait_for("writes go on", SOON, || {
            Ok(rw
                .query("insert into t values (0)")
                .map(drop)
                .map_err(|e| format!("{e:#}")))
        })
        .unwrap();
        set.wait_ready(START).unwrap();
        assert_eq!(rw.query("select count(*) >= 1001 from t").unwrap(), "t");
        // The deleted member is back.
        set.wait_behind("r", |pods| pods.len() == 3).unwrap();
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_reload_takes_effect_at_once_and_a_bad_value_is_refused_with_what_would_be_right() {
    in_namespace("settings", |house, ns| {
        let set = Set::apply(house, ns, "db", 1, "").unwrap();
        set.wait_ready(START).unwrap();
        let rw = Access::to(&set, "rw").unwrap();
        set.set_parameters(r#"{"work_mem": "16MB"}"#).unwrap();
        wait_for("work_mem is in force", SOON, || {
            let now = rw.query("show work_mem")?;
            Ok(if now == "16MB" { Ok(()) } else { Err(now) })
        })
        .unwrap();
        set.set_parameters(r#"{"work_mem": "a lot", "listen_addresses": "*"}"#)
            .unwrap();
        wait_for("both are refused", SOON, || {
            let refused = set.status("/rejectedParameters")?;
            Ok(
                if refused.contains("work_mem") && refused.contains("listen_addresses") {
                    Ok(())
                } else {
                    Err(refused)
                },
            )
        })
        .unwrap();
        assert_eq!(
            rw.query("show work_mem").unwrap(),
            "16MB",
            "the last good value stays in force"
        );
    });
}
