//! Live objects of one source, seen through watches as its ServiceAccount: so drift and health cost no requests.
//!
//! Of each object only a digest of our ownership and its health are kept; managed fields are kept while they are suspect.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use futures::StreamExt;
use holdfast_api::{
    GitSource,
    git_source::{DIGEST_ANNOTATION, SOURCE_LABEL, SOURCE_NAMESPACE_LABEL},
};
use holdfast_core::source::{
    Digest, ObjectKey,
    health::{self, Health},
    object::{annotation, split_api_version},
    poll,
};
use holdfast_kube::source::{Applier, resource};
use kube::{Api, ResourceExt, api::DynamicObject, runtime::watcher};
use serde_json::{Value, json};
use tokio::task::AbortHandle;

use super::{
    Sources,
    memory::{Held, PAUSE, asks_for_pause},
    read::Reading,
    spec::Spec,
};

/// What is known about one live object.
#[derive(Clone, Debug)]
struct Seen {
    owned: [u8; 32],
    /// `metadata.managedFields` as JSON text, until judged. As a value it would take ten times the room.
    managed: Option<Arc<str>>,
    health: Health,
    paused: bool,
    gone: bool,
    /// The digest that the object says was applied last.
    applied: Option<String>,
}

/// An object that may have drifted.
pub struct Suspect {
    pub key: ObjectKey,
    /// `metadata.managedFields` as JSON text; `None`: deleted.
    managed: Option<Arc<str>>,
    pub owned: Option<[u8; 32]>,
}

impl Suspect {
    /// As much of the live object as drift is read from; `None`: deleted.
    pub fn live(&self) -> Option<Value> {
        let managed: Value = serde_json::from_str(self.managed.as_deref()?).unwrap_or_default();
        Some(json!({"metadata": {"managedFields": managed}}))
    }
}

/// (apiVersion, kind, namespace).
type Scope = (String, String, Option<String>);

#[derive(Default)]
struct Shared {
    objects: HashMap<ObjectKey, Seen>,
    /// Watches that have listed everything, and those that cannot.
    listed: BTreeSet<Scope>,
    trouble: BTreeMap<Scope, String>,
}

