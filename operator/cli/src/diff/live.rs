//! What is in the cluster, read with the person's own rights.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_api::GitSource;
use holdfast_api::git_source::{SOURCE_LABEL, SOURCE_NAMESPACE_LABEL};
use holdfast_core::source::ObjectKey;
use holdfast_core::source::inventory::Inventory;
use holdfast_kube::source::{read_inventory, resource};
use kube::api::{DynamicObject, ListParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::revision::Wanted;
use crate::cluster::Cluster;
use crate::failure::Failure;

/// Objects in one answer: 10,000 objects are 20 requests, and none of the answers is large.
const PAGE: u32 = 500;

/// See the module.
pub struct Live {
    /// Those of the wanted objects that exist.
    pub objects: BTreeMap<ObjectKey, Value>,
    /// What the source has applied.
    pub inventory: Inventory,
}

/// Reads the inventory and every wanted object: by the source's label, and by name those that are not found so.
pub async fn read(cluster: &Cluster, source: &GitSource, wanted: &Wanted) -> Result<Live, Failure> {
    let what = format!("the inventory of GitSource {}/{}", cluster.namespace, source.name_any());
    let inventory = read_inventory(&cluster.client, source)
        .await
        .map_err(|e| Failure::of(&what, e))?;
    let scopes: BTreeSet<(&str, &str, Option<&str>)> = wanted
        .objects
        .iter()
        .map(|(key, m)| (m.api_version.as_str(), key.kind.as_str(), key.namespace.as_deref()))
        .filter(|(api_version, kind, _)| !wanted.provided.contains(&((*api_version).into(), (*kind).into())))
        .collect();
    let labels = format!(
        "{SOURCE_LABEL}={},{SOURCE_NAMESPACE_LABEL}={}",
        source.name_any(),
        cluster.namespace
    );
    let mut objects = BTreeMap::new();
    for (api_version, kind, namespace) in scopes {
        let Some(facts) = wanted.kinds.get(api_version, kind) else {
            continue;
        };
        let resource = resource(api_version, kind, &facts);
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(cluster.client.clone(), namespace, &resource),
            None => Api::all_with(cluster.client.clone(), &resource),
        };
        let mut found = BTreeMap::new();
        let mut next = ListParams::default().labels(&labels).limit(PAGE);
        loop {
            let page = api
                .list(&next)
                .await
                .map_err(|e| Failure::of(&format!("reading {kind}s"), e))?;
            let more = page.metadata.continue_.clone().filter(|token| !token.is_empty());
            found.extend(page.into_iter().map(|object| (object.name_any(), object)));
            match more {
                Some(token) => next = next.continue_token(&token),
                None => break,
            }
        }
        let here = |key: &ObjectKey| key.kind == kind && key.namespace.as_deref() == namespace;
        for (key, _) in wanted
            .objects
            .iter()
            .filter(|(key, m)| here(key) && m.api_version == api_version)
        {
            let object = match found.remove(&key.name) {
                Some(object) => Some(object),
                None => api
                    .get_opt(&key.name)
                    .await
                    .map_err(|e| Failure::of(&key.to_string(), e))?,
            };
            if let Some(value) = object.and_then(|o| serde_json::to_value(o).ok()) {
                objects.insert(key.clone(), typed(value, api_version, kind));
            }
        }
    }
    Ok(Live { objects, inventory })
}

/// Items of a list come without their type.
fn typed(mut value: Value, api_version: &str, kind: &str) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.insert("apiVersion".into(), json!(api_version));
        fields.insert("kind".into(), json!(kind));
    }
    value
}
