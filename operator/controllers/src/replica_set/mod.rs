//! `HAReplicaSet`: observe → decide → act → report.
//!
//! Members elect their leader themselves; this controller makes and removes members, says what is wanted (ConfigMap), keeps
//! certificates and Services, and shows what it sees. It can be killed between any two steps: all it knows is in objects.

mod act;
mod certificates;
mod commands;
mod ensure;
pub mod manifests;
mod observe;
mod stores;
mod views;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use holdfast_api::HAReplicaSet;
use holdfast_core::plan::{Decision, Reason};
use holdfast_core::replica_set::{Plan, Problem, Why, decide, report};
use holdfast_core::status::conditions::is_true;
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::runtime::{Applied, Backoffs, FIELD_MANAGER, Metrics, Teller};
use stores::Stores;

/// What the operator's flags say.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Image that brings the agent into members' Pods: the operator's own.
    pub agent_image: String,
    /// Watch only this namespace; all where `None`.
    pub namespace: Option<String>,
    /// Lifetime of members' certificates; renewed after two thirds.
    pub certificate_lifetime: jiff::SignedDuration,
    /// Lifetime of a set's authority; its successor is trusted from two thirds on, and used from five sixths on.
    pub authority_lifetime: jiff::SignedDuration,
}

/// Why a reconcile could not be finished. Tried again with back-off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or did not answer.
    #[error("{what}: {source}")]
    Kube {
        /// What was being done.
        what: &'static str,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// A certificate could not be made.
    #[error("certificates: {0}")]
    Pki(#[from] holdfast_pki::PkiError),
    /// A value could not be written as JSON.
    #[error("json: {0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// The API server refuses because the namespace is being deleted.
    fn namespace_ends(&self) -> bool {
        let Error::Kube { source, .. } = self else { return false };
        let kube::Error::Api(status) = &**source else {
            return false;
        };
        status.code == 403
            && status
                .details
                .iter()
                .flat_map(|details| &details.causes)
                .any(|cause| cause.reason == "NamespaceTerminating")
    }
}

/// Names what failed.
pub(crate) fn during(what: &'static str) -> impl FnOnce(kube::Error) -> Error {
    move |source| Error::Kube {
        what,
        source: Box::new(source),
    }
}

pub(crate) struct Context {
    client: Client,
    settings: Settings,
    stores: Arc<Stores>,
    applied: Arc<Applied>,
    certificates: certificates::Cache,
    backoffs: Backoffs,
    teller: Teller,
    metrics: Arc<Metrics>,
}

/// As metrics name it.
const KIND: &str = "HAReplicaSet";
/// Even when no event comes, every set is looked at this often: a missed event must not mean silence.
const RESYNC: Duration = Duration::from_secs(600);

/// What is not as wanted is looked at again this often: what stands in the way may be no object of ours, whose going nobody tells.
const UNSETTLED: Duration = Duration::from_secs(30);

/// Runs the controller until `stop`.
pub async fn run(client: Client, settings: Settings, metrics: Arc<Metrics>, stop: CancellationToken) {
    let applied = Arc::new(Applied::default());
    let (stores, triggers) = Stores::start(&client, settings.namespace.as_deref(), &applied, &stop).await;
    let api: Api<DeserializeGuard<HAReplicaSet>> = match &settings.namespace {
        Some(ns) => Api::namespaced(client.clone(), ns),
        None => Api::all(client.clone()),
    };
    let context = Arc::new(Context {
        teller: Teller::new(client.clone(), "holdfast-operator", Arc::clone(&metrics)),
        metrics: Arc::clone(&metrics),
        client,
        settings,
        stores,
        applied,
        certificates: certificates::Cache::default(),
        backoffs: Backoffs::default(),
    });
    Controller::new(api, watcher::Config::default().page_size(stores::PAGE))
        .with_config(Config::default().concurrency(32).debounce(Duration::from_millis(50)))
        .reconcile_on(triggers)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, on_error, context)
        .for_each(|result| {
            match result {
                Ok((object, _)) => tracing::debug!(object = %object, "reconciled"),
                Err(kube::runtime::controller::Error::ObjectNotFound(object)) => {
                    metrics.gone(KIND, object.namespace.as_deref().unwrap_or(""), &object.name);
                    tracing::debug!(%object, "gone");
                }
                Err(error) => tracing::warn!(%error, "reconcile failed"),
            }
            std::future::ready(())
        })
        .await;
}

fn on_error(guard: Arc<DeserializeGuard<HAReplicaSet>>, error: &Error, ctx: Arc<Context>) -> Action {
    let delay = ctx.backoffs.failed(&key(guard.meta()));
    tracing::debug!(%error, ?delay, "tried again later");
    Action::requeue(delay)
}

fn key(meta: &kube::core::ObjectMeta) -> String {
    format!(
        "{}/{}",
        meta.namespace.as_deref().unwrap_or(""),
        meta.name.as_deref().unwrap_or("")
    )
}

