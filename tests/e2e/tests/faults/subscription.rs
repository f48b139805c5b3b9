//! A `SUBSCRIPTION` goes on over a switchover and a failover of its publisher. It is made as the users' page on logical
//! replication says, between two sets, and by nobody who is superuser.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use holdfast_e2e::fault::Fault;
use holdfast_e2e::house::wait_for;
use holdfast_e2e::sql::Access;
use holdfast_e2e::{House, Set, System, Writers, trial};

use crate::one_house::house;

const NAMESPACE: &str = "subscription";
const START: Duration = Duration::from_secs(240);
/// A new slot is looked at within 30 s, and its copy is good when the primary's slot has moved on since: that takes a
/// list of running transactions in the log, which there is every 15 s.
const COPIED: Duration = Duration::from_secs(120);
/// A subscriber connects anew five times a second.
const ARRIVES: Duration = Duration::from_secs(60);
const CLIENTS: u32 = 4;

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_subscription_misses_nothing_over_a_switchover_and_a_failover_and_has_nothing_that_was_lost() {
    house().namespace(NAMESPACE).unwrap();
    if let Err(panic) = std::panic::catch_unwind(|| run(house())) {
        house().dump(NAMESPACE);
        std::panic::resume_unwind(panic);
    }
    house()
        .kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"])
        .unwrap();
}

fn run(house: &House) {
    let publisher = set(house, "publisher", 3, "ALTER ROLE app REPLICATION;");
    publisher.set_parameters(r#"{"wal_level": "logical"}"#).unwrap();
    let subscriber = set(house, "subscriber", 1, "GRANT pg_create_subscription TO app;");
    publisher.wait_ready(START).unwrap();
    subscriber.wait_ready(START).unwrap();
    let (from, to) = (publisher.access().unwrap(), subscriber.access().unwrap());
    restarted_for_the_level(&publisher, &from);

    let writers = Writers::start(from.clone(), CLIENTS).unwrap();
    subscribe(&publisher, &from, &to);
    let made = subscription(&to);
    for fault in [Fault::Switchover, Fault::Engine] {
        until_copied(&publisher, &from);
        another_leads(&publisher, &writers, fault);
        let rows = arrives(&from, &to);
        assert_eq!(
            subscription(&to),
            made,
            "nobody touched it, and nothing was copied again"
        );
        eprintln!("  {}: the subscriber has {rows} rows, each once", fault.name());
    }
    // Only now is it known that the publisher has all that it acknowledged: so has the subscriber then.
    let verdict = writers.finish().unwrap();
    assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
    assert!(verdict.acknowledged > 1000, "{}", verdict.acknowledged);
    arrives(&from, &to);
}

/// A set whose bootstrap gives its owner a right.
fn set<'a>(house: &'a House, name: &str, members: u16, right: &str) -> Set<'a> {
    let bootstrap = format!("bootstrap: {{initdb: {{sql: ['{right}']}}}}");
    Set::apply(house, NAMESPACE, name, members, &bootstrap).unwrap()
}

/// Waits until all members run with the level that logical slots need.
fn restarted_for_the_level(set: &Set<'_>, rw: &Access) {
    let level = |member: &str| rw.at(&set.address(member)?)?.query("show wal_level");
    wait_for("every member has the level", START, || {
        let now = ["publisher-1", "publisher-2", "publisher-3"]
            .map(|member| level(member).unwrap_or_else(|e| format!("{e:#}")));
        let all = now.iter().all(|level| level == "logical");
        Ok(if all { Ok(()) } else { Err(now.join(", ")) })
    })
    .unwrap();
    set.wait_ready(START).unwrap();
}

/// Publishes the writers' table and subscribes to it, while they write; waits until what was there is copied.
fn subscribe(publisher: &Set<'_>, from: &Access, to: &Access) {
    from.query("create publication p for table ledger").unwrap();
    // Without a key: a row that comes twice is there twice, and so are all if the table is copied again.
    to.query("create table ledger(id bigint, client int, number bigint)")
        .unwrap();
    let uri = publisher.secret("uri").unwrap();
    // Alone in its message: it makes a slot, which no transaction could take back.
    to.query(&format!(
        "create subscription s connection '{uri}&channel_binding=require&connect_timeout=5' publication p \
         with (failover = true)"
    ))
    .unwrap();
    wait_for("the table is copied", ARRIVES, || {
        let state = to.query("select srsubstate from pg_subscription_rel")?;
        Ok(if state == "r" { Ok(()) } else { Err(state) })
    })
    .unwrap();
}

