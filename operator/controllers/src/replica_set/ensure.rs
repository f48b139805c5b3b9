//! Keeps what is a pure function of the spec: access, Services, the wish, certificates. Nothing here is decided.

use holdfast_api::HAReplicaSet;
use holdfast_core::plan::Decision;
use holdfast_core::replica_set::{SetView, Step, Why, wish::wish};
use holdfast_wire::Names;

use super::certificates::{self, Kept};
use super::manifests::{self, Owner};
use super::{Context, Error, commands, during};

/// Brings everything that is not a step in force, in the order in which it is needed.
pub async fn ensure(
    ctx: &Context,
    set: &HAReplicaSet,
    view: &SetView,
    decision: &Decision<Step, Why>,
    now: jiff::Timestamp,
) -> Result<Kept, Error> {
    let owner = Owner::of(set);
    let names = Names(&owner.name);
    let members: Vec<String> = view.wanted().into_iter().chain(view.surplus()).map(|m| m.0).collect();
    let (client, applied) = (&ctx.client, &ctx.applied);
    applied
        .apply(client, &manifests::service_account(&owner))
        .await
        .map_err(during("applying the ServiceAccount"))?;
    applied
        .apply(client, &manifests::role(&owner, &members))
        .await
        .map_err(during("applying the Role"))?;
    applied
        .apply(client, &manifests::role_binding(&owner))
        .await
        .map_err(during("applying the RoleBinding"))?;
    for service in [names.rw(), names.ro(), names.r()] {
        applied
            .apply(client, &manifests::service(&owner, service.clone()))
            .await
            .map_err(during("applying a Service"))?;
        // Agents own what is in a slice, so it is only made, never applied again.
        applied
            .create(client, &manifests::empty_slice(&owner, service))
            .await
            .map_err(during("creating an EndpointSlice"))?;
    }
    if let Some(budget) = manifests::budget(&owner, names.budget(), view.plan.members) {
        applied
            .apply(client, &budget)
            .await
            .map_err(during("applying the PodDisruptionBudget"))?;
    }
    let (command, consumed) = commands::next(set, view, decision);
    let mut map = manifests::spec_map(&owner, &wish(view, command), &view.plan.initdb.sql)?;
    if let Some(consumed) = consumed {
        map.metadata
            .annotations
            .get_or_insert_default()
            .insert(commands::CONSUMED.to_owned(), consumed);
    }
    applied.apply(client, &map).await.map_err(during("applying the wish"))?;
    certificates::keep(ctx, &owner, view, &members, now).await
}