async fn reconcile(guard: Arc<DeserializeGuard<HAReplicaSet>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let begun = Instant::now();
    let mut result = look(guard, &ctx).await;
    if result.as_ref().is_err_and(Error::namespace_ends) {
        // Nothing can be made here any more, and the set itself goes next.
        tracing::debug!("its namespace is being deleted");
        result = Ok(Action::await_change());
    }
    ctx.metrics.reconciled(KIND, begun.elapsed(), result.is_ok());
    result
}

async fn look(guard: Arc<DeserializeGuard<HAReplicaSet>>, ctx: &Context) -> Result<Action, Error> {
    let set = match &guard.0 {
        Ok(set) => set,
        Err(invalid) => {
            // A poison object is reported and left alone; it must not stop the watch or its neighbours.
            let problem = Problem {
                field: "object".into(),
                value: key(&invalid.metadata),
                right: invalid.error.clone(),
            };
            tracing::warn!(object = %key(&invalid.metadata), error = %invalid.error, "object cannot be read");
            ctx.teller
                .tell(
                    &reference(&invalid.metadata),
                    "Read",
                    &Why::SpecRefused(problem.to_string()),
                )
                .await;
            return Ok(Action::await_change());
        }
    };
    let now = jiff::Timestamp::now();
    let old = set.status.clone().unwrap_or_default();
    let plan = match Plan::check(&set.spec) {
        Ok(plan) => plan,
        Err(problems) => {
            let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            ctx.teller
                .tell(&reference(&set.metadata), "Check", &Why::SpecRefused(text))
                .await;
            write_status(
                ctx,
                set,
                report::refused(&old, set.meta().generation.unwrap_or(0), &problems, now),
            )
            .await?;
            return Ok(Action::await_change());
        }
    };
    let mut view = observe::observe(ctx, set, plan, now);
    let mut decision = decide(&view);
    if matches!(decision.why(), Why::DeletionPolicy { .. })
        && let Err(error) = act::act(ctx, set, &view, &decision).await
    {
        // A policy of the cluster may refuse it for ever: nothing else of this set waits for that.
        let why = Why::DeletionPolicyRefused {
            message: error.to_string(),
        };
        tracing::error!(set = %key(set.meta()), reason = why.reason(), "{why}");
        ctx.teller.tell(&reference(&set.metadata), "Reconcile", &why).await;
        view.ties_refused = true;
        decision = decide(&view);
    }
    // Whether data stays is settled by itself, before anything that could fail.
    let nothing_made = match decision.why() {
        Why::DeletionPolicy { .. } => true,
        Why::VolumesExist { .. } => view.deleting || decision.steps().is_empty(),
        _ => view.deleting,
    };
    let as_wanted = matches!(decision, Decision::Stay(Why::AsWanted));
    let mut next = if as_wanted { RESYNC } else { UNSETTLED };
    if let Some(at) = view.next_silence() {
        next = next.min(until(now, at));
    }
    let mut ca_expires = old.ca_expires.clone();
    if !nothing_made {
        let kept = ensure::ensure(ctx, set, &view, &decision, now).await?;
        ca_expires = Some(kept.authority_expires.to_string());
        next = next.min(until(now, kept.renew_at));
    }
    if !matches!(decision.why(), Why::DeletionPolicy { .. }) {
        act::act(ctx, set, &view, &decision).await?;
    }
    if !as_wanted {
        tracing::info!(set = %key(set.meta()), reason = decision.why().reason(), "{}", decision.why());
    }
    ctx.teller
        .tell(&reference(&set.metadata), "Reconcile", decision.why())
        .await;
    write_status(
        ctx,
        set,
        report::report(&view, &decision, &old.conditions, ca_expires, now),
    )
    .await?;
    ctx.backoffs.succeeded(&key(set.meta()));
    if let Decision::Wait { until: at, .. } = &decision {
        next = next.min(until(now, *at));
    }
    Ok(Action::requeue(next))
}

fn until(now: jiff::Timestamp, at: jiff::Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now))
        .unwrap_or(Duration::ZERO)
        .max(Duration::from_secs(1))
}

fn reference(meta: &kube::core::ObjectMeta) -> k8s_openapi::api::core::v1::ObjectReference {
    k8s_openapi::api::core::v1::ObjectReference {
        api_version: Some(HAReplicaSet::api_version(&()).into_owned()),
        kind: Some(HAReplicaSet::kind(&()).into_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        ..Default::default()
    }
}

/// Writes the status only when it says something new.
async fn write_status(
    ctx: &Context,
    set: &HAReplicaSet,
    status: holdfast_api::HAReplicaSetStatus,
) -> Result<(), Error> {
    let ready = is_true(&status.conditions, "Ready");
    ctx.metrics
        .ready(KIND, set.namespace().as_deref().unwrap_or(""), &set.name_any(), ready);
    if set.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let api: Api<HAReplicaSet> = Api::namespaced(ctx.client.clone(), &set.namespace().unwrap_or_default());
    let body = serde_json::json!({
        "apiVersion": HAReplicaSet::api_version(&()), "kind": HAReplicaSet::kind(&()), "status": status,
    });
    match api
        .patch_status(
            &set.name_any(),
            &PatchParams::apply(FIELD_MANAGER).force(),
            &Patch::Apply(&body),
        )
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(e)) if e.code == 404 => Ok(()),
        Err(e) => Err(during("writing the status")(e)),
    }
}
