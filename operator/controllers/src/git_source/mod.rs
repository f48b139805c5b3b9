//! `GitSource`: poll → read → decide → act → report.
//!
//! A commit is taken whole or not at all: it is read and checked here, then tried on the server, and only then applied, as
//! the source's own ServiceAccount. What was applied before stays in force, and is healed, until a newer commit has passed.
//! When nothing moved, a poll is one `ls-remote` and no API request at all.

mod act;
mod change;
mod explain;
mod live;
mod memory;
mod poll;
mod read;
mod spec;
mod watch;
pub mod webhook;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex as StdMutex, OnceLock},
    time::{Duration, Instant},
};

use futures::StreamExt;
use holdfast_api::{GitSource, GitSourceStatus};
use holdfast_core::{
    plan::Decision,
    source::{
        Why,
        kinds::Kinds,
        plan,
        report::{Facts, Verdict, report},
    },
    status::conditions,
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::DeserializeGuard,
    runtime::{
        controller::{Action, Config as ControllerConfig, Controller},
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use memory::Memory;
use spec::Spec;

use crate::runtime::{FIELD_MANAGER, Metrics, Teller};

/// What the operator's flags say.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder for the bare repositories, one per source. What is in it can be lost at any time.
    pub cache: PathBuf,
    /// Watch only this namespace; all where `None`.
    pub namespace: Option<String>,
}

/// Sources that speak to Git servers at the same time: each takes a thread, and unpacking takes a core.
const GIT_AT_ONCE: usize = 16;
/// As metrics name it.
const KIND: &str = "GitSource";
/// Even when no event comes, every source is looked at this often.
const RESYNC: Duration = Duration::from_secs(600);

/// Everything that the controller and its webhook share.
pub struct Sources {
    client: Client,
    config: Config,
    settings: Settings,
    teller: Teller,
    metrics: Arc<Metrics>,
    kinds: StdMutex<Kinds>,
    memories: StdMutex<HashMap<Key, Arc<Mutex<Memory>>>>,
    asked: StdMutex<BTreeSet<Key>>,
    git: Arc<Semaphore>,
    wake: mpsc::UnboundedSender<ObjectRef<DeserializeGuard<GitSource>>>,
    woken: StdMutex<Option<mpsc::UnboundedReceiver<ObjectRef<DeserializeGuard<GitSource>>>>>,
    webhooks: webhook::Secrets,
    /// What the controller's watch has seen.
    watched: OnceLock<Store<DeserializeGuard<GitSource>>>,
}

/// (namespace, name).
type Key = (String, String);

impl Sources {
    /// `config` is what `client` was made from: clients that act as ServiceAccounts are made from it too.
    pub fn new(client: Client, config: Config, settings: Settings, metrics: Arc<Metrics>) -> Arc<Self> {
        let (wake, woken) = mpsc::unbounded_channel();
        Arc::new(Sources {
            teller: Teller::new(client.clone(), "holdfast-operator", Arc::clone(&metrics)),
            metrics,
            client,
            config,
            settings,
            kinds: StdMutex::default(),
            memories: StdMutex::default(),
            asked: StdMutex::default(),
            git: Arc::new(Semaphore::new(GIT_AT_ONCE)),
            wake,
            woken: StdMutex::new(Some(woken)),
            webhooks: webhook::Secrets::default(),
            watched: OnceLock::new(),
        })
    }

    /// Makes a source poll as soon as its floor allows.
    pub fn poll_now(&self, namespace: &str, name: &str) {
        if let Ok(mut asked) = self.asked.lock() {
            asked.insert((namespace.to_owned(), name.to_owned()));
        }
        self.wake(namespace, name);
    }

    fn wake(&self, namespace: &str, name: &str) {
        // The receiver is gone only when the process ends.
        let _ = self.wake.send(ObjectRef::new(name).within(namespace));
    }

    fn memory(&self, key: &Key) -> Arc<Mutex<Memory>> {
        match self.memories.lock() {
            Ok(mut memories) => Arc::clone(memories.entry(key.clone()).or_default()),
            Err(_) => Arc::default(),
        }
    }

    /// A source is gone: its watches end, and its copy of the repository goes. What it applied stays.
    fn forget(&self, key: &Key) {
        self.metrics.gone(KIND, &key.0, &key.1);
        let memory = self.memories.lock().ok().and_then(|mut m| m.remove(key));
        if let Some(memory) = memory {
            let cache = self.settings.cache.clone();
            tokio::spawn(async move {
                let mut memory = memory.lock().await;
                memory.watches.stop();
                if let Some(uid) = memory.uid() {
                    // Not there, or taken away with the Pod: both are as well.
                    let _ = tokio::fs::remove_dir_all(cache.join(uid)).await;
                }
            });
        }
    }

    fn kinds(&self) -> Kinds {
        self.kinds.lock().map(|kinds| kinds.clone()).unwrap_or_default()
    }
}

/// Why a reconcile could not be finished: only the source's own status can fail like this; all else is shown in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The status was not written.
    #[error("writing the status: {0}")]
    Status(Box<kube::Error>),
}