/// All watches of one source. They end with it.
#[derive(Default)]
pub struct Watches {
    tasks: HashMap<Scope, AbortHandle>,
    shared: Arc<Mutex<Shared>>,
    account: Option<String>,
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Watches {
    /// Ends all watches and forgets what they saw.
    pub fn stop(&mut self) {
        for (_, task) in self.tasks.drain() {
            task.abort();
        }
        self.shared = Arc::default();
    }

    /// Starts the watches that `reading` needs and ends the others.
    pub fn cover(
        &mut self,
        sources: &Arc<Sources>,
        source: &GitSource,
        spec: &Spec,
        applier: &Option<(String, Applier)>,
        reading: &Reading,
    ) {
        let Some((account, applier)) = applier else { return };
        if self.account.as_ref() != Some(account) {
            self.stop();
            self.account = Some(account.clone());
        }
        let wanted: BTreeSet<(&str, &str, Option<&str>)> = reading
            .entries
            .iter()
            .map(|(key, e)| (e.api_version.as_str(), key.kind.as_str(), key.namespace.as_deref()))
            .collect();
        let wanted: BTreeSet<Scope> = wanted
            .into_iter()
            .map(|(version, kind, namespace)| (version.to_owned(), kind.to_owned(), namespace.map(str::to_owned)))
            .collect();
        self.tasks.retain(|scope, task| {
            let keep = wanted.contains(scope) && !task.is_finished();
            if !keep {
                task.abort();
            }
            keep
        });
        let kinds = sources.kinds();
        for scope in wanted {
            if self.tasks.contains_key(&scope) {
                continue;
            }
            let Some(facts) = kinds.get(&scope.0, &scope.1) else {
                continue;
            };
            let resource = resource(&scope.0, &scope.1, &facts);
            let api: Api<DynamicObject> = match &scope.2 {
                Some(namespace) => Api::namespaced_with(applier.client().clone(), namespace, &resource),
                None => Api::all_with(applier.client().clone(), &resource),
            };
            let (namespace, name) = (source.namespace().unwrap_or_default(), source.name_any());
            let labels = format!("{SOURCE_LABEL}={name},{SOURCE_NAMESPACE_LABEL}={namespace}");
            let task = tokio::spawn(watch(
                Arc::clone(sources),
                Arc::clone(&self.shared),
                api,
                labels,
                scope.clone(),
                spec.manager.clone(),
                (namespace, name),
            ));
            self.tasks.insert(scope, task.abort_handle());
        }
    }

    /// Takes in what an apply or a get returned; returns the digest of our ownership.
    pub fn note(&self, key: &ObjectKey, live: &Value, manager: &str) -> Option<[u8; 32]> {
        let seen = Seen {
            managed: None,
            ..seen(live, manager)
        };
        let owned = seen.owned;
        self.shared.lock().ok()?.objects.insert(key.clone(), seen);
        Some(owned)
    }

    /// Forgets an object that is no longer this source's.
    pub fn forget(&self, key: &ObjectKey) {
        if let Ok(mut shared) = self.shared.lock() {
            shared.objects.remove(key);
        }
    }

    /// A suspect turned out to be as Git wants it.
    pub fn settled(&self, key: &ObjectKey) {
        if let Ok(mut shared) = self.shared.lock()
            && let Some(seen) = shared.objects.get_mut(key)
        {
            seen.managed = None;
        }
    }

    /// Objects whose ownership is not what it was when they were last seen to be right.
    pub fn suspects(&self, held: &BTreeMap<ObjectKey, Held>) -> Vec<Suspect> {
        let Ok(shared) = self.shared.lock() else {
            return Vec::new();
        };
        held.iter()
            .filter(|(_, held)| !held.orphan)
            .filter_map(|(key, held)| {
                let seen = shared.objects.get(key)?;
                let suspect = |managed| Suspect {
                    key: key.clone(),
                    managed,
                    owned: Some(seen.owned),
                };
                if seen.gone {
                    return Some(suspect(None));
                }
                // Without managed fields it came from our own request, or was judged.
                let managed = seen.managed.as_ref()?;
                (held.owned != Some(seen.owned)).then(|| suspect(Some(Arc::clone(managed))))
            })
            .collect()
    }

    /// Objects that say that another wish than `reading`'s was applied last: they were paused, or another process had begun
    /// something else. What our own requests returned is not asked.
    pub fn behind(&self, reading: &Reading) -> Vec<ObjectKey> {
        let Ok(shared) = self.shared.lock() else {
            return Vec::new();
        };
        let other = |key: &ObjectKey, digest: Digest| {
            shared.objects.get(key).is_some_and(|seen| {
                !seen.gone && seen.managed.is_some() && seen.applied.as_ref().is_some_and(|a| *a != digest.to_string())
            })
        };
        reading
            .entries
            .iter()
            .filter(|(key, entry)| other(key, entry.digest))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Objects that a person has paused by annotation.
    pub fn paused(&self) -> Vec<ObjectKey> {
        self.shared
            .lock()
            .map(|s| {
                s.objects
                    .iter()
                    .filter(|(_, seen)| seen.paused)
                    .map(|(key, _)| key.clone())
                    .collect()
            })
            .unwrap_or_default()
    }

    /// Of these objects those that are not as they should be, with their health as last seen; `None`: not seen.
    pub fn unwell<'a>(&self, keys: impl Iterator<Item = &'a ObjectKey>) -> Vec<(&'a ObjectKey, Option<Health>)> {
        let Ok(shared) = self.shared.lock() else {
            return Vec::new();
        };
        keys.filter_map(|key| match shared.objects.get(key).filter(|s| !s.gone) {
            Some(seen) if seen.health == Health::Current => None,
            Some(seen) => Some((key, Some(seen.health.clone()))),
            None => Some((key, None)),
        })
        .collect()
    }

    /// Whether every watch has listed what is there.
    pub fn complete(&self) -> bool {
        self.shared
            .lock()
            .is_ok_and(|s| self.tasks.keys().all(|scope| s.listed.contains(scope)))
    }

    /// Why something cannot be watched.
    pub fn trouble(&self) -> Option<String> {
        self.shared.lock().ok()?.trouble.values().next().cloned()
    }
}

fn seen(live: &Value, manager: &str) -> Seen {
    let managed = live.pointer("/metadata/managedFields");
    let ours = managed
        .and_then(Value::as_array)
        .and_then(|entries| {
            entries.iter().find(|e| {
                e.get("manager").and_then(Value::as_str) == Some(manager)
                    && e.get("operation").and_then(Value::as_str) == Some("Apply")
            })
        })
        .and_then(|e| e.get("fieldsV1"));
    Seen {
        owned: Digest::of(ours.unwrap_or(&Value::Null)).0,
        managed: Some(managed.unwrap_or(&Value::Null).to_string().into()),
        health: health::of(live),
        paused: asks_for_pause(annotation(live, PAUSE)),
        gone: false,
        applied: annotation(live, DIGEST_ANNOTATION).map(str::to_owned),
    }
}

async fn watch(
    sources: Arc<Sources>,
    shared: Arc<Mutex<Shared>>,
    api: Api<DynamicObject>,
    labels: String,
    scope: Scope,
    manager: String,
    source: (String, String),
) {
    // The library's own back-off starts anew with each try to list, so a watch that is forbidden would ask every second.
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default().labels(&labels)));
    let mut listing: BTreeSet<ObjectKey> = BTreeSet::new();
    let mut failures = 0_u32;
    while let Some(event) = events.next().await {
        match &event {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
            Ok(_) => failures = 0,
            Err(_) => failures = failures.saturating_add(1),
        }
        let failed = event.is_err();
        let wake = match event {
            Ok(watcher::Event::Init) => {
                listing.clear();
                false
            }
            Ok(watcher::Event::InitApply(object)) => {
                let key = key(&scope, &object);
                listing.insert(key.clone());
                take_in(&shared, &key, object, &scope, &manager);
                false
            }
            Ok(watcher::Event::InitDone) => {
                if let Ok(mut shared) = shared.lock() {
                    for (key, seen) in &mut shared.objects {
                        if in_scope(key, &scope) && !listing.contains(key) {
                            seen.gone = true;
                        }
                    }
                    shared.listed.insert(scope.clone());
                    shared.trouble.remove(&scope);
                }
                true
            }
            Ok(watcher::Event::Apply(object)) => {
                let key = key(&scope, &object);
                take_in(&shared, &key, object, &scope, &manager)
            }
            Ok(watcher::Event::Delete(object)) => {
                let key = key(&scope, &object);
                shared.lock().is_ok_and(|mut s| {
                    s.objects.get_mut(&key).is_some_and(|seen| {
                        seen.gone = true;
                        true
                    })
                })
            }
            Err(error) => {
                let message = format!(
                    "{} cannot be watched in {}: {error}",
                    scope.1,
                    scope.2.as_deref().unwrap_or("the cluster")
                );
                let forbidden = message.contains("orbidden");
                tracing::debug!(%message);
                forbidden
                    && shared
                        .lock()
                        .is_ok_and(|mut s| s.trouble.insert(scope.clone(), message).is_none())
            }
        };
        if wake {
            sources.wake(&source.0, &source.1);
        }
        if failed {
            tokio::time::sleep(poll::watch_pause(failures)).await;
        }
    }
}

