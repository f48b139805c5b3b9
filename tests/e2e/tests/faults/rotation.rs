//! Certificates that live for minutes: what happens over years, in one test.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_bed::Signal;
use holdfast_e2e::house::{SYSTEM, wait_for};
use holdfast_e2e::sql::Access;
use holdfast_e2e::{House, Set, Writers};
use rand::RngExt;

use crate::one_house::house;

const NAMESPACE: &str = "rotation";
const START: Duration = Duration::from_secs(240);
/// The successor is announced after 100 s, used after 125 s, and the old authority ends after 150 s.
const AUTHORITY: &str = "certificates.authorityLifetime=150s";
/// Renewed after 54 s.
const CERTIFICATE: &str = "certificates.lifetime=81s";
/// A machine that stands still for longer may make members take their leader for lost, and clients give up.
const STANDS_STILL: Duration = Duration::from_millis(1500);

#[test]
#[ignore = "needs root and a bed: make test"]
fn an_authority_ends_and_nobody_notices_though_the_operator_is_killed_again_and_again() {
    let house = house();
    let result = catch_unwind(AssertUnwindSafe(|| {
        house.install(&[AUTHORITY, CERTIFICATE]).unwrap();
        let (noticed, longest) = watched(|| rotation(house));
        if let Err(what) = noticed {
            assert!(longest > STANDS_STILL, "{what}\nthe machine went on all the time");
            eprintln!("  done again, as the machine stood still for {longest:?}: {what}");
            rotation(house).unwrap_or_else(|what| panic!("{what}\nthe second time"));
        }
    }));
    if result.is_err() {
        house.dump(NAMESPACE);
    }
    // Sets of other tests keep the authorities that they have; new ones live long again.
    house.install(&[]).unwrap();
    match result {
        Ok(()) => drop(
            house
                .kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"])
                .unwrap(),
        ),
        Err(panic) => resume_unwind(panic),
    }
}

/// Does something, and says for how long this machine stood still meanwhile, at the longest.
fn watched<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| longest_gap(&over));
        let done = catch_unwind(AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        let longest = watch.join().unwrap();
        (done.unwrap_or_else(|panic| resume_unwind(panic)), longest)
    })
}

fn longest_gap(over: &AtomicBool) -> Duration {
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    longest
}

/// Panics where a promise is broken. What somebody noticed is the error: of a machine that stands still, too, somebody may.
fn rotation(house: &House) -> Result<(), String> {
    house.namespace(NAMESPACE).unwrap();
    let set = Set::apply(house, NAMESPACE, "db", 3, "").unwrap();
    set.wait_ready(START).unwrap();
    let rw = Access::to(&set, "rw").unwrap();
    let first = authority(&set);
    let leads = || (set.primary().unwrap(), set.term().unwrap());
    let before = (set.containers().unwrap(), leads());
    rw.trusting(&first).unwrap().query("select 1").unwrap();
    let leaf = secret(&set, "db-1-tls", "tls.crt");
    // A session that lasts does not see certificates; new ones are the test's own.
    let writers = Writers::start(rw.trusting_anybody().unwrap(), 4).unwrap();

    let over = AtomicBool::new(false);
    let clients = std::thread::scope(|scope| {
        let clients = scope.spawn(|| connects_all_the_time(&set, &rw, &over));
        scope.spawn(|| kills_the_operator(house, &over));
        scope.spawn(|| hurries_the_kubelet(&set, &over));
        // A failed assertion ends the others, too.
        let waited = catch_unwind(AssertUnwindSafe(|| everybody_shows_another(&set, &rw, &first)));
        over.store(true, Ordering::Relaxed);
        waited
            .map(|()| clients.join().unwrap())
            .unwrap_or_else(|panic| resume_unwind(panic))
    });
    eprintln!(
        "  a client that verifies connected {} times; its Secret could not be asked for {} times",
        clients.connected, clients.unanswered
    );
    assert!(clients.connected > 30, "{}", clients.connected);
    // However slow a machine is, a good certificate is not taken for a wrong one.
    let distrusts = |refused: &String| refused.contains("certificate");
    assert!(!clients.refused.iter().any(distrusts), "{:#?}", clients.refused);

    let now = authority(&set);
    assert_ne!(now, first, "the authority is another one");
    assert_ne!(secret(&set, "db-1-tls", "tls.crt"), leaf, "and so are certificates");
    replication_begins_anew(&set, &rw.trusting(&now).unwrap());
    let after = (set.containers().unwrap(), leads());
    assert_eq!(after.0, before.0, "nothing was restarted");
    let verdict = writers.finish().unwrap();
    let longest = verdict.outages.iter().map(|o| o.length()).max().unwrap_or(0);
    eprintln!(
        "  {} rows acknowledged, longest outage {:.2} s",
        verdict.acknowledged,
        Duration::from_micros(longest).as_secs_f32()
    );
    assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
    assert!(verdict.acknowledged > 1000, "{}", verdict.acknowledged);
    if !clients.refused.is_empty() {
        return Err(format!("clients were refused: {:#?}", clients.refused));
    }
    if after.1 != before.1 {
        return Err(format!("{:?} leads, and {:?} did", after.1, before.1));
    }
    Ok(())
}

