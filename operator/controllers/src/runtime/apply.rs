//! Server-side apply that costs nothing when nothing moved.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Mutex;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// The operator's field manager.
pub const FIELD_MANAGER: &str = "holdfast";

/// Remembers, per object, what was applied and the resourceVersion that came of it. A watch event with another version
/// (somebody changed or deleted the object) forgets it, so that the next reconcile applies again.
#[derive(Default)]
pub struct Applied(Mutex<HashMap<Key, Entry>>);

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    kind: String,
    namespace: String,
    name: String,
}

struct Entry {
    digest: [u8; 32],
    version: Option<String>,
    /// Made once; what others write into it is theirs.
    only_created: bool,
}

fn key<K: Resource<DynamicType = ()>>(object: &K) -> Key {
    Key {
        kind: K::kind(&()).into_owned(),
        namespace: object.meta().namespace.clone().unwrap_or_default(),
        name: object.meta().name.clone().unwrap_or_default(),
    }
}

impl Applied {
    /// Applies `object` unless exactly this was applied and is still in force. Fields are taken from other managers
    /// (`force`): these objects are Holdfast's own.
    pub async fn apply<K>(&self, client: &Client, object: &K) -> Result<(), kube::Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug,
    {
        let key = key(object);
        let json = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let digest: [u8; 32] = Sha256::digest(&json).into();
        if self
            .0
            .lock()
            .is_ok_and(|m| m.get(&key).is_some_and(|e| e.digest == digest))
        {
            return Ok(());
        }
        let api: Api<K> = Api::namespaced(client.clone(), &key.namespace);
        let mut body = serde_json::to_value(object).map_err(kube::Error::SerdeError)?;
        if let Some(map) = body.as_object_mut() {
            map.insert("apiVersion".into(), K::api_version(&()).into_owned().into());
            map.insert("kind".into(), K::kind(&()).into_owned().into());
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let live = api.patch(&key.name, &params, &Patch::Apply(&body)).await?;
        if let Ok(mut map) = self.0.lock() {
            map.insert(
                key,
                Entry {
                    digest,
                    version: live.resource_version(),
                    only_created: false,
                },
            );
        }
        Ok(())
    }

    /// Creates `object` unless it is there.
    pub async fn create<K>(&self, client: &Client, object: &K) -> Result<(), kube::Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug,
    {
        if self.holds(object) {
            return Ok(());
        }
        let key = key(object);
        let api: Api<K> = Api::namespaced(client.clone(), &key.namespace);
        match api
            .create(
                &PostParams {
                    field_manager: Some(FIELD_MANAGER.into()),
                    ..PostParams::default()
                },
                object,
            )
            .await
        {
            Ok(_) => {}
            Err(kube::Error::Api(e)) if e.code == 409 => {}
            Err(e) => return Err(e),
        }
        if let Ok(mut map) = self.0.lock() {
            map.insert(
                key,
                Entry {
                    digest: [0; 32],
                    version: None,
                    only_created: true,
                },
            );
        }
        Ok(())
    }

    /// Whether something was applied for this object and no foreign change has been seen since.
    pub fn holds<K: Resource<DynamicType = ()>>(&self, object: &K) -> bool {
        let key = key(object);
        self.0.lock().is_ok_and(|m| m.contains_key(&key))
    }

    /// Nothing is known of a kind's objects any more.
    pub fn forget(&self, kind: &str) {
        if let Ok(mut map) = self.0.lock() {
            map.retain(|key, _| key.kind != kind);
        }
    }

    /// A watch saw `object`: true when what was applied may no longer be in force.
    pub fn seen<K: Resource<DynamicType = ()>>(&self, kind: &str, object: &K, deleted: bool) -> bool {
        let key = Key {
            kind: kind.to_owned(),
            ..key(object)
        };
        let Ok(mut map) = self.0.lock() else { return true };
        let moved = map
            .get(&key)
            .is_some_and(|e| deleted || (!e.only_created && e.version != object.meta().resource_version));
        if moved {
            map.remove(&key);
        }
        moved
    }
}