fn key(scope: &Scope, object: &DynamicObject) -> ObjectKey {
    ObjectKey {
        group: split_api_version(&scope.0).0.to_owned(),
        kind: scope.1.clone(),
        namespace: object.metadata.namespace.clone(),
        name: object.metadata.name.clone().unwrap_or_default(),
    }
}

fn in_scope(key: &ObjectKey, scope: &Scope) -> bool {
    key.kind == scope.1 && key.namespace == scope.2 && key.group == split_api_version(&scope.0).0
}

/// Returns whether anything changed that the source cares about.
fn take_in(shared: &Mutex<Shared>, key: &ObjectKey, object: DynamicObject, scope: &Scope, manager: &str) -> bool {
    let Ok(mut live) = serde_json::to_value(object) else {
        return false;
    };
    // Items of a list come without their type.
    if let Value::Object(fields) = &mut live {
        fields.insert("apiVersion".into(), json!(scope.0));
        fields.insert("kind".into(), json!(scope.1));
    }
    let new = seen(&live, manager);
    let Ok(mut shared) = shared.lock() else { return false };
    match shared.objects.get_mut(key) {
        Some(old) => {
            let changed = old.applied != new.applied
                || old.owned != new.owned
                || old.health != new.health
                || old.paused != new.paused
                || old.gone;
            // What our own request returned, or what was judged, is no suspect again.
            let managed = if old.owned == new.owned && old.applied == new.applied && old.managed.is_none() {
                None
            } else {
                new.managed.clone()
            };
            *old = Seen { managed, ..new };
            changed
        }
        None => {
            shared.objects.insert(key.clone(), new);
            true
        }
    }
}