fn secret(set: &Set<'_>, name: &str, key: &str) -> String {
    let template = format!("go-template={{{{index .data {key:?} | base64decode}}}}");
    let args = ["-n", NAMESPACE, "get", "secret", name, "-o", &template];
    set.house.kubectl(&args).unwrap()
}

/// The certificate of the authority that issues now.
fn authority(set: &Set<'_>) -> String {
    secret(set, "db-ca", "tls.crt")
}

/// Waits until the authority is another one, and each member shows a certificate that it has issued: a client that trusts
/// nothing else can connect to it.
fn everybody_shows_another(set: &Set<'_>, rw: &Access, first: &str) {
    let start = Instant::now();
    wait_for("the authority is another one", START, || {
        let now = authority(set);
        Ok(if now == first {
            Err("the first one".into())
        } else {
            Ok(())
        })
    })
    .unwrap();
    eprintln!(
        "  another authority issues after {:.0} s",
        start.elapsed().as_secs_f32()
    );
    for member in ["db-1", "db-2", "db-3"] {
        let there = rw.at(&set.address(member).unwrap()).unwrap();
        wait_for(
            &format!("{member} shows its certificate"),
            Duration::from_secs(60),
            || {
                let found = there.trusting(&authority(set))?.query("select 1");
                Ok(found.map(drop).map_err(|e| format!("{e:#}")))
            },
        )
        .unwrap();
    }
    eprintln!(
        "  and all show its certificates after {:.0} s",
        start.elapsed().as_secs_f32()
    );
}

#[derive(Default)]
struct Clients {
    connected: usize,
    refused: Vec<String>,
    /// How often the API server, and not the database, gave no answer.
    unanswered: usize,
}

/// `sslmode=verify-full` with the authorities in the application's Secret, read again each time.
fn connects_all_the_time(set: &Set<'_>, rw: &Access, over: &AtomicBool) -> Clients {
    let mut clients = Clients::default();
    let start = Instant::now();
    while !over.load(Ordering::Relaxed) {
        let connected = match set.secret("ca.crt") {
            Ok(bundle) => Some(rw.trusting(&bundle).and_then(|rw| rw.query("select 1"))),
            // A Secret that is gone, or has no such key, is as good as a refusal.
            Err(error) if is_an_answer(&error.to_string()) => Some(Err(error)),
            Err(_) => None,
        };
        match connected {
            None => clients.unanswered += 1,
            Some(Ok(_)) => clients.connected += 1,
            Some(Err(error)) => clients
                .refused
                .push(format!("after {:.0} s: {error:#}", start.elapsed().as_secs_f32())),
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    clients
}

/// Whether kubectl got an answer, by what it said when it failed.
fn is_an_answer(said: &str) -> bool {
    said.contains("(NotFound)") || said.contains("executing template")
}

/// At any moment, so that each step is left half done sooner or later.
fn kills_the_operator(house: &House, over: &AtomicBool) {
    let select = ["-l", "app.kubernetes.io/name=holdfast", "--grace-period=0", "--force"];
    let mut kills = 0;
    while !over.load(Ordering::Relaxed) {
        let pause = Duration::from_millis(rand::rng().random_range(5_000..12_000));
        let next = Instant::now() + pause;
        while Instant::now() < next && !over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = house.kubectl(&[["-n", SYSTEM, "delete", "pod"].as_slice(), &select].concat());
        kills += 1;
    }
    eprintln!("  the operator's Pods were killed {kills} times");
}

/// A kubelet looks after a Pod's Secrets once a minute or so, or when the Pod changes. Lifetimes are short here by some
/// hundred thousand times, and a minute cannot be made shorter.
fn hurries_the_kubelet(set: &Set<'_>, over: &AtomicBool) {
    let mut looks = 0;
    while !over.load(Ordering::Relaxed) {
        looks += 1;
        let note = format!("holdfast.dev/test-look={looks}");
        let args = ["-n", NAMESPACE, "annotate", "pods", "--all", "--overwrite", &note];
        let _ = set.house.kubectl(&args);
        std::thread::sleep(Duration::from_secs(3));
    }
}

/// Standbys whose stream was cut connect again, with certificates of the authority that issues now.
fn replication_begins_anew(set: &Set<'_>, rw: &Access) {
    let primary = set.primary().unwrap();
    let standbys: Vec<&str> = ["db-1", "db-2", "db-3"].into_iter().filter(|m| *m != primary).collect();
    for standby in &standbys {
        set.house
            .bed
            .signal(NAMESPACE, standby, "walreceiver", Signal::SIGTERM)
            .unwrap();
    }
    rw.query("create table anew(x int); insert into anew values (42)")
        .unwrap();
    for standby in standbys {
        let there = rw.at(&set.address(standby).unwrap()).unwrap();
        wait_for(&format!("{standby} streams again"), Duration::from_secs(30), || {
            let found = there.query("select x from anew")?;
            Ok(if found == "42" { Ok(()) } else { Err(found) })
        })
        .unwrap();
    }
}
