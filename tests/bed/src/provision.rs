//! The provisioner: a daemon that gives each claim of the class `bed` a volume on the node that the scheduler chose, grows
//! it, and deletes it with its claim. It talks to the API server only; `kubectl` shows what it does.

use crate::control::kubeconfig;
use crate::remove::remove_orphan;
use crate::state::State;
use crate::{cgroup, volume};
use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Client, Config, ResourceExt};
use serde_json::json;
use std::time::Duration;

/// Name of the default StorageClass.
pub const CLASS: &str = "bed";
/// The provisioner that the class names.
pub const PROVISIONER: &str = "bed.holdfast.dev/ext4";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// Runs until it is killed.
pub async fn main(name: &str) -> Result<()> {
    let state = State::load(name)?;
    let file = Kubeconfig::read_from(kubeconfig(&state, "admin")?)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    let claims = watcher(
        Api::<PersistentVolumeClaim>::all(client.clone()),
        watcher::Config::default(),
    )
    .map(|event| event.map(drop));
    let volumes =
        watcher(Api::<PersistentVolume>::all(client.clone()), watcher::Config::default()).map(|event| event.map(drop));
    let mut events = futures::stream::select(claims.boxed(), volumes.boxed());
    loop {
        if state.owner.is_some_and(|owner| !owner.alive()) {
            return end_with_owner(name);
        }
        // Any event means: look at everything. A pass over a bed's few volumes is two lists. Without events, a pass every
        // 2 s takes up what had to wait, such as the claims of a node without power.
        let wake = tokio::time::timeout(Duration::from_secs(2), events.next()).await;
        if let Ok(Some(Err(error))) = wake {
            eprintln!("watch: {error}");
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        }
        // Events come in bursts; what has already come is covered by the same pass.
        while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(20), events.next()).await {}
        if let Err(error) = pass(&client, name).await {
            // What fails now fails again at once: the log is for people.
            eprintln!("{error:#}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Takes the bed down after its owner's end. This process leaves the bed's control group first, so as not to kill itself.
fn end_with_owner(name: &str) -> Result<()> {
    std::fs::write(cgroup::dir("freezer", "").join(cgroup::PROCS), "0")?;
    remove_orphan(name)
}

async fn pass(client: &Client, name: &str) -> Result<()> {
    let state = State::load(name)?;
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let known = volumes.list(&ListParams::default()).await?.items;
    let claims = Api::<PersistentVolumeClaim>::all(client.clone())
        .list(&ListParams::default())
        .await?
        .items;
    for claim in &claims {
        let name = format!("pvc-{}", claim.uid().unwrap_or_default());
        let done = match known.iter().find(|volume| volume.name_any() == name) {
            None => provision(&state, &volumes, claim, &name).await,
            Some(volume) => expand(client, &state, claim, volume).await,
        };
        if let Err(error) = done {
            eprintln!(
                "{}/{}: {error:#}",
                claim.namespace().unwrap_or_default(),
                claim.name_any()
            );
        }
    }
    for volume in &known {
        if let Err(error) = reclaim(&state, &volumes, volume).await {
            eprintln!("{}: {error:#}", volume.name_any());
        }
    }
    Ok(())
}

/// The number of the node that a node's name stands for.
fn node_number(name: &str) -> Option<u8> {
    name.strip_prefix("node")?.parse().ok()
}

fn asked_bytes(claim: &PersistentVolumeClaim) -> Result<u64> {
    let requests = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let quantity = requests
        .and_then(|requests| requests.get("storage"))
        .context("the claim asks for no storage")?;
    bytes(&quantity.0).with_context(|| format!("'{}' is no amount of storage", quantity.0))
}

async fn provision(
    state: &State,
    volumes: &Api<PersistentVolume>,
    claim: &PersistentVolumeClaim,
    name: &str,
) -> Result<()> {
    let Some(spec) = &claim.spec else { return Ok(()) };
    let ours = spec.storage_class_name.as_deref() == Some(CLASS) && spec.volume_name.is_none();
    let Some(node) = claim.annotations().get(SELECTED_NODE).filter(|_| ours) else {
        return Ok(());
    };
    let number = node_number(node).context("the selected node is not of this bed")?;
    let Some(first) = state.first(number) else {
        return Ok(());
    };
    let size = asked_bytes(claim)?.max(volume::MIN_BYTES);
    volume::create_disk(&state.node_dir(number)?, name, size)?;
    volume::mount_in(first, name)?;
    let volume: PersistentVolume = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "capacity": {"storage": size.to_string()},
            "accessModes": spec.access_modes,
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": CLASS,
            "volumeMode": "Filesystem",
            "local": {"path": format!("/run/bed/volumes/{name}")},
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(),
                "name": claim.name_any(), "uid": claim.uid(),
            },
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]},
            ]}]}},
        },
    }))?;
    volumes
        .create(&PostParams::default(), &volume)
        .await
        .context("cannot create the PersistentVolume")?;
    eprintln!("made {name} of {size} bytes on {node}");
    Ok(())
}

