//! Real agents and engines on one machine.

// A panic in a test's helper is the assertion, as in the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each test program uses its part")]
mod support;

use std::time::Duration;

use support::{Set, address};

/// The agents of the tests below run as this test, in processes of their own.
#[test]
fn agent_process() {
    support::agent_process();
}

/// A session reads what it wrote from each replica, with the statements of the page for users.
fn own_writes_are_read(set: &Set) {
    const PAGE: &str = include_str!("../../docs/users/reading-your-writes.md");
    let sql: Vec<&str> = PAGE
        .split("```sql\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap())
        .collect();
    let [position, wait] = sql[..] else { panic!("{sql:?}") };
    set.sql("CREATE TABLE mine (v int)").unwrap();
    for v in 1..=5 {
        let at = set
            .sql(&format!("INSERT INTO mine VALUES ({v}); COMMIT; {position}"))
            .unwrap();
        let wait = wait.replace("0/0", &at);
        for replica in 1..3 {
            let read = format!("BEGIN; SET LOCAL statement_timeout = '10s'; {wait}; SELECT max(v) FROM mine; COMMIT");
            assert_eq!(set.sql_on(&address(replica), &read).unwrap(), v.to_string());
        }
    }
    let late = wait.replace("0/0", "FFFF/0");
    let why = set.sql_on(&address(1), &format!("SET statement_timeout = '300ms'; {late}"));
    assert!(why.unwrap_err().contains("statement timeout"));
}

/// From nothing to a set that acknowledges with two copies; then its leader's engine dies, its agent dies, and it drains.
#[test]
fn three_members_make_a_set_that_keeps_every_acknowledged_row() {
    let mut set = Set::begin(3, 2, &[("work_mem", "8MB"), ("work_men", "1MB")]);
    let took = set.until(
        "leads with both standbys in the rule",
        Duration::from_secs(60),
        Set::led_by_all,
    );
    eprintln!("bootstrap to a full rule: {took:?}");
    set.until("writes", Duration::from_secs(60), |s| {
        s.sql("CREATE TABLE IF NOT EXISTS t (v int)").is_ok()
    });
    set.sql("INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(set.sql("SHOW work_mem").unwrap(), "8MB");
    for n in 0..3 {
        set.until("ready", Duration::from_secs(60), |s| {
            s.get(n, "/readyz").starts_with("HTTP/1.1 200")
        });
        eprintln!("resident {} kB", set.resident(n));
    }
    assert!(
        set.get(0, "/metrics")
            .contains("holdfast_member_role{kind=\"leader\"} 1")
    );
    set.until("a refused parameter in the status", Duration::from_secs(60), |s| {
        s.status(0)
            .is_some_and(|s| s.rejected.iter().any(|r| r.why.contains("did you mean work_mem")))
    });
    set.until("replicas serve reads", Duration::from_secs(60), |s| {
        s.endpoints()["ro"].as_array().is_some_and(|a| a.len() == 2)
    });
    assert_eq!(set.sql_on(&address(1), "SELECT v FROM t").unwrap(), "1");
    own_writes_are_read(&set);

    // The engine of the leader is killed.
    let before = set.record();
    set.kill_engine(set.number(&before.leader));
    let took = set.until("writes again", Duration::from_secs(60), |s| {
        s.sql("INSERT INTO t VALUES (2)").is_ok()
    });
    eprintln!(
        "writes again {took:?} after the leader's engine was killed; term {} -> {}",
        before.term,
        set.record().term
    );
    set.until("full again", Duration::from_secs(60), Set::led_by_all);
    assert_eq!(set.sql("SELECT count(DISTINCT v) FROM t").unwrap(), "2");

    // The whole leader vanishes, and comes back later.
    let gone = set.number(&set.record().leader);
    set.kill_agent(gone);
    set.kill_engine(gone);
    let took = set.until("writes again", Duration::from_secs(60), |s| {
        s.sql("INSERT INTO t VALUES (3)").is_ok()
    });
    eprintln!(
        "writes again {took:?} after the leader vanished; term {}",
        set.record().term
    );
    set.start_agent(gone);
    set.until("full again", Duration::from_secs(60), Set::led_by_all);
    assert_eq!(set.sql("SELECT count(DISTINCT v) FROM t").unwrap(), "3");

    // A drain of the leader.
    let drained = set.number(&set.record().leader);
    let took = set.stop_agent(drained);
    let more = set.until("writes again", Duration::from_secs(60), |s| {
        s.sql("INSERT INTO t VALUES (4)").is_ok()
    });
    eprintln!("drained in {took:?}, writes {more:?} later; term {}", set.record().term);
    set.start_agent(drained);
    set.until("full again", Duration::from_secs(60), Set::led_by_all);
    assert_eq!(set.sql("SELECT count(DISTINCT v) FROM t").unwrap(), "4");
    for n in 0..3 {
        eprintln!("resident {} kB", set.resident(n));
    }
}
