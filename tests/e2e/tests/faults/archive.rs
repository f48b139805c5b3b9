//! All log reaches the archive over a failover, and nothing that is there is ever changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_e2e::house::wait_for;
use holdfast_e2e::sql::Access;
use holdfast_e2e::{House, Set, Writers};
use serde_json::Value;

use crate::one_house::house;

const NAMESPACE: &str = "archive";
const START: Duration = Duration::from_secs(240);
/// An archiver that has failed tries again after a minute; an agent tells it after half a minute at the latest.
const SAID: Duration = Duration::from_secs(180);
/// The user that engines run as where nobody says otherwise.
const UID: u32 = 26;

/// A claim on a folder that all nodes of the bed share, because they share the machine's disk.
fn claim(house: &House) -> PathBuf {
    let folder = Path::new("/tmp").join(format!("holdfast-{NAMESPACE}-{}", house.bed.name()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    // A hostPath has no fsGroup.
    std::os::unix::fs::chown(&folder, Some(UID), Some(UID)).unwrap();
    let gone = [
        "delete",
        "pv",
        "holdfast-archive",
        "--ignore-not-found",
        "--timeout=60s",
    ];
    house.kubectl(&gone).unwrap();
    house
        .apply(&format!(
            "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: holdfast-archive}}, spec: {{capacity: {{storage: 1Gi}}, \
             accessModes: [ReadWriteMany], persistentVolumeReclaimPolicy: Retain, storageClassName: '', \
             claimRef: {{namespace: {NAMESPACE}, name: wal}}, hostPath: {{path: '{}', type: Directory}}}}}}\n---\n\
             {{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: wal, namespace: {NAMESPACE}}}, spec: {{\
             accessModes: [ReadWriteMany], storageClassName: '', volumeName: holdfast-archive, \
             resources: {{requests: {{storage: 1Gi}}}}}}}}",
            folder.display()
        ))
        .unwrap();
    folder
}

/// Every file of the log in the archive, with its bytes.
fn archived(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap();
    let files = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        // Unfinished ones begin with a dot.
        (!name.starts_with('.')).then(|| std::fs::read(entry.path()).map(|bytes| (name, bytes)).unwrap())
    });
    files.collect()
}

/// What the condition `Archiving` says: status and message.
fn said(set: &Set<'_>) -> (String, String) {
    let object = set.object().unwrap();
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array).cloned();
    let archiving = conditions.into_iter().flatten().find(|c| c["type"] == "Archiving");
    let text = |field: &str| {
        archiving
            .as_ref()
            .and_then(|c| c[field].as_str())
            .unwrap_or("")
            .to_owned()
    };
    (text("status"), text("message"))
}

fn wait_said(set: &Set<'_>, status: &str, part: &str) {
    wait_for(&format!("Archiving is {status}"), SAID, || {
        let (now, message) = said(set);
        Ok(if now == status && message.contains(part) {
            Ok(())
        } else {
            Err(format!("{now}: {message}"))
        })
    })
    .unwrap();
}

/// Fills some segments of 4 MiB.
fn fill(rw: &Access) {
    let sql = "create table if not exists bulk(t text); truncate bulk; \
               insert into bulk select repeat(md5(n::text), 10) from generate_series(1, 30000) n";
    wait_for("rows", Duration::from_secs(60), || {
        Ok(rw.query(sql).map(drop).map_err(|error| format!("{error:#}")))
    })
    .unwrap();
}

fn run(house: &'static House) {
    let folder = claim(house);
    let set = Set::apply(house, NAMESPACE, "db", 3, "archive: {volumeClaimName: wal}").unwrap();
    set.wait_ready(START).unwrap();
    let rw = Access::to(&set, "rw").unwrap();
    let writers = Writers::start(rw.clone(), 4).unwrap();
    fill(&rw);

    let (old, term) = (set.primary().unwrap(), set.status("/term").unwrap());
    house.bed.kill(NAMESPACE, &old, "postgres").unwrap();
    wait_for("another leads", Duration::from_secs(60), || {
        let now = set.status("/term")?;
        Ok(if now == term || set.primary()?.is_empty() {
            Err(now)
        } else {
            Ok(())
        })
    })
    .unwrap();
    set.wait_ready(START).unwrap();
    fill(&rw);
    wait_said(&set, "True", "");

    let log = folder
        .join(format!("{NAMESPACE}.db"))
        .join(set.status("/systemIdentifier").unwrap());
    let timeline: u32 = set.status("/term").unwrap().parse().unwrap();
    let both = [term.parse().unwrap(), timeline].map(|t: u32| format!("{t:08X}"));
    wait_for("log of both timelines is there", SAID, || {
        let all = archived(&log);
        let has = |t: &String| all.keys().any(|name| name.len() == 24 && name.starts_with(t));
        let history = all.contains_key(&format!("{timeline:08X}.history"));
        Ok(if history && both.iter().all(has) {
            Ok(())
        } else {
            Err(format!("{:?}", all.keys()))
        })
    })
    .unwrap();
    let before = archived(&log);
    fill(&rw);
    wait_said(&set, "True", "");
    let after = archived(&log);
    for (name, bytes) in &before {
        assert!(after.get(name) == Some(bytes), "{name} has changed");
    }

    // Somebody's file has the name of the segment that is being written.
    let name = rw.query("select pg_walfile_name(pg_current_wal_insert_lsn())").unwrap();
    let planted = log.join(&name);
    assert!(!planted.exists(), "{name} is archived already");
    std::fs::write(&planted, "planted").unwrap();
    let acknowledged = writers.acknowledged();
    fill(&rw);
    wait_said(&set, "False", &name);
    assert_eq!(std::fs::read(&planted).unwrap(), b"planted");
    assert!(writers.acknowledged() > acknowledged, "the database goes on");
    set.wait_ready(START).unwrap();

    std::fs::rename(&planted, folder.join("planted")).unwrap();
    // The archiver is woken by the next segment.
    fill(&rw);
    wait_said(&set, "True", "");
    let found = archived(&log);
    assert!(
        found.get(&name).is_some_and(|bytes| bytes.len() == 4 << 20),
        "{name} is whole"
    );
    for (name, bytes) in &after {
        assert!(found.get(name) == Some(bytes), "{name} has changed");
    }
    let verdict = writers.finish().unwrap();
    assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
    eprintln!(
        "  {} files archived, {} rows acknowledged",
        found.len(),
        verdict.acknowledged
    );
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_failover_leaves_no_hole_in_the_archive_and_what_is_there_is_never_changed() {
    house().namespace(NAMESPACE).unwrap();
    if let Err(panic) = std::panic::catch_unwind(|| run(house())) {
        house().dump(NAMESPACE);
        std::panic::resume_unwind(panic);
    }
    house()
        .kubectl(&["delete", "namespace", NAMESPACE, "--wait=true", "--timeout=180s"])
        .unwrap();
    house()
        .kubectl(&["delete", "pv", "holdfast-archive", "--ignore-not-found"])
        .unwrap();
}
