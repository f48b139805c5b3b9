//! What the operator watches: its own labelled objects, nothing else of the cluster.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use futures::{Stream, StreamExt, TryStreamExt};
use holdfast_api::HAReplicaSet;
use holdfast_core::replica_set::{PodView, RecordView, Ties, VolumeView};
use holdfast_wire::{MANAGED_BY, SET_LABEL};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::core::DeserializeGuard;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::observe::{self, WishView};
use super::views::{Place, SetKey, View, Views};
use crate::runtime::Applied;

type Guarded = DeserializeGuard<HAReplicaSet>;

/// What decisions read. Everything else is watched by metadata only, to notice foreign hands.
#[derive(Default)]
pub struct Stores {
    pub pods: Views<PodView>,
    pub claims: Views<VolumeView>,
    pub secrets: Views<Ties>,
    pub leases: Views<RecordView>,
    pub wishes: Views<WishView>,
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
    ) -> (Arc<Stores>, impl Stream<Item = ObjectRef<Guarded>> + use<>) {
        let (triggers, receiver) = mpsc::channel(TRIGGERS);
        let watch = Watch {
            client,
            namespace,
            applied,
            stop,
            triggers,
        };
        let stores = Arc::new(Stores::default());
        watch.views(&stores, |stores| &stores.pods, observe::pod_view);
        watch.views(&stores, |stores| &stores.claims, observe::volume_view);
        // Metadata only: what is in them is read where it is needed.
        watch.views::<PartialObjectMeta<Secret>, _>(&stores, |stores| &stores.secrets, observe::secret_view);
        watch.views(&stores, |stores| &stores.leases, observe::record_view);
        watch.views(&stores, |stores| &stores.wishes, observe::wish_view);
        watch.meta::<Service>();
        watch.meta::<ServiceAccount>();
        watch.meta::<Role>();
        watch.meta::<RoleBinding>();
        watch.meta::<PodDisruptionBudget>();
        watch.meta::<EndpointSlice>();
        let ready = async {
            stores.pods.complete().await;
            stores.claims.complete().await;
            stores.secrets.complete().await;
            stores.leases.complete().await;
            stores.wishes.complete().await;
        };
        tokio::select! {
            () = ready => {}
            () = stop.cancelled() => {}
        }
        (stores, ReceiverStream::new(receiver))
    }
}

/// Objects in one page of a list. A page is in memory whole, as text and parsed: pages of the default's 500 Pods would be the most
/// that the operator ever needs.
pub const PAGE: u32 = 100;

fn ours() -> watcher::Config {
    watcher::Config::default()
        .page_size(PAGE)
        .labels(&format!("app.kubernetes.io/managed-by={MANAGED_BY},{SET_LABEL}"))
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

    /// Keeps what decisions read of a kind's objects, and wakes their sets for news.
    fn views<K, V>(&self, stores: &Arc<Stores>, of: fn(&Stores) -> &Views<V>, view: fn(&K) -> Option<V>)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + Debug
            + Send
            + 'static,
        V: View,
    {
        let stores = Arc::clone(stores);
        let mut listing: Option<HashSet<Place>> = None;
        let stream = watcher(self.api::<K>(), ours()).default_backoff();
        self.spawn(stream, move |event, foreign| {
            let views = of(&stores);
            match event {
                watcher::Event::Init => listing = Some(HashSet::new()),
                watcher::Event::InitDone => return views.listed(&listing.take().unwrap_or_default()),
                watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                    let Some(place) = place(object) else { return Vec::new() };
                    let Some(view) = view(object) else {
                        // Not, or no longer, what a decision reads.
                        let woken = views.remove(&place) || foreign;
                        return woken.then_some(place.of).into_iter().collect();
                    };
                    if let Some(named) = &mut listing {
                        named.insert(place.clone());
                    }
                    if views.put(&place, view, Instant::now()) || foreign {
                        return vec![place.of];
                    }
                }
                watcher::Event::Delete(object) => {
                    let Some(place) = place(object) else { return Vec::new() };
                    if views.remove(&place) || foreign {
                        return vec![place.of];
                    }
                }
            }
            Vec::new()
        });
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
        self.spawn(watcher(api, ours()).default_backoff(), |event, foreign| {
            let object = match event {
                watcher::Event::Apply(o) | watcher::Event::InitApply(o) | watcher::Event::Delete(o) if foreign => o,
                _ => return Vec::new(),
            };
            place(object).map(|place| place.of).into_iter().collect()
        });
    }

    /// Follows a watch. `news` gives the sets to wake for an event; it is told whether what was applied may not be in force.
    fn spawn<K>(
        &self,
        stream: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
        mut news: impl FnMut(&watcher::Event<K>, bool) -> Vec<SetKey> + Send + 'static,
    ) where
        K: Resource<DynamicType = ()> + Send + 'static,
    {
        let (applied, triggers, stop) = (self.applied.clone(), self.triggers.clone(), self.stop.clone());
        let kind = K::kind(&()).into_owned();
        tokio::spawn(async move {
            let mut stream = Box::pin(stream.map_err(|error| tracing::warn!(%error, "watch")));
            loop {
                let event = tokio::select! {
                    () = stop.cancelled() => return,
                    event = stream.next() => event,
                };
                let event = match event {
                    None => return,
                    Some(Err(())) => continue,
                    Some(Ok(event)) => event,
                };
                let foreign = match &event {
                    watcher::Event::Apply(o) | watcher::Event::InitApply(o) => applied.seen(&kind, o, false),
                    watcher::Event::Delete(o) => applied.seen(&kind, o, true),
                    // What was deleted before a new list is named by no event: all that was applied is applied once more.
                    watcher::Event::Init => {
                        applied.forget(&kind);
                        false
                    }
                    watcher::Event::InitDone => false,
                };
                for SetKey { namespace, set } in news(&event, foreign) {
                    if triggers.send(ObjectRef::new(&set).within(&namespace)).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

fn place<K: Resource>(object: &K) -> Option<Place> {
    let meta = object.meta();
    Some(Place {
        of: SetKey {
            namespace: meta.namespace.clone()?,
            set: meta.labels.as_ref()?.get(SET_LABEL)?.clone(),
        },
        name: meta.name.clone()?,
    })
}