/// Runs the controller until `stop`.
pub async fn run(sources: Arc<Sources>, stop: CancellationToken) {
    let Some(woken) = sources.woken.lock().ok().and_then(|mut woken| woken.take()) else {
        tracing::error!("the GitSource controller was started twice");
        return;
    };
    if let Err(error) = holdfast_git::prepare_process() {
        tracing::error!(%error, "libgit2 cannot be set up");
        return;
    }
    let api: Api<DeserializeGuard<GitSource>> = match &sources.settings.namespace {
        Some(namespace) => Api::namespaced(sources.client.clone(), namespace),
        None => Api::all(sources.client.clone()),
    };
    let controller = Controller::new(api, watcher::Config::default());
    // It is the first: `woken` is taken once.
    let _ = sources.watched.set(controller.store());
    controller
        .with_config(ControllerConfig::default().debounce(Duration::from_millis(20)))
        .reconcile_on(UnboundedReceiverStream::new(woken))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, on_error, Arc::clone(&sources))
        .for_each(|result| {
            // Without a finalizer a deleted object is simply not there any more: nothing else tells of it.
            if let Err(kube::runtime::controller::Error::ObjectNotFound(object)) = &result {
                sources.forget(&(object.namespace.clone().unwrap_or_default(), object.name.clone()));
            }
            match result {
                Ok((object, _)) => tracing::debug!(%object, "reconciled"),
                Err(kube::runtime::controller::Error::ObjectNotFound(object)) => tracing::debug!(%object, "gone"),
                Err(error) => tracing::warn!(%error, "reconcile failed"),
            }
            std::future::ready(())
        })
        .await;
}

fn on_error(_: Arc<DeserializeGuard<GitSource>>, _: &Error, _: Arc<Sources>) -> Action {
    Action::requeue(Duration::from_secs(5))
}

async fn reconcile(guard: Arc<DeserializeGuard<GitSource>>, sources: Arc<Sources>) -> Result<Action, Error> {
    let begun = Instant::now();
    let result = look(guard, &sources).await;
    sources.metrics.reconciled(KIND, begun.elapsed(), result.is_ok());
    result
}

async fn look(guard: Arc<DeserializeGuard<GitSource>>, sources: &Arc<Sources>) -> Result<Action, Error> {
    let key = (
        guard.meta().namespace.clone().unwrap_or_default(),
        guard.meta().name.clone().unwrap_or_default(),
    );
    let source = match &guard.0 {
        Ok(source) if source.metadata.deletion_timestamp.is_some() => {
            sources.forget(&key);
            return Ok(Action::await_change());
        }
        Ok(source) => source,
        Err(invalid) => {
            let why = Why::SpecInvalid {
                field: "object",
                message: invalid.error.clone(),
            };
            tracing::warn!(source = %key.1, namespace = %key.0, %why, "object cannot be read");
            sources.teller.tell(&guard.object_ref(&()), "Read", &why).await;
            return Ok(Action::await_change());
        }
    };
    let memory = sources.memory(&key);
    let mut memory = memory.lock().await;
    memory.asked |= sources.asked.lock().is_ok_and(|mut asked| asked.remove(&key));
    pipeline(sources, source, &mut memory).await
}

