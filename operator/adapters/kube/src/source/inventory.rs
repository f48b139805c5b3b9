//! The inventory's ConfigMaps: owned by the source, written by the operator itself.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_api::GitSource;
use holdfast_core::source::inventory::Inventory;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, ObjectMeta, Patch, PatchParams},
};

const LABEL: &str = "holdfast.dev/inventory-of";
const KEY: &str = "objects";

fn name(source: &str, shard: u32) -> String {
    format!("{source}-inventory-{shard}")
}

/// Reads all shards of a source: one request. ConfigMaps that the source does not own (by UID) are not looked at.
pub async fn read_inventory(client: &Client, source: &GitSource) -> kube::Result<Inventory> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &source.namespace().unwrap_or_default());
    let list = api
        .list(&ListParams::default().labels(&format!("{LABEL}={}", source.name_any())))
        .await?;
    let uid = source.uid().unwrap_or_default();
    let mut inventory = Inventory::default();
    for map in list {
        let ours = map.owner_references().iter().any(|o| o.uid == uid);
        let shard = map.name_any().rsplit_once('-').and_then(|(_, n)| n.parse().ok());
        if let (true, Some(shard), Some(text)) = (ours, shard, map.data.as_ref().and_then(|d| d.get(KEY))) {
            inventory.read(shard, text);
        }
    }
    Ok(inventory)
}

/// Writes the given shards.
pub async fn write_shards(
    client: &Client,
    source: &GitSource,
    inventory: &Inventory,
    shards: &BTreeSet<u32>,
) -> kube::Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &source.namespace().unwrap_or_default());
    for shard in shards {
        let name = name(&source.name_any(), *shard);
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(BTreeMap::from([(LABEL.to_owned(), source.name_any())])),
                owner_references: source.controller_owner_ref(&()).map(|o| vec![o]),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(KEY.to_owned(), inventory.text(*shard))])),
            ..ConfigMap::default()
        };
        api.patch(&name, &PatchParams::apply("holdfast").force(), &Patch::Apply(&map))
            .await?;
    }
    Ok(())
}