/// What would be different if the subscription were another, or disabled, or had copied its table again.
fn subscription(to: &Access) -> String {
    let found = to.query(
        "select concat_ws(' ', s.oid, subenabled, srsubstate, srsublsn) \
         from pg_subscription s join pg_subscription_rel on srsubid = s.oid",
    );
    found.unwrap()
}

/// Waits, as its user is told to, until a change of the primary does not lose the slot.
fn until_copied(publisher: &Set<'_>, from: &Access) {
    let sql = "select synced and not temporary and invalidation_reason is null as good \
               from pg_replication_slots where slot_name = 's'";
    let good = |replica: &str| from.at(&publisher.address(replica)?)?.query(sql);
    wait_for("the slot is good on both replicas", COPIED, || {
        let replicas = publisher.replicas()?;
        let found: Vec<String> = replicas
            .iter()
            .map(|replica| good(replica).unwrap_or_else(|e| format!("{e:#}")))
            .collect();
        let both = found.len() == 2 && found.iter().all(|good| good == "t");
        Ok(if both { Ok(()) } else { Err(found.join(", ")) })
    })
    .unwrap();
}

/// Has leadership change while clients write; waits until they do again and all members are fit. Somebody else leads after a
/// switchover; after a failover it may be the old primary, elected again, if it is back soon enough.
fn another_leads(publisher: &Set<'_>, writers: &Writers, fault: Fault) {
    let (old, term) = (publisher.primary().unwrap(), publisher.term().unwrap());
    trial::more_rows(writers, 200).unwrap();
    fault.inject(publisher).unwrap().heal(publisher).unwrap();
    publisher.wait_term_after(term).unwrap();
    if fault == Fault::Switchover {
        wait_for("another member leads", Duration::from_secs(60), || {
            let now = publisher.primary()?;
            Ok(if now.is_empty() || now == old { Err(now) } else { Ok(()) })
        })
        .unwrap();
    }
    trial::more_rows(writers, 200).unwrap();
    publisher.wait_ready(START).unwrap();
}

/// All that the publisher has now comes to the subscriber, each row once, and nothing that the publisher lacks. Gives
/// how many rows the subscriber has.
fn arrives(from: &Access, to: &Access) -> usize {
    let due = rows(from).unwrap();
    let there = wait_for("every row is on the subscriber", ARRIVES, || {
        let there = rows(to)?;
        let missing = lacking(&there, &due).len();
        Ok(if missing == 0 {
            Ok(there)
        } else {
            Err(format!("{missing} of {} are missing", due.len()))
        })
    })
    .unwrap();
    let once: BTreeSet<&String> = there.iter().collect();
    assert_eq!(once.len(), there.len(), "each row is there once");
    // A commit is seen a moment after standbys have it, when the subscriber may have it too. What was lost does not
    // come back, however long this waits.
    wait_for("the publisher has every row too", Duration::from_secs(10), || {
        let has = rows(from)?;
        let lost = lacking(&has, &there);
        Ok(match lost.first() {
            None => Ok(()),
            Some(row) => Err(format!("it lacks {} rows, such as {row}", lost.len())),
        })
    })
    .unwrap();
    there.len()
}

/// Each row by its client and the client's own number for it.
fn rows(of: &Access) -> Result<Vec<String>> {
    let text = of.query("select coalesce(string_agg(client || '.' || number, ' '), '') from ledger")?;
    Ok(text.split_whitespace().map(ToOwned::to_owned).collect())
}

/// Those of `due` that are not there.
fn lacking<'a>(there: &[String], due: &'a [String]) -> Vec<&'a String> {
    let has: BTreeSet<&String> = there.iter().collect();
    due.iter().filter(|row| !has.contains(row)).collect()
}