/// The node that a volume of ours lies on.
fn node_of(state: &State, name: &str) -> Option<u8> {
    (1..=state.nodes).find(|n| {
        state
            .node_dir(*n)
            .is_ok_and(|dir| dir.join("disks").join(format!("{name}.img")).exists())
    })
}

fn is_ours(volume: &PersistentVolume) -> bool {
    volume
        .annotations()
        .get(PROVISIONED_BY)
        .is_some_and(|by| by == PROVISIONER)
}

async fn expand(
    client: &Client,
    state: &State,
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Result<()> {
    let capacity = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.capacity.as_ref()?.get("storage").cloned());
    let have = capacity.and_then(|quantity| bytes(&quantity.0)).unwrap_or(u64::MAX);
    let want = asked_bytes(claim)?;
    if want <= have || !is_ours(volume) {
        return Ok(());
    }
    let name = volume.name_any();
    let number = node_of(state, &name).context("its disk is gone")?;
    let Some(first) = state.first(number) else {
        return Ok(());
    };
    volume::grow(first, &state.node_dir(number)?, &name, want)?;
    let capacity = json!({"storage": want.to_string()});
    let params = PatchParams::default();
    Api::<PersistentVolume>::all(client.clone())
        .patch(&name, &params, &Patch::Merge(json!({"spec": {"capacity": capacity}})))
        .await?;
    let namespace = claim.namespace().unwrap_or_default();
    Api::<PersistentVolumeClaim>::namespaced(client.clone(), &namespace)
        .patch_status(
            &claim.name_any(),
            &params,
            &Patch::Merge(json!({"status": {"capacity": capacity, "conditions": []}})),
        )
        .await?;
    eprintln!("grew {name} to {want} bytes");
    Ok(())
}

async fn reclaim(state: &State, volumes: &Api<PersistentVolume>, volume: &PersistentVolume) -> Result<()> {
    let released = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Released");
    let policy = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    if !released || policy != Some("Delete") || !is_ours(volume) {
        return Ok(());
    }
    let name = volume.name_any();
    if let Some(number) = node_of(state, &name) {
        volume::delete(state.first(number), &state.node_dir(number)?, &name)?;
    }
    if volume.metadata.deletion_timestamp.is_none() {
        volumes.delete(&name, &DeleteParams::default()).await?;
        eprintln!("deleted {name}");
    }
    Ok(())
}

/// Reads an amount as Kubernetes writes it: `1Gi`, `500M`, `1e9`, `1.5Gi`. Rounds up to whole bytes.
fn bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 12] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("m", 1e-3),
        ("", 1.0),
    ];
    let (number, unit) = UNITS
        .iter()
        .find_map(|(end, unit)| Some((text.strip_suffix(end)?, unit)))?;
    let value = (number.parse::<f64>().ok()? * unit).ceil();
    // 2^53: beyond it a float does not hold every whole number, and no machine has such a disk.
    (0.0..=9_007_199_254_740_992.0).contains(&value).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn amounts_are_read_as_kubernetes_writes_them() {
        assert_eq!(bytes("1Gi"), Some(1 << 30));
        assert_eq!(bytes("500M"), Some(500_000_000));
        assert_eq!(bytes("1.5Ki"), Some(1536));
        assert_eq!(bytes("1e9"), Some(1_000_000_000));
        assert_eq!(bytes("1500m"), Some(2));
        assert_eq!(bytes("much"), None);
        assert_eq!(bytes("-1"), None);
    }
}