/// One source, once: poll if it is due, read what is new, heal or apply, and say so.
async fn pipeline(sources: &Arc<Sources>, source: &GitSource, memory: &mut Memory) -> Result<Action, Error> {
    let now = jiff::Timestamp::now();
    memory.begin(source);
    let spec = match Spec::new(source) {
        Ok(spec) => spec,
        Err(why) => {
            let facts = Facts {
                failure: Some(why),
                ..memory.facts(source, None)
            };
            write(sources, source, memory, facts, now).await?;
            return Ok(Action::await_change());
        }
    };
    if spec.suspended {
        memory.watches.stop();
        let facts = Facts {
            suspended: true,
            ..memory.facts(source, Some(&spec))
        };
        write(sources, source, memory, facts, now).await?;
        return Ok(Action::await_change());
    }

    let mut entry = None;
    let mut candidate = None;
    let due = holdfast_core::source::poll::decide(&memory.poll_view(&spec, now), now);
    if matches!(due, Decision::Do { .. }) {
        memory.failure = None;
        match poll::poll(sources, source, &spec, memory).await {
            Ok(found) => candidate = found,
            Err(why) => memory.failure = Some(why),
        }
        sources.metrics.polled(memory.failure.as_ref());
        memory.polled(jiff::Timestamp::now());
    }
    if let Some(revision) = candidate {
        let fetched = Instant::now();
        tracing::info!(source = %source.name_any(), namespace = source.namespace(), revision, "fetched");
        match act::bring_into_force(sources, source, &spec, memory, &revision).await {
            Ok(applied) => {
                memory.accept();
                sources.metrics.applied(fetched.elapsed());
                tracing::info!(source = %source.name_any(), namespace = source.namespace(), revision, seconds = fetched.elapsed().as_secs_f64(), "in force");
                entry = applied;
            }
            Err(verdict) => memory.refuse(*verdict, jiff::Timestamp::now()),
        }
    }
    memory.live_failure = live::heal(sources, source, &spec, memory).await.err();
    if let Some(why) = &memory.live_failure {
        tracing::warn!(source = %source.name_any(), %why, "drift was not put back");
    }
    let facts = Facts {
        entry,
        ..memory.facts(source, Some(&spec))
    };
    write(sources, source, memory, facts, now).await?;
    Ok(Action::requeue(memory.next(&spec, jiff::Timestamp::now()).min(RESYNC)))
}

/// Writes the status when it says something new, and tells people about what is wrong.
async fn write(
    sources: &Sources,
    source: &GitSource,
    memory: &mut Memory,
    facts: Facts,
    now: jiff::Timestamp,
) -> Result<(), Error> {
    // The store may lag behind our own last write.
    let old = memory
        .written
        .clone()
        .or_else(|| source.status.clone())
        .unwrap_or_default();
    let blocker = facts
        .failure
        .clone()
        .or_else(|| facts.verdict.as_ref().map(|v| v.why.clone()));
    let status: GitSourceStatus = report(&old, &facts, now);
    if let Some(why) = blocker {
        sources.teller.tell(&source.object_ref(&()), "Reconcile", &why).await;
    }
    sources.metrics.ready(
        KIND,
        source.namespace().as_deref().unwrap_or(""),
        &source.name_any(),
        conditions::is_true(&status.conditions, "Ready"),
    );
    if old == status {
        return Ok(());
    }
    let api: Api<GitSource> = Api::namespaced(sources.client.clone(), &source.namespace().unwrap_or_default());
    let body = serde_json::json!({
        "apiVersion": GitSource::api_version(&()), "kind": GitSource::kind(&()), "status": status,
    });
    match api
        .patch_status(
            &source.name_any(),
            &PatchParams::apply(FIELD_MANAGER).force(),
            &Patch::Apply(&body),
        )
        .await
    {
        Ok(_) => {
            memory.written = Some(status);
            Ok(())
        }
        Err(kube::Error::Api(e)) if e.code == 404 => Ok(()),
        Err(e) => Err(Error::Status(Box::new(e))),
    }
}

/// What `plan::decide` sees when `wanted` should be in force.
fn plan_of(
    memory: &Memory,
    spec: &Spec,
    wanted: &read::Reading,
    drifted: &BTreeSet<holdfast_core::source::ObjectKey>,
    paused: &BTreeSet<holdfast_core::source::ObjectKey>,
) -> Decision<plan::Step, Why> {
    let digests: BTreeMap<_, _> = wanted.entries.iter().map(|(key, entry)| (key, entry.digest)).collect();
    let held: BTreeMap<_, _> = memory.held.iter().map(|(key, held)| (key, held.digest)).collect();
    plan::decide(&plan::View {
        revision: &wanted.revision,
        wanted: &digests,
        held: &held,
        orphans: &memory.orphans(),
        drifted,
        paused,
        prune: &spec.prune,
    })
}

/// A verdict about a revision.
fn verdict(revision: &str, why: Why, problems: Vec<holdfast_core::source::Problem>) -> Box<Verdict> {
    Box::new(Verdict {
        revision: revision.to_owned(),
        why,
        problems,
    })
}
