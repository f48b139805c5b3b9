//! The operator is upgraded, then removed, then comes back, and no database notices.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use holdfast_e2e::house::{SOON, SYSTEM, run, wait_for};
use holdfast_e2e::sql::Access;
use holdfast_e2e::{House, Set, System, Writers, trial};

use crate::one_house::house;

const NAMESPACE: &str = "upgrade";
const START: Duration = Duration::from_secs(240);

#[test]
#[ignore = "needs root and a bed: make test"]
fn an_upgrade_restarts_no_database_and_an_uninstall_leaves_kinds_databases_and_data() {
    let house = house();
    house.namespace(NAMESPACE).unwrap();
    let lived = catch_unwind(AssertUnwindSafe(|| lives_without_noticing(house)));
    if lived.is_err() {
        house.dump(NAMESPACE);
    }
    // The program of before, whichever is there now: the other tests need it.
    house.install(&[]).unwrap();
    match lived {
        Ok(()) => drop(
            house
                .kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"])
                .unwrap(),
        ),
        Err(panic) => resume_unwind(panic),
    }
}

fn lives_without_noticing(house: &House) {
    let set = Set::apply(house, NAMESPACE, "db", 3, "").unwrap();
    set.wait_ready(START).unwrap();
    let rw = set.access().unwrap();
    rw.query("create table kept(x int); insert into kept values (42)")
        .unwrap();
    let writers = Writers::start(set.access().unwrap(), 4).unwrap();
    trial::more_rows(&writers, 200).unwrap();

    let before = Seen::of(&set, &rw);
    let next = house.next_version().unwrap();
    next.install(&[]).unwrap();
    works_for(&set, &rw, "16MB");
    trial::more_rows(&writers, 200).unwrap();
    before.is_still(&set, &rw);
    takes_the_new_agent_when_it_is_next_made(&set, house, &next);

    let before = Seen::of(&set, &rw);
    for release in ["holdfast", "holdfast-crds"] {
        run(house
            .program("helm")
            .unwrap()
            .args(["uninstall", release, "-n", SYSTEM, "--wait", "--timeout=120s"]))
        .unwrap();
    }
    let operators = [
        "-n",
        SYSTEM,
        "get",
        "deployments,pods",
        "-l",
        "app.kubernetes.io/name=holdfast",
        "-o",
        "name",
    ];
    wait_for("no operator is there", SOON, || {
        let left = house.kubectl(&operators)?;
        Ok(if left.trim().is_empty() { Ok(()) } else { Err(left) })
    })
    .unwrap();
    trial::more_rows(&writers, 200).unwrap();
    before.is_still(&set, &rw);
    let left = ["get", "crd,hrs,pvc,secret", "-A", "-o", "name"];
    let left = house.kubectl(&left).unwrap();
    for kept in [
        "customresourcedefinition.apiextensions.k8s.io/hareplicasets.holdfast.dev",
        "customresourcedefinition.apiextensions.k8s.io/gitsources.holdfast.dev",
        "hareplicaset.holdfast.dev/db",
        "persistentvolumeclaim/db-1",
        "persistentvolumeclaim/db-2",
        "persistentvolumeclaim/db-3",
        "secret/db-app",
        "secret/db-ca",
    ] {
        assert!(left.lines().any(|line| line == kept), "{kept} is gone:\n{left}");
    }
    // Status is nobody's now: whom the fault hits is read from the members' own record.
    let record = set.record().unwrap();
    let leader = record.leader.to_string();
    house.bed.kill(NAMESPACE, &leader, "postgres").unwrap();
    trial::more_rows(&writers, 200).unwrap();
    wait_for("the members have elected anew", SOON, || {
        let now = set.record()?.term;
        Ok(if now > record.term {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        })
    })
    .unwrap();

    house.install(&[]).unwrap();
    set.wait_ready(START).unwrap();
    works_for(&set, &rw, "24MB");
    assert_eq!(rw.query("select x from kept").unwrap(), "42");
    let verdict = writers.finish().unwrap();
    eprintln!(
        "  {} rows acknowledged, {} unknown",
        verdict.acknowledged, verdict.unknown
    );
    assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
}

/// What a restart would change.
#[derive(Debug, PartialEq)]
struct Seen {
    containers: String,
    /// When each member's engine began, unless a leader was lost, as one is that gets no processor for two seconds: how often members
    /// told of that.
    engines: Vec<String>,
    elections: u64,
}

impl Seen {
    fn of(set: &Set<'_>, rw: &Access) -> Seen {
        let began = |pod: &str| {
            rw.at(&set.address(pod)?)?
                .query("select pg_postmaster_start_time()::text")
        };
        Seen {
            containers: set.containers().unwrap(),
            engines: ["db-1", "db-2", "db-3"].map(|pod| began(pod).unwrap()).to_vec(),
            elections: set.elections_told().unwrap(),
        }
    }

    /// No Pod is another one, no container and no engine began anew.
    fn is_still(&self, set: &Set<'_>, rw: &Access) {
        let now = Seen::of(set, rw);
        assert_eq!(now.containers, self.containers);
        if now.elections == self.elections {
            assert_eq!(now.engines, self.engines);
        } else {
            eprintln!("  a leader was lost meanwhile: engines are not compared");
        }
    }
}

/// The operator that is there now carries out what is asked of it.
fn works_for(set: &Set<'_>, rw: &Access, work_mem: &str) {
    set.set_parameters(&format!("{{\"work_mem\": {work_mem:?}}}")).unwrap();
    wait_for(&format!("work_mem is {work_mem}"), START, || {
        let now = rw.query("show work_mem")?;
        Ok(if now == work_mem { Ok(()) } else { Err(now) })
    })
    .unwrap();
}

/// Members of both versions are one set.
fn takes_the_new_agent_when_it_is_next_made(set: &Set<'_>, old: &House, new: &House) {
    let agent = |pod: &str| -> anyhow::Result<String> {
        let path = "jsonpath={.spec.initContainers[0].image}";
        let image = set.house.kubectl(&["-n", NAMESPACE, "get", "pod", pod, "-o", path])?;
        Ok(digest(&image).to_owned())
    };
    let replica = set.replica().unwrap();
    assert_eq!(agent(&replica).unwrap(), digest(&old.image));
    set.house
        .kubectl(&["-n", NAMESPACE, "delete", "pod", &replica, "--wait", "--timeout=120s"])
        .unwrap();
    wait_for(&format!("{replica} has the new agent"), START, || {
        let now = agent(&replica)?;
        Ok(if now == digest(&new.image) { Ok(()) } else { Err(now) })
    })
    .unwrap();
    set.wait_ready(START).unwrap();
    let primary = System::primary(set).unwrap();
    assert_eq!(agent(&primary).unwrap(), digest(&old.image));
}

fn digest(image: &str) -> &str {
    image.rsplit_once('@').map_or("none", |(_, digest)| digest)
}
