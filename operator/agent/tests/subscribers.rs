//! Logical subscribers of a set of real agents and engines: what they get over failovers, and whom they wait for.

// A panic in a test's helper is the assertion, as in the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each test program uses its part")]
mod support;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::{Set, address, program};

/// The agents of the tests below run as this test, in processes of their own.
#[test]
fn agent_process() {
    support::agent_process();
}

fn leader(set: &Set) -> usize {
    set.number(&set.record().leader)
}

/// Makes a slot that follows failovers.
fn make_slot(set: &Set, name: &str) {
    set.sql(&format!(
        "SELECT pg_create_logical_replication_slot('{name}', 'test_decoding', false, false, true)"
    ))
    .unwrap();
}

/// Whether every standby has a copy of a slot that is good for a failover, at least as far as the subscriber has confirmed.
fn copied(set: &Set, slot: &str) -> bool {
    let Ok(confirmed) = set.sql(&format!(
        "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{slot}'"
    )) else {
        return false;
    };
    let good = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}' AND synced AND NOT temporary \
         AND invalidation_reason IS NULL AND confirmed_flush_lsn >= '{confirmed}'"
    );
    (0..set.names.len())
        .filter(|n| *n != leader(set))
        .all(|n| set.sql_on(&address(n), &good).is_ok_and(|count| count == "1"))
}

/// The rows that a subscriber gets and confirms: all, or those of the next transaction.
fn take(set: &Set, slot: &str, all: bool) -> Result<Vec<u32>, String> {
    let most = if all { "NULL" } else { "1" };
    let text = set.sql(&format!(
        "SET statement_timeout = '8s'; SELECT data FROM pg_logical_slot_get_changes('{slot}', NULL, {most})"
    ))?;
    let rows = text.lines().filter_map(|line| line.rsplit_once("v[integer]:"));
    Ok(rows.map(|(_, v)| v.trim().parse().unwrap()).collect())
}

/// Writes rows in one transaction, as soon as somebody takes them.
fn write(set: &Set, rows: std::ops::RangeInclusive<u32>) {
    let (from, to) = (rows.start(), rows.end());
    let took = set.until("writes", Duration::from_secs(60), |s| {
        s.sql(&format!(
            "INSERT INTO t SELECT generate_series({from}, {to}) ON CONFLICT DO NOTHING"
        ))
        .is_ok()
    });
    eprintln!("rows {from} to {to} written after {took:?}");
}

