//! Performs steps. Each is idempotent; deletions name the UID that was decided on.

use std::fmt::Debug;

use holdfast_api::HAReplicaSet;
use holdfast_core::failover::{MemberName, Record};
use holdfast_core::plan::Decision;
use holdfast_core::replica_set::{Retained, SetView, Step, Why};
use holdfast_wire::Names;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::manifests::{self, OWNER_UID, Owner};
use super::{Context, Error, during, observe};
use crate::runtime::FIELD_MANAGER;

/// Performs the decision's steps in order; stops at the first that fails, and the next reconcile goes on from what it finds.
pub async fn act(
    ctx: &Context,
    set: &HAReplicaSet,
    view: &SetView,
    decision: &Decision<Step, Why>,
) -> Result<(), Error> {
    let owner = Owner::of(set);
    for step in decision.steps() {
        match step {
            Step::CreateRecord { record } => create_record(ctx, &owner, record).await?,
            Step::Tie { object, uid, goes } => tie(ctx, &owner, object, uid, *goes).await?,
            Step::Adopt { volumes } => adopt(ctx, &owner, volumes).await?,
            Step::CreateVolume { member } | Step::GrowVolume { member, .. } => volume(ctx, &owner, set, member).await?,
            Step::CreatePod { member, image } => create_pod(ctx, &owner, set, view, member, image).await?,
            Step::DeletePod { member, uid } => {
                if !record_is_as_seen(ctx, &owner, view).await? {
                    // The decision was made on an old record; the watch brings the new one, and with it the next decision.
                    tracing::info!(set = owner.name, "the record has moved on: decides anew");
                    return Ok(());
                }
                delete_pod(ctx, &owner, member, uid).await?;
            }
            // Part of the wish, which `ensure` has applied.
            Step::Ask(_) => {}
        }
    }
    Ok(())
}

/// Only ever creates: a record that exists is nobody's to replace but the members', by conditional write.
async fn create_record(ctx: &Context, owner: &Owner, record: &Record) -> Result<(), Error> {
    let api: Api<Lease> = Api::namespaced(ctx.client.clone(), &owner.namespace);
    exists_is_fine(
        api.create(&PostParams::default(), &manifests::lease(owner, record)?)
            .await,
        "creating the record",
    )
}

async fn adopt(ctx: &Context, owner: &Owner, volumes: &[MemberName]) -> Result<(), Error> {
    let patch = Patch::Merge(json!({"metadata": {"annotations": {OWNER_UID: owner.uid}}}));
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), &owner.namespace);
    for member in volumes {
        claims
            .patch(&member.0, &PatchParams::default(), &patch)
            .await
            .map_err(during("adopting a volume"))?;
    }
    let leases: Api<Lease> = Api::namespaced(ctx.client.clone(), &owner.namespace);
    match leases
        .patch(&Names(&owner.name).lease(), &PatchParams::default(), &patch)
        .await
    {
        Ok(_) => Ok(()),
        // No record: the volumes are there, but nobody knows who led. The next decision says so.
        Err(kube::Error::Api(e)) if e.code == 404 => Ok(()),
        Err(e) => Err(during("adopting the record")(e)),
    }
}

async fn tie(ctx: &Context, owner: &Owner, object: &Retained, uid: &str, goes: bool) -> Result<(), Error> {
    let names = Names(&owner.name);
    let body = owner.tying(uid, goes);
    let done = match object {
        Retained::Volume(member) => merge::<PersistentVolumeClaim>(ctx, owner, &member.0, &body).await,
        Retained::Record => merge::<Lease>(ctx, owner, &names.lease(), &body).await,
        Retained::Secret(name) => merge::<Secret>(ctx, owner, name, &body).await,
    };
    match done {
        Ok(()) => Ok(()),
        // Gone, another one by now, or without references already: the next look says so.
        Err(kube::Error::Api(e)) if e.code == 404 || (!goes && matches!(e.code, 409 | 422)) => Ok(()),
        Err(e) => Err(during("carrying out the deletion policy")(e)),
    }
}

/// Merges lists by their keys, and asks for no more of the answer than metadata.
async fn merge<K>(ctx: &Context, owner: &Owner, name: &str, body: &Value) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
{
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &owner.namespace);
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    api.patch_metadata(name, &params, &Patch::Strategic(body)).await?;
    Ok(())
}

async fn volume(ctx: &Context, owner: &Owner, set: &HAReplicaSet, member: &MemberName) -> Result<(), Error> {
    let storage = &set.spec.storage;
    let claim = manifests::claim(owner, &member.0, &storage.size, storage.storage_class_name.as_deref());
    ctx.applied
        .apply(&ctx.client, &claim)
        .await
        .map_err(during("applying a volume claim"))
}

async fn create_pod(
    ctx: &Context,
    owner: &Owner,
    set: &HAReplicaSet,
    view: &SetView,
    member: &MemberName,
    image: &str,
) -> Result<(), Error> {
    let made = observe::input(ctx, set, &view.plan, |input| {
        manifests::pod(input, &member.0, image, &view.template)
    });
    let Some(pod) = made else { return Ok(()) };
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &owner.namespace);
    exists_is_fine(api.create(&PostParams::default(), &pod).await, "creating a Pod")
}

/// A cache may be behind. A Pod deleted on its word could be the one that a commit depends on, so the record is read afresh.
async fn record_is_as_seen(ctx: &Context, owner: &Owner, view: &SetView) -> Result<bool, Error> {
    let api: Api<Lease> = Api::namespaced(ctx.client.clone(), &owner.namespace);
    let lease = api
        .get_opt(&Names(&owner.name).lease())
        .await
        .map_err(during("reading the record"))?;
    let fresh = lease.as_ref().and_then(observe::record_of);
    Ok(fresh.as_ref() == view.authority())
}

async fn delete_pod(ctx: &Context, owner: &Owner, member: &MemberName, uid: &str) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &owner.namespace);
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api.delete(&member.0, &params).await {
        Ok(_) => Ok(()),
        // Gone, or another one by now: both mean that this step is done.
        Err(kube::Error::Api(e)) if e.code == 404 || e.code == 409 => Ok(()),
        Err(e) => Err(during("deleting a Pod")(e)),
    }
}

fn exists_is_fine<K: ResourceExt>(result: Result<K, kube::Error>, what: &'static str) -> Result<(), Error> {
    match result {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(e)) if e.code == 409 => Ok(()),
        Err(e) => Err(during(what)(e)),
    }
}
