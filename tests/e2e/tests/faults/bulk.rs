//! A primary that dies while much is loaded and nobody commits: flushes end in the midst of a record then.

use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use holdfast_e2e::Set;
use holdfast_e2e::house::wait_for;
use holdfast_e2e::sql::Access;

use crate::one_house::house;

const NAMESPACE: &str = "bulk";
const READY: Duration = Duration::from_secs(240);
/// How often, since a flush may end with a whole record, too.
const TIMES: usize = 3;
/// Some 400 bytes a row, 170 MB in all, for which a volume has room beside its log, in one transaction that outlives the
/// primary.
const LOAD: &str =
    "insert into load select repeat(md5(i::text), 12) from generate_series(1, 400000) i; select pg_sleep(300)";
/// The primary dies when it has written so many bytes of log, a good third of it: in the midst of the load.
const INTO_THE_LOAD: u64 = 64 << 20;

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
        let (old, term) = (set.primary().unwrap(), set.term().unwrap());
        let from = rw.query("select pg_current_wal_lsn()").unwrap();
        let load = {
            let rw = rw.clone();
            std::thread::spawn(move || rw.query(LOAD))
        };
        let written = format!("select pg_current_wal_lsn() - '{from}' > {INTO_THE_LOAD}");
        wait_for("much is loaded", Duration::from_secs(120), || {
            let much = rw.query(&written)?;
            Ok(if much == "t" { Ok(()) } else { Err(much) })
        })
        .unwrap();
        let begun = Instant::now();
        // Not as a fault, which would first ask for names while the load goes on.
        house().bed.kill(NAMESPACE, &old, "postgres").unwrap();
        wait_for("a write", Duration::from_secs(120), || {
            // It may have been done although its answer was lost.
            let wrote = rw.query(&format!("create table if not exists after_{round} as select {round}"));
            Ok(wrote.map_err(|error| format!("{error:#}")))
        })
        .unwrap();
        eprintln!(
            "  round {round}: the first write after {:.2} s",
            begun.elapsed().as_secs_f32()
        );
        load.join().unwrap().unwrap_err();
        set.wait_term_after(term).unwrap();
        set.wait_ready(READY).unwrap();
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
