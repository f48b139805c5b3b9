//! Kubernetes objects of a replica set, spelled out in full: pure functions of what was decided.

mod access;
mod pod;
mod services;
mod state;

pub use access::{role, role_binding, service_account};
pub use pod::{PodInput, pod, template_hash};
pub use services::{budget, empty_slice, service};
pub use state::{Authorities, app_secret, ca_secret, claim, lease, spec_map, tls_secret};

use std::collections::BTreeMap;

use holdfast_api::HAReplicaSet;
use holdfast_api::replica_set::DeletionPolicy;
use holdfast_wire::{MANAGED_BY, MEMBER_LABEL, SET_LABEL};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

/// Annotation: UID of the HAReplicaSet that a retained object (volume, Lease, Secret) belongs to.
pub const OWNER_UID: &str = "holdfast.dev/owner-uid";
/// Annotation on Pods: hash of the template that they were made from.
pub const TEMPLATE: &str = "holdfast.dev/template";

/// The replica set that objects are made for.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// Data goes with the object.
    pub data_goes: bool,
    reference: Option<OwnerReference>,
}

impl Owner {
    /// From the object as read.
    pub fn of(set: &HAReplicaSet) -> Owner {
        Owner {
            name: set.name_any(),
            namespace: set.namespace().unwrap_or_default(),
            uid: set.uid().unwrap_or_default(),
            data_goes: set.spec.deletion_policy == DeletionPolicy::Delete,
            reference: set.controller_owner_ref(&()),
        }
    }

    /// Labels of everything that belongs to the set.
    pub fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("app.kubernetes.io/managed-by".to_owned(), MANAGED_BY.to_owned()),
            ("app.kubernetes.io/name".to_owned(), "postgresql".to_owned()),
            ("app.kubernetes.io/instance".to_owned(), self.name.clone()),
            (SET_LABEL.to_owned(), self.name.clone()),
        ])
    }

    /// Metadata of an object that goes with the replica set.
    pub fn meta(&self, name: String) -> ObjectMeta {
        self.metadata(name, self.reference.clone())
    }

    /// Metadata of an object that is, or unlocks, data. Without an owner reference garbage collection never takes it; with
    /// `deletionPolicy: Delete` it has one, so that no finalizer of ours can ever hold up a deletion.
    pub fn retained(&self, name: String) -> ObjectMeta {
        self.metadata(name, self.reference.clone().filter(|_| self.data_goes))
    }

    /// Has such an object with this UID go with the replica set, or not: a strategic merge patch, which touches nobody else's
    /// reference and does nothing when it is done already.
    pub fn tying(&self, uid: &str, goes: bool) -> Value {
        let entry = match goes {
            true => self.tie().map(|tie| json!(tie)),
            false => Some(json!({"$patch": "delete", "uid": self.uid})),
        };
        let entries: Vec<Value> = entry.into_iter().collect();
        json!({"metadata": {"uid": uid, "ownerReferences": entries}})
    }

    /// Enough for garbage collection of what is there already, and not the controller's: of that there may be one only, and adding this
    /// must never be refused because something else controls a volume.
    fn tie(&self) -> Option<OwnerReference> {
        self.reference.clone().map(|reference| OwnerReference {
            controller: None,
            block_owner_deletion: None,
            ..reference
        })
    }

    fn metadata(&self, name: String, reference: Option<OwnerReference>) -> ObjectMeta {
        ObjectMeta {
            owner_references: reference.map(|r| vec![r]),
            name: Some(name),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.labels()),
            annotations: Some(BTreeMap::from([(OWNER_UID.to_owned(), self.uid.clone())])),
            ..ObjectMeta::default()
        }
    }

    /// Adds the member's label.
    pub fn of_member(&self, mut meta: ObjectMeta, member: &str) -> ObjectMeta {
        meta.labels
            .get_or_insert_default()
            .insert(MEMBER_LABEL.to_owned(), member.to_owned());
        meta
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(policy: &str) -> Owner {
        let spec = serde_json::from_value(json!({
            "engine": {"postgresql": {"image": "postgres:17"}}, "storage": {"size": "1Gi"}, "deletionPolicy": policy
        }));
        let mut set = HAReplicaSet::new("db", spec.unwrap());
        set.metadata.uid = Some("u1".into());
        Owner::of(&set)
    }

    #[test]
    fn data_is_tied_by_policy_and_the_rest_always() {
        let keeps = owner("Retain");
        assert_eq!(keeps.retained("db-1".into()).owner_references, None);
        assert_eq!(
            keeps.meta("db".into()).owner_references.unwrap()[0].controller,
            Some(true)
        );
        let goes = owner("Delete").retained("db-1".into()).owner_references.unwrap();
        assert_eq!((goes.len(), goes[0].uid.as_str()), (1, "u1"));
    }

    #[test]
    fn a_tie_controls_nothing_and_is_removed_by_its_key() {
        let owner = owner("Delete");
        let patch = owner.tying("claim", true);
        assert_eq!(patch["metadata"]["uid"], "claim");
        let added = &patch["metadata"]["ownerReferences"][0];
        assert_eq!((&added["uid"], &added["controller"]), (&json!("u1"), &json!(null)));
        let patch = owner.tying("claim", false);
        let removed = json!([{"$patch": "delete", "uid": "u1"}]);
        assert_eq!(patch, json!({"metadata": {"uid": "claim", "ownerReferences": removed}}));
    }
}
