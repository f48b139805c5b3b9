//! Storage and placement of members.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Toleration};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The volume of each member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Size, for example 20Gi. May grow where the storage class allows it; never shrinks.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(
        validation = Rule::new("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))").message("spec.storage.size must be a quantity above 0, for example 20Gi"),
        validation = Rule::new("!isQuantity(self) || !isQuantity(oldSelf) || !quantity(self).isLessThan(quantity(oldSelf))").message("spec.storage.size cannot shrink: volumes only grow"),
    )]
    pub size: String,
    /// Storage class; the cluster's default where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.storage.storageClassName cannot be changed: volumes are not moved between classes"))]
    pub storage_class_name: Option<String>,
}

/// Where all log goes, for a restore to any moment after a base backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Archive {
    /// A PersistentVolumeClaim of this namespace, which every member mounts: ReadWriteMany for more than one. Holdfast neither makes nor
    /// deletes it, and never replaces or removes a file on it. The log of this set is in the folder NAMESPACE.NAME, so several sets may
    /// share one. Another name is a rolling restart.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("spec.archive.volumeClaimName must be the name of a PersistentVolumeClaim, for example wal-archive"))]
    pub volume_claim_name: String,
}

/// Where members may run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Node label whose values members are spread over, for example topology.kubernetes.io/zone. Members are put on
    /// different nodes too where the scheduler finds room; it is preferred, not required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    pub spread_over: Option<String>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Further rules, as in a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Tolerations, as in a Pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Priority class of the Pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
}

/// What happens to the data when the object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum DeletionPolicy {
    /// Volumes and Secrets stay.
    #[default]
    Retain,
    /// Volumes and Secrets go with the object.
    Delete,
}
