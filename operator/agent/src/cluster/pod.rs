//! The member's status, in an annotation of its Pod.

use std::time::Duration;

use anyhow::Context;
use holdfast_wire::{MemberStatus, STATUS_ANNOTATION};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};

use super::Kubernetes;

/// Writes it.
pub(super) async fn report(k: &Kubernetes, status: &MemberStatus) -> anyhow::Result<()> {
    let api: Api<Pod> = Api::namespaced(k.strict.clone(), &k.options.namespace);
    let json = serde_json::to_string(status)?;
    // The UID makes the patch fail on a later Pod by the same name.
    let patch = Patch::Merge(serde_json::json!({
        "metadata": { "uid": k.options.pod_uid, "annotations": { STATUS_ANNOTATION: json } }
    }));
    let params = PatchParams::default();
    let call = api.patch_metadata(&k.options.member.0, &params, &patch);
    tokio::time::timeout(Duration::from_secs(2), call)
        .await
        .context("no answer in time")??;
    Ok(())
}