/// A subscriber that streams, as a subscription does.
fn stream(set: &Set, slot: &str) -> Child {
    let to = set.endpoints()["rw"].as_str().unwrap().to_owned();
    Command::new(program("pg_recvlogical"))
        .args(["--start", "--no-loop", "-S", slot, "-f", "-", "-d", &set.url(&to)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

const BOOTSTRAP: &str = "ALTER ROLE app REPLICATION; GRANT EXECUTE ON FUNCTION pg_log_standby_snapshot() TO app;";

/// Waits until a slot is good on all standbys. A new copy gets there only while the primary writes and the subscriber reads.
fn until_copied(set: &Set, slot: &str, reads: bool) {
    let took = set.until(&format!("{slot} copied"), Duration::from_secs(90), |s| {
        if reads {
            let read = s
                .sql("SELECT pg_log_standby_snapshot()")
                .and_then(|_| take(s, slot, true));
            assert_eq!(read.unwrap_or_default(), Vec::<u32>::new());
        }
        copied(s, slot)
    });
    eprintln!("{slot} is good on all standbys after {took:?}");
}

/// Over a crash and a switchover back, a subscriber gets each row that it had not confirmed, once and in order; slots of a
/// former primary give way to copies; a standby that is away stops nobody; and nobody gets what could still be lost.
#[test]
#[ignore = "needs PostgreSQL 17 or later: make test-engine-17"]
fn a_subscriber_misses_nothing_over_failovers_and_never_has_what_could_be_lost() {
    let mut set = Set::begin_with(3, 2, &[("wal_level", "logical")], BOOTSTRAP);
    set.until("all in the rule", Duration::from_secs(60), Set::led_by_all);
    set.until("a table", Duration::from_secs(60), |s| {
        s.sql("CREATE TABLE IF NOT EXISTS t (v int PRIMARY KEY)").is_ok()
    });
    set.sql("CREATE PUBLICATION p FOR TABLE t").unwrap();
    make_slot(&set, "sub");
    set.sql("SELECT pg_create_logical_replication_slot('stays_behind', 'test_decoding')")
        .unwrap();
    write(&set, 1..=10);
    assert_eq!(take(&set, "sub", true).unwrap(), (1..=10).collect::<Vec<_>>());
    until_copied(&set, "sub", true);
    write(&set, 11..=15);
    write(&set, 16..=20);
    assert_eq!(take(&set, "sub", false).unwrap(), (11..=15).collect::<Vec<_>>());
    until_copied(&set, "sub", false);

    // The primary vanishes: what was not confirmed comes from the new one, and what it writes after that.
    let first = leader(&set);
    set.kill_agent(first);
    set.kill_engine(first);
    write(&set, 21..=25);
    assert_ne!(leader(&set), first);
    assert_eq!(take(&set, "sub", true).unwrap(), (16..=25).collect::<Vec<_>>());

    // It comes back: what it had as a primary gives way to copies, also of a slot made meanwhile.
    make_slot(&set, "late");
    set.start_agent(first);
    set.until("all in the rule", Duration::from_secs(60), Set::led_by_all);
    until_copied(&set, "sub", true);
    until_copied(&set, "late", true);
    write(&set, 26..=30);
    assert_eq!(take(&set, "late", true).unwrap(), (26..=30).collect::<Vec<_>>());
    until_copied(&set, "late", false);
    let slots = set
        .sql_on(
            &address(first),
            "SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots",
        )
        .unwrap();
    assert_eq!(slots, "late sub");

    // Switched back to it, with a subscriber that streams. The one that steps down made `late` itself and follows without a
    // rewind: its slot must not be in the way.
    write(&set, 31..=35);
    let mut streaming = stream(&set, "late");
    std::thread::sleep(Duration::from_secs(1));
    assert!(streaming.try_wait().unwrap().is_none(), "a subscriber streams");
    let second = leader(&set);
    set.switch_over(first);
    let took = set.until("switched over", Duration::from_secs(60), |s| {
        leader(s) == first && s.led_by_all()
    });
    eprintln!("switched over in {took:?} with a subscriber that streams");
    let _ = streaming.kill();
    let _ = streaming.wait();
    write(&set, 36..=40);
    assert_eq!(take(&set, "sub", true).unwrap(), (26..=40).collect::<Vec<_>>());
    let late = take(&set, "late", true).unwrap();
    assert!(late.ends_with(&[36, 37, 38, 39, 40]), "{late:?}");
    until_copied(&set, "late", true);
    let own = "SELECT bool_and(synced) FROM pg_replication_slots WHERE slot_type = 'logical'";
    assert_eq!(set.sql_on(&address(second), own).unwrap(), "t");

    // The standby that subscribers are kept behind goes away: they go on behind the other one.
    let behind = set.sql("SHOW synchronized_standby_slots").unwrap();
    let away = set.names.iter().position(|n| n.replace('-', "_") == behind).unwrap();
    set.kill_agent(away);
    set.kill_engine(away);
    write(&set, 41..=45);
    let took = set.until("a subscriber goes on", Duration::from_secs(60), |s| {
        take(s, "sub", true).is_ok_and(|rows| rows == (41..=45).collect::<Vec<_>>())
    });
    eprintln!("a subscriber has what was written without the standby after {took:?}");

    // No standby at all: a commit waits, and no subscriber has it before its client.
    let other = (0..3).find(|n| *n != away && *n != first).unwrap();
    set.kill_agent(other);
    set.kill_engine(other);
    let mut waits = Command::new(program("psql"))
        .args(["-XAtqc", "INSERT INTO t VALUES (46)", &set.url(&address(first))])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    set.until("its record is in the log", Duration::from_secs(60), |s| {
        s.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
            .is_ok_and(|n| n != "0")
    });
    let early = take(&set, "sub", true);
    assert!(
        early.as_ref().is_err_and(|e| e.contains("statement timeout")),
        "{early:?}"
    );
    assert!(waits.try_wait().unwrap().is_none(), "the commit waits");
    set.start_agent(other);
    set.start_agent(away);
    set.until("all in the rule", Duration::from_secs(60), Set::led_by_all);
    assert!(waits.wait().unwrap().success());
    write(&set, 47..=50);
    let rows = take(&set, "sub", true).unwrap();
    assert_eq!(rows, (46..=50).collect::<Vec<_>>());

    // A primary is drained while a subscriber streams: it does not wait for that.
    let mut streaming = stream(&set, "late");
    std::thread::sleep(Duration::from_secs(1));
    let third = leader(&set);
    let took = set.stop_agent(third);
    let _ = streaming.kill();
    let _ = streaming.wait();
    assert!(took < Duration::from_secs(20), "drained in {took:?}");
    write(&set, 51..=55);
    let rows = take(&set, "sub", true).unwrap();
    assert!(rows.ends_with(&[51, 52, 53, 54, 55]), "{rows:?}");
}
