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
        self.metadata(name, true)
    }

    /// Metadata of an object that is, or unlocks, data. Without an owner reference garbage collection never takes it; with
    /// `deletionPolicy: Delete` it has one, so that no finalizer of ours can ever hold up a deletion.
    pub fn retained(&self, name: String) -> ObjectMeta {
        self.metadata(name, self.data_goes)
    }

    fn metadata(&self, name: String, owned: bool) -> ObjectMeta {
        ObjectMeta {
            owner_references: self.reference.clone().filter(|_| owned).map(|r| vec![r]),
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
