//! In which order objects are applied; deletion goes the other way round.

use super::ObjectKey;

/// Objects of a lower rank are applied, and served, before those of a higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(u8);

/// The rank of an object: what others live in or are kinds of first, then what others name, then what runs, and last what
/// stands in the way of every other request.
pub fn rank(key: &ObjectKey) -> Rank {
    Rank(match (key.group.as_str(), key.kind.as_str()) {
        ("", "Namespace") | ("apiextensions.k8s.io", "CustomResourceDefinition") => 0,
        ("", "ResourceQuota" | "LimitRange" | "ServiceAccount" | "PersistentVolume")
        | ("storage.k8s.io", _)
        | ("scheduling.k8s.io", _) => 1,
        ("rbac.authorization.k8s.io", _) | ("networking.k8s.io", "NetworkPolicy") => 2,
        ("", "Secret" | "ConfigMap" | "PersistentVolumeClaim") => 3,
        ("holdfast.dev", "BackupTier" | "UpdateWindow") => 4,
        ("holdfast.dev", "BackupPolicy" | "SoftwareBaseline") => 5,
        ("holdfast.dev", "HAReplicaSet") => 6,
        ("holdfast.dev", "HACluster" | "Drill" | "PromotionPlan" | "GitSource") => 7,
        ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => 9,
        _ => 6,
    })
}

/// Sorts into waves of equal rank, each wave sorted by key so that two runs do the same.
pub fn waves(mut keys: Vec<ObjectKey>) -> Vec<Vec<ObjectKey>> {
    keys.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
    let mut waves: Vec<Vec<ObjectKey>> = Vec::new();
    for key in keys {
        match waves.last_mut() {
            Some(wave) if wave.last().is_some_and(|last| rank(last) == rank(&key)) => wave.push(key),
            _ => waves.push(vec![key]),
        }
    }
    waves
}
