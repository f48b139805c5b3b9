//! The authority record in its Lease.

use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use holdfast_core::failover::Record;
use holdfast_core::instance::{CasOutcome, Event, RecordSeen, Version};
use holdfast_wire::{Names, RECORD_ANNOTATION};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Error};

use super::hand;
use crate::options::Options;
use crate::shell::Inbox;

/// The server refuses a write for what it is or who asks. Nothing was written, and the next try would come in the same moment.
pub(super) struct Refused;

/// Reads and conditionally replaces one Lease.
pub struct LeaseStore {
    api: Api<Lease>,
    name: String,
    /// What a replacement is made from; its version is the one that the machine names.
    last: Mutex<Option<Lease>>,
}

impl LeaseStore {
    pub(super) fn new(client: Client, options: &Options) -> LeaseStore {
        LeaseStore {
            api: Api::namespaced(client, &options.namespace),
            name: Names(&options.set).lease(),
            last: Mutex::default(),
        }
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<Lease>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A quorum read: a get without a resourceVersion.
    pub(super) async fn read(&self) -> RecordSeen {
        match self.api.get_opt(&self.name).await {
            Ok(None) => RecordSeen::Absent,
            Ok(Some(lease)) => {
                let seen = seen(&lease);
                *self.last() = Some(lease);
                seen
            }
            Err(e) => {
                tracing::warn!("cannot read the record: {e}");
                RecordSeen::Unreachable
            }
        }
    }

    pub(super) async fn write(&self, expect: Version, record: Record) -> Result<CasOutcome, Refused> {
        let Some(mut lease) = self.last().clone() else {
            return Ok(CasOutcome::Conflict);
        };
        let Ok(json) = serde_json::to_string(&record) else {
            return Ok(CasOutcome::Conflict);
        };
        // Whatever else the Lease says is as last read; if that is not what `expect` names, the server refuses.
        lease.metadata.resource_version = Some(expect.0);
        lease.metadata.managed_fields = None;
        lease
            .metadata
            .annotations
            .get_or_insert_default()
            .insert(RECORD_ANNOTATION.to_owned(), json);
        let spec = lease.spec.get_or_insert_default();
        let now = MicroTime(k8s_openapi::jiff::Timestamp::now());
        if spec.holder_identity.as_ref() != Some(&record.leader.0) {
            spec.acquire_time = Some(now.clone());
        }
        spec.holder_identity = Some(record.leader.0.clone());
        spec.lease_transitions = i32::try_from(record.term.0).ok();
        spec.renew_time = Some(now);
        match self.api.replace(&self.name, &PostParams::default(), &lease).await {
            Ok(written) => {
                let version = version(&written);
                *self.last() = Some(written);
                Ok(CasOutcome::Written { version })
            }
            Err(Error::Api(status)) if matches!(status.code, 404 | 409 | 412) => Ok(CasOutcome::Conflict),
            Err(Error::Api(status)) if matches!(status.code, 400 | 401 | 403 | 422) => {
                tracing::error!("the record cannot be written: {status}");
                Err(Refused)
            }
            Err(e) => {
                tracing::warn!("no answer to writing the record: {e}");
                Ok(CasOutcome::Unknown)
            }
        }
    }
}

fn version(lease: &Lease) -> Version {
    Version(lease.metadata.resource_version.clone().unwrap_or_default())
}

fn seen(lease: &Lease) -> RecordSeen {
    let json = lease
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(RECORD_ANNOTATION));
    match json.map(|j| serde_json::from_str(j)) {
        Some(Ok(record)) => RecordSeen::Found {
            record,
            version: version(lease),
        },
        Some(Err(e)) => {
            tracing::error!("the record in the Lease cannot be read: {e}");
            RecordSeen::Unreachable
        }
        None => RecordSeen::Absent,
    }
}

/// Tells changes of the record as hints.
pub(super) async fn watch(client: Client, options: Arc<Options>, inbox: Inbox) {
    let api: Api<Lease> = Api::namespaced(client, &options.namespace);
    let fields = format!("metadata.name={}", Names(&options.set).lease());
    let config = watcher::Config::default().fields(&fields);
    let mut stream = std::pin::pin!(watcher(api, config).default_backoff().touched_objects());
    while let Some(next) = stream.next().await {
        match next {
            Ok(lease) => hand(&inbox, Event::RecordHint(seen(&lease))),
            Err(e) => tracing::debug!("watching the record: {e}"),
        }
    }
}
