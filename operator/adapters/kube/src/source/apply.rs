//! Trying, applying and deleting single objects as the source's ServiceAccount.

use std::time::Duration;

use holdfast_api::git_source::{PRUNE_ANNOTATION, SOURCE_LABEL, SOURCE_NAMESPACE_LABEL};
use holdfast_core::source::{Manifest, ObjectKey, kinds::KindFacts, object::annotation};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy},
};
use serde_json::Value;

use super::{Answer, read, resource};

/// The longest that one request may take: `kube` itself sets no time-out on reads.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a request changes anything, and whether it takes fields from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Validate and merge on the server, store nothing.
    pub dry_run: bool,
    /// Take fields that others own.
    pub force: bool,
}

/// What became of an object that had gone from Git.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pruned {
    /// Deleted, or gone already.
    Gone,
    /// Kept because it says so itself.
    Kept,
    /// Not ours any more: left alone.
    NotOurs,
}

/// Sends requests for one source.
#[derive(Clone)]
pub struct Applier {
    client: Client,
    manager: String,
    source: (String, String),
}

impl Applier {
    /// `client` must act as the source's ServiceAccount.
    pub fn new(client: Client, manager: String, namespace: &str, name: &str) -> Self {
        Applier {
            client,
            manager,
            source: (namespace.to_owned(), name.to_owned()),
        }
    }

    /// The client that it sends with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The field manager that it applies as.
    pub fn manager(&self) -> &str {
        &self.manager
    }

    /// Applies one object, or tries to.
    pub async fn apply(&self, manifest: &Manifest, facts: &KindFacts, mode: Mode) -> Answer {
        let api = self.api(&manifest.key, &manifest.api_version, facts);
        let params = PatchParams {
            dry_run: mode.dry_run,
            force: mode.force,
            field_manager: Some(self.manager.clone()),
            field_validation: Some(kube::api::ValidationDirective::Strict),
        };
        answer(api.patch(&manifest.key.name, &params, &Patch::Apply(&manifest.value))).await
    }

    /// The object as it is now.
    pub async fn get(&self, key: &ObjectKey, api_version: &str, facts: &KindFacts) -> Answer {
        answer(self.api(key, api_version, facts).get(&key.name)).await
    }

    /// Deletes an object that has gone from Git, if it still is ours as seen just before. Preconditions make the server
    /// refuse when somebody changed it in between.
    pub async fn prune(&self, key: &ObjectKey, api_version: &str, facts: &KindFacts) -> Result<Pruned, Answer> {
        let live = match self.get(key, api_version, facts).await {
            Answer::Done(live) => live,
            Answer::Missing(_) => return Ok(Pruned::Gone),
            other => return Err(other),
        };
        if !self.is_ours(&live) {
            return Ok(Pruned::NotOurs);
        }
        if annotation(&live, PRUNE_ANNOTATION) == Some("disabled") {
            return Ok(Pruned::Kept);
        }
        let text = |pointer: &str| live.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions {
                uid: text("/metadata/uid"),
                resource_version: text("/metadata/resourceVersion"),
            }),
            ..DeleteParams::default()
        };
        let api = self.api(key, api_version, facts);
        match tokio::time::timeout(PATIENCE, api.delete(&key.name, &params)).await {
            Ok(Ok(_)) => Ok(Pruned::Gone),
            Ok(Err(e)) => match read(&e) {
                Answer::Missing(_) => Ok(Pruned::Gone),
                other => Err(other),
            },
            Err(_) => Err(slow()),
        }
    }

    /// Whether an object carries this source's labels.
    pub fn is_ours(&self, live: &Value) -> bool {
        let label = |name: &str| {
            live.get("metadata")
                .and_then(|m| m.get("labels"))
                .and_then(|l| l.get(name))
                .and_then(Value::as_str)
        };
        label(SOURCE_NAMESPACE_LABEL) == Some(self.source.0.as_str())
            && label(SOURCE_LABEL) == Some(self.source.1.as_str())
    }

    fn api(&self, key: &ObjectKey, api_version: &str, facts: &KindFacts) -> Api<DynamicObject> {
        let resource = resource(api_version, &key.kind, facts);
        match &key.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }
}

async fn answer(request: impl Future<Output = kube::Result<DynamicObject>>) -> Answer {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(object)) => match serde_json::to_value(object) {
            Ok(value) => Answer::Done(Box::new(value)),
            Err(e) => Answer::Failed(e.to_string()),
        },
        Ok(Err(e)) => read(&e),
        Err(_) => slow(),
    }
}

fn slow() -> Answer {
    Answer::Failed(format!("the API server did not answer within {} s", PATIENCE.as_secs()))
}
