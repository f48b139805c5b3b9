//! A primary that dies while much is loaded and nobody commits: flushes end in the midst of a record then.

use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use holdfast_e2e::Set;
use holdfast_e2e::fault::Fault;
use holdfast_e2e::house::wait_for;
use holdfast_e2e::sql::Access;

use crate::one_house::house;

const NAMESPACE: &str = "bulk";
const READY: Duration = Duration::from_secs(240);
/// How often, since a flush may end with a whole record, too.
const TIMES: usize = 3;
/// Some 400 bytes a row, in one transaction that outlives the primary.
const LOAD: &str = "insert into load select repeat(md5(i::text), 12) from generate_series(1, 3000000) i";

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_primary_that_dies_while_much_is_loaded() {
    let house = house();
    house.namespace(NAMESPACE).unwrap();
    let set = Set::apply(house, NAMESPACE, "db", 3, "").unwrap();
    let result = catch_unwind(|| goes_on(&set));
    if result.is_err() {
        house.dump(NAMESPACE);
    }
    house
        .kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"])
        .unwrap();
    result.unwrap();
}

fn goes_on(set: &Set<'_>) {
    set.wait_ready(READY).unwrap();
    let rw = Access::to(set, "rw").unwrap();
    rw.query("create table load(row text)").unwrap();
    for round in 1..=TIMES {
        rw.query(&format!("create table kept_{round} as select {round}"))
            .unwrap();
        let old = set.primary().unwrap();
        let load = {
            let rw = rw.clone();
            std::thread::spawn(move || rw.query(LOAD))
        };
        // The volume is small.
        std::thread::sleep(Duration::from_millis(1_500));
        let begun = Instant::now();
        let injected = Fault::Engine.inject(set).unwrap();
        wait_for("a write", Duration::from_secs(120), || {
            let wrote = rw.query(&format!("create table after_{round} as select {round}"));
            Ok(wrote.map_err(|error| format!("{error:#}")))
        })
        .unwrap();
        eprintln!(
            "  round {round}: the first write after {:.2} s",
            begun.elapsed().as_secs_f32()
        );
        load.join().unwrap().unwrap_err();
        injected.heal(set).unwrap();
        set.wait_ready(READY).unwrap();
        assert_ne!(set.primary().unwrap(), old, "another member leads");
        for table in ["kept", "after"] {
            let found = rw.query(&format!("select * from {table}_{round}")).unwrap();
            assert_eq!(found, round.to_string());
        }
        assert_eq!(
            rw.query("select count(*) from load").unwrap(),
            "0",
            "it was never committed"
        );
        rw.query("truncate load").unwrap();
    }
}
