//! The whole way: a commit becomes a running database, and the next commit its setting.

use std::time::Duration;

use holdfast_e2e::house::{SOON, wait_for};
use holdfast_e2e::source::{condition, text};
use holdfast_e2e::sql::Access;
use holdfast_e2e::walk::{self, NAMESPACE, SET};
use holdfast_e2e::{Set, Source};

use crate::support::house;

const START: Duration = Duration::from_secs(240);

/// What `make demo` does, with `examples/repository` and `examples/gitsource-ssh.yaml` as they are.
#[test]
#[ignore = "needs root and a bed: make test"]
fn a_commit_becomes_a_running_database_and_the_next_one_its_setting() {
    let house = house();
    let _ = std::fs::remove_dir_all(walk::work(house).unwrap());
    let _ = std::fs::remove_dir_all(house.bed.git().unwrap().path("civil"));
    house
        .kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=180s"])
        .unwrap();
    let commit = walk::repository(house).unwrap();
    let source = Source {
        house,
        namespace: NAMESPACE.into(),
        name: "civil".into(),
    };
    // In force is not healthy: the source says what it waits for, and then that all is well.
    let waits = source.wait_ready_says("WaitsForHealth").unwrap();
    assert!(waits.message.contains(&format!("{NAMESPACE}/{SET}")), "{waits:?}");
    let set = Set::named(house, NAMESPACE, SET);
    set.wait_ready(START).unwrap();
    let status = source
        .wait_within("the source is healthy", SOON, |status| {
            (condition(status, "Ready").status == "True").then(|| status.clone())
        })
        .unwrap();
    assert_eq!(text(&status, "/appliedRevision"), commit);
    let rw = Access::to(&set, "rw").unwrap();
    assert_eq!(
        rw.query("select current_database() || current_user").unwrap(),
        "registryregistry"
    );
    assert_eq!(rw.query("show work_mem").unwrap(), "8MB");
    rw.query("create table entries(x int); insert into entries values (42)")
        .unwrap();

    let file = walk::work(house).unwrap().join("replica-set.yaml");
    let change = |from: &str, to: &str, why: &str| {
        let was = std::fs::read_to_string(&file).unwrap();
        assert!(was.contains(from), "{was}");
        std::fs::write(&file, was.replace(from, to)).unwrap();
        walk::git_in(house, &["commit", "-qam", why]).unwrap();
        walk::git_in(house, &["push", "-q"]).unwrap();
        walk::git_in(house, &["rev-parse", "HEAD"]).unwrap().trim().to_owned()
    };
    let shows = |wanted: &str| {
        wait_for(&format!("psql shows work_mem {wanted}"), SOON, || {
            let now = rw.query("show work_mem")?;
            Ok(if now == wanted { Ok(()) } else { Err(now) })
        })
        .unwrap();
    };
    let more = change("work_mem: 8MB", "work_mem: 16MB", "More work_mem");
    shows("16MB");
    source.wait_applied(&more).unwrap();
    // A bad one is refused whole, and what was good stays in force.
    let bad = change("members: 3", "members: 99", "Far too many");
    let refused = source
        .wait_within("the bad commit is refused", SOON, |status| {
            let ready = condition(status, "Ready");
            let here = text(status, "/fetchedRevision") == bad && ready.status == "False";
            here.then(|| status["problems"].to_string())
        })
        .unwrap();
    for word in ["replica-set.yaml", "spec.members", "99"] {
        assert!(refused.contains(word), "{word}: {refused}");
    }
    assert_eq!(rw.query("show work_mem").unwrap(), "16MB");
    let good = change("members: 99", "members: 3", "As it was");
    source.wait_applied(&good).unwrap();
    set.wait_ready(START).unwrap();
    assert_eq!(rw.query("select x from entries").unwrap(), "42");
    house
        .kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"])
        .unwrap();
}
