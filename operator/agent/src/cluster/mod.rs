//! What the agent keeps in the cluster: record, wish, status, traffic, Events.

mod events;
mod folder;
mod lease;
mod pod;
mod slices;
mod spec;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use holdfast_core::failover::{MemberName, Record};
use holdfast_core::instance::{CasOutcome, Endpoints, Event, RecordSeen, Version, Why};
use holdfast_wire::MemberStatus;
use kube::{Client, Config};

use self::lease::Refused;
use crate::options::{ClusterKind, Options};
use crate::shell::Inbox;

/// How long one call about the record may take. Shorter than half of the fence time, so that a leader has several tries.
pub(crate) const RECORD_DEADLINE: Duration = Duration::from_millis(1000);

/// Pause after a write of the record that is refused, before the machine hears of it: it reads and writes again at once.
const REFUSED: Duration = Duration::from_millis(500);

/// The cluster, or a folder in its place.
pub enum Cluster {
    /// Kubernetes.
    Kubernetes(Box<Kubernetes>),
    /// A shared folder.
    Folder(folder::Folder),
}

/// What calls to Kubernetes need.
pub struct Kubernetes {
    /// For record and fencing: fails at once instead of trying again for minutes.
    pub(crate) strict: Client,
    /// For everything that may wait.
    pub(crate) patient: Client,
    pub(crate) options: Arc<Options>,
    pub(crate) lease: lease::LeaseStore,
    pub(crate) recorder: events::Events,
}

impl Cluster {
    /// Connects. Does not need an answer: a rebooted node may start before its API server.
    pub fn new(options: &Arc<Options>) -> anyhow::Result<Cluster> {
        match &options.cluster {
            ClusterKind::Folder(dir) => Ok(Cluster::Folder(folder::Folder::new(dir.clone(), options))),
            ClusterKind::Kubernetes => {
                let mut config = Config::incluster().context("in-cluster configuration")?;
                config.connect_timeout = Some(Duration::from_secs(2));
                config.default_retry = false;
                let strict = holdfast_kube::connect(config.clone()).context("Kubernetes client")?;
                config.default_retry = true;
                let patient = holdfast_kube::connect(config).context("Kubernetes client")?;
                Ok(Cluster::Kubernetes(Box::new(Kubernetes {
                    lease: lease::LeaseStore::new(strict.clone(), options),
                    recorder: events::Events::new(patient.clone(), options),
                    strict,
                    patient,
                    options: Arc::clone(options),
                })))
            }
        }
    }

    /// Tells what changes in the cluster, for as long as the agent runs.
    pub fn watch(self: &Arc<Self>, inbox: &Inbox) {
        match &**self {
            Cluster::Kubernetes(k) => {
                tokio::spawn(lease::watch(k.patient.clone(), Arc::clone(&k.options), inbox.clone()));
                tokio::spawn(spec::watch(k.patient.clone(), Arc::clone(&k.options), inbox.clone()));
            }
            Cluster::Folder(_) => {
                tokio::spawn(folder::watch(Arc::clone(self), inbox.clone()));
            }
        }
    }

    /// Reads the record: one call, one answer, by the deadline.
    pub async fn read_record(&self) -> RecordSeen {
        let read = async {
            match self {
                Cluster::Kubernetes(k) => k.lease.read().await,
                Cluster::Folder(f) => f.read_record(),
            }
        };
        tokio::time::timeout(RECORD_DEADLINE, read)
            .await
            .unwrap_or(RecordSeen::Unreachable)
    }

    /// Replaces the record if it is still at `expect`.
    pub async fn write_record(&self, expect: Version, record: Record) -> CasOutcome {
        let write = async {
            match self {
                Cluster::Kubernetes(k) => k.lease.write(expect, record).await,
                Cluster::Folder(f) => Ok(f.write_record(&expect, &record)),
            }
        };
        outcome(write).await
    }

    /// Moves the traffic; tries until written or until a later leader has written. Dropped when superseded.
    pub async fn publish(&self, endpoints: &Endpoints, addresses: &BTreeMap<MemberName, String>) {
        match self {
            Cluster::Kubernetes(k) => slices::publish(k, endpoints, addresses).await,
            Cluster::Folder(f) => f.publish(endpoints, addresses),
        }
    }

    /// Writes this member's status.
    pub async fn report(&self, status: &MemberStatus) -> anyhow::Result<()> {
        match self {
            Cluster::Kubernetes(k) => pod::report(k, status).await,
            Cluster::Folder(f) => f.report(status),
        }
    }

    /// Tells people. That it fails never matters.
    pub async fn tell(&self, why: &Why) {
        if let Cluster::Kubernetes(k) = self {
            k.recorder.tell(why).await;
        }
    }
}

/// What became of a write, by the deadline. The pause after one that is refused does not count: a server that is slow to refuse
/// has answered all the same.
async fn outcome(write: impl Future<Output = Result<CasOutcome, Refused>>) -> CasOutcome {
    match tokio::time::timeout(RECORD_DEADLINE, write).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(Refused)) => {
            tokio::time::sleep(REFUSED).await;
            CasOutcome::Conflict
        }
        Err(_) => CasOutcome::Unknown,
    }
}

/// Hands an event to the machine.
pub(crate) fn hand(inbox: &Inbox, event: Event) {
    // The loop ends only with the process.
    let _ = inbox.send(crate::shell::Input::Event(event));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_refusal_is_one_and_the_next_try_does_not_follow_at_once() {
        let begun = std::time::Instant::now();
        let late = RECORD_DEADLINE - Duration::from_millis(300);
        let refused = async {
            tokio::time::sleep(late).await;
            Err(Refused)
        };
        assert_eq!(outcome(refused).await, CasOutcome::Conflict);
        assert!(begun.elapsed() >= late + REFUSED, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_write_without_an_answer_is_unknown() {
        assert_eq!(outcome(std::future::pending()).await, CasOutcome::Unknown);
    }
}
