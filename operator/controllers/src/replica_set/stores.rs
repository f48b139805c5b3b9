//! What the operator watches: its own labelled objects, nothing else of the cluster.

use std::fmt::Debug;
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt};
use holdfast_api::HAReplicaSet;
use holdfast_wire::{MANAGED_BY, SET_LABEL};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::core::DeserializeGuard;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::runtime::Applied;

type Guarded = DeserializeGuard<HAReplicaSet>;

/// Caches of what decisions need in full. Everything else is watched by metadata only, to notice foreign hands.
pub struct Stores {
    pub pods: Store<Pod>,
    pub claims: Store<PersistentVolumeClaim>,
    pub leases: Store<Lease>,
    pub wishes: Store<ConfigMap>,
}

/// How many wake-ups may wait for the controller; more than that block the watches, which then catch up.
const TRIGGERS: usize = 1024;

struct Watch<'a> {
    client: &'a Client,
    namespace: Option<&'a str>,
    applied: &'a Arc<Applied>,
    stop: &'a CancellationToken,
    triggers: mpsc::Sender<ObjectRef<Guarded>>,
}

impl Stores {
    /// Starts the watches and waits until the caches are filled: a decision from half a view could make a second of what is
    /// already there.
    pub async fn start(
        client: &Client,
        namespace: Option<&str>,
        applied: &Arc<Applied>,
        stop: &CancellationToken,
    ) -> (Stores, impl Stream<Item = ObjectRef<Guarded>> + use<>) {
        let (triggers, receiver) = mpsc::channel(TRIGGERS);
        let watch = Watch {
            client,
            namespace,
            applied,
            stop,
            triggers,
        };
        let stores = Stores {
            pods: watch.full(),
            claims: watch.full(),
            leases: watch.full(),
            wishes: watch.full(),
        };
        watch.meta::<Service>();
        watch.meta::<Secret>();
        watch.meta::<ServiceAccount>();
        watch.meta::<Role>();
        watch.meta::<RoleBinding>();
        watch.meta::<PodDisruptionBudget>();
        watch.meta::<EndpointSlice>();
        let ready = async {
            let _ = stores.pods.wait_until_ready().await;
            let _ = stores.claims.wait_until_ready().await;
            let _ = stores.leases.wait_until_ready().await;
            let _ = stores.wishes.wait_until_ready().await;
        };
        tokio::select! {
            () = ready => {}
            () = stop.cancelled() => {}
        }
        (stores, ReceiverStream::new(receiver))
    }
}

fn ours() -> watcher::Config {
    watcher::Config::default().labels(&format!("app.kubernetes.io/managed-by={MANAGED_BY},{SET_LABEL}"))
}

impl Watch<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match self.namespace {
            Some(ns) => Api::namespaced(self.client.clone(), ns),
            None => Api::all(self.client.clone()),
        }
    }

    /// A cache of whole objects.
    fn full<K>(&self) -> Store<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + Debug
            + Send
            + Sync
            + 'static,
    {
        let (reader, writer) = reflector::store::<K>();
        let stream = watcher(self.api::<K>(), ours())
            .default_backoff()
            .modify(|o| o.managed_fields_mut().clear())
            .reflect(writer);
        self.spawn(stream);
        reader
    }

    /// Metadata only, not kept.
    fn meta<K>(&self)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Send + Sync + 'static,
    {
        let api: Api<PartialObjectMeta<K>> = match self.namespace {
            Some(ns) => Api::namespaced(self.client.clone(), ns),
            None => Api::all(self.client.clone()),
        };
        self.spawn_meta(K::kind(&()).into_owned(), watcher(api, ours()).default_backoff());
    }

    fn spawn<K>(&self, stream: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static)
    where
        K: Resource<DynamicType = ()> + Send + 'static,
    {
        self.spawn_as(K::kind(&()).into_owned(), false, stream);
    }

    fn spawn_meta<K>(
        &self,
        kind: String,
        stream: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
    ) where
        K: Resource<DynamicType = ()> + Send + 'static,
    {
        self.spawn_as(kind, true, stream);
    }

    fn spawn_as<K>(
        &self,
        kind: String,
        only_foreign: bool,
        stream: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
    ) where
        K: Resource<DynamicType = ()> + Send + 'static,
    {
        let (applied, triggers, stop) = (self.applied.clone(), self.triggers.clone(), self.stop.clone());
        tokio::spawn(async move {
            let mut stream = Box::pin(stream.map_err(|error| tracing::warn!(%error, "watch")));
            loop {
                let event = tokio::select! {
                    () = stop.cancelled() => return,
                    event = stream.next() => event,
                };
                let (object, deleted) = match event {
                    None => return,
                    Some(Ok(watcher::Event::Apply(o) | watcher::Event::InitApply(o))) => (o, false),
                    Some(Ok(watcher::Event::Delete(o))) => (o, true),
                    Some(_) => continue,
                };
                let foreign = applied.seen(&kind, &object, deleted);
                if only_foreign && !foreign {
                    continue;
                }
                if let Some(set) = set_of(&object)
                    && triggers.send(set).await.is_err()
                {
                    return;
                }
            }
        });
    }
}

fn set_of<K: Resource>(object: &K) -> Option<ObjectRef<Guarded>> {
    let name = object.meta().labels.as_ref()?.get(SET_LABEL)?;
    let namespace = object.meta().namespace.as_ref()?;
    Some(ObjectRef::new(name).within(namespace))
}

/// The objects of one set in a cache.
pub fn of_set<K>(store: &Store<K>, namespace: &str, set: &str) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    store.state_filter(|o| {
        o.meta().namespace.as_deref() == Some(namespace)
            && o.meta()
                .labels
                .as_ref()
                .and_then(|l| l.get(SET_LABEL))
                .is_some_and(|s| s == set)
    })
}
