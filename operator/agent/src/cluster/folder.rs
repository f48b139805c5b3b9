//! A folder in the cluster's place: several agents on one machine share it. For tests and for trying things out.
//!
//! `record.json` is the record with its version, `spec.json` the wish, `<member>.status.json` and `endpoints.json` what agents
//! write. A file `<member>.cut` makes the folder unreachable for that member.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::failover::{MemberName, Record};
use holdfast_core::instance::{CasOutcome, Endpoints, Event, RecordSeen, Version};
use holdfast_wire::MemberStatus;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{Cluster, hand};
use crate::options::Options;
use crate::shell::{Inbox, Input};

/// The shared folder.
pub struct Folder {
    dir: PathBuf,
    member: MemberName,
}

/// The record with its version.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: u64,
    record: Record,
}

impl Folder {
    pub(super) fn new(dir: PathBuf, options: &Options) -> Folder {
        Folder {
            dir,
            member: options.member.clone(),
        }
    }

    fn cut(&self) -> bool {
        self.dir.join(format!("{}.cut", self.member)).exists()
    }

    fn kept(&self) -> std::io::Result<Kept> {
        let bytes = std::fs::read(self.dir.join("record.json"))?;
        serde_json::from_slice(&bytes).map_err(std::io::Error::other)
    }

    fn write(&self, name: &str, value: &impl Serialize) -> std::io::Result<()> {
        let bytes = serde_json::to_vec_pretty(value)?;
        let new = self.dir.join(format!("{name}.{}.new", self.member));
        std::fs::write(&new, bytes)?;
        std::fs::rename(&new, self.dir.join(name))
    }

    pub(super) fn read_record(&self) -> RecordSeen {
        if self.cut() {
            return RecordSeen::Unreachable;
        }
        match self.kept() {
            Ok(k) => RecordSeen::Found {
                record: k.record,
                version: Version(k.version.to_string()),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => RecordSeen::Absent,
            Err(_) => RecordSeen::Unreachable,
        }
    }

    pub(super) fn write_record(&self, expect: &Version, record: &Record) -> CasOutcome {
        if self.cut() {
            return CasOutcome::Unknown;
        }
        let Ok(lock) = std::fs::File::create(self.dir.join("lock")) else {
            return CasOutcome::Unknown;
        };
        let Ok(_held) = Flock::lock(lock, FlockArg::LockExclusive) else {
            return CasOutcome::Unknown;
        };
        match self.kept() {
            Ok(k) if k.version.to_string() == expect.0 => {
                let next = Kept {
                    version: k.version + 1,
                    record: record.clone(),
                };
                match self.write("record.json", &next) {
                    Ok(()) => CasOutcome::Written {
                        version: Version(next.version.to_string()),
                    },
                    Err(_) => CasOutcome::Unknown,
                }
            }
            Ok(_) => CasOutcome::Conflict,
            Err(_) => CasOutcome::Unknown,
        }
    }

    pub(super) fn publish(&self, endpoints: &Endpoints, addresses: &BTreeMap<MemberName, String>) {
        let of = |m: &MemberName| addresses.get(m).cloned();
        let value = serde_json::json!({
            "term": endpoints.term,
            "rw": endpoints.rw.as_ref().and_then(of),
            "ro": endpoints.ro.iter().filter_map(of).collect::<Vec<_>>(),
            "r": endpoints.r.iter().filter_map(of).collect::<Vec<_>>(),
        });
        if let Err(e) = self.write("endpoints.json", &value) {
            tracing::warn!("traffic not moved: {e}");
        }
    }

    pub(super) fn report(&self, status: &MemberStatus) -> anyhow::Result<()> {
        Ok(self.write(&format!("{}.status.json", self.member), status)?)
    }
}

/// Tells changes of wish and record, by looking.
pub(super) async fn watch(cluster: Arc<Cluster>, inbox: Inbox) {
    let Cluster::Folder(folder) = &*cluster else { return };
    let (mut spec, mut record) = (Vec::new(), RecordSeen::Unreachable);
    loop {
        if !folder.cut() {
            if let Ok(bytes) = std::fs::read(folder.dir.join("spec.json"))
                && bytes != spec
                && let Ok(wish) = serde_json::from_slice(&bytes)
            {
                spec = bytes;
                let _ = inbox.send(Input::Spec(wish));
            }
            let seen = folder.read_record();
            if seen != record {
                record = seen.clone();
                hand(&inbox, Event::RecordHint(seen));
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
