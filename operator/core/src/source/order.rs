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

#[cfg(test)]
mod tests {
    use super::*;

    fn key(group: &str, kind: &str) -> ObjectKey {
        ObjectKey {
            group: group.into(),
            kind: kind.into(),
            namespace: None,
            name: "a".into(),
        }
    }

    /// Each comes before all that follow: what it names, lives in, or is a kind of.
    #[test]
    fn what_others_need_comes_first() {
        let order = [
            &[("", "Namespace"), ("apiextensions.k8s.io", "CustomResourceDefinition")][..],
            &[
                ("", "ServiceAccount"),
                ("", "ResourceQuota"),
                ("storage.k8s.io", "StorageClass"),
            ],
            &[
                ("rbac.authorization.k8s.io", "Role"),
                ("networking.k8s.io", "NetworkPolicy"),
            ],
            &[("", "Secret"), ("", "ConfigMap")],
            &[
                ("holdfast.dev", "HAReplicaSet"),
                ("apps", "Deployment"),
                ("example.org", "Widget"),
            ],
            &[("holdfast.dev", "GitSource")],
            &[("admissionregistration.k8s.io", "ValidatingWebhookConfiguration")],
        ];
        let keys = |wave: &[(&str, &str)]| wave.iter().map(|(group, kind)| key(group, kind)).collect::<Vec<_>>();
        let waves = waves(order.iter().rev().flat_map(|wave| keys(wave)).collect());
        assert_eq!(waves.len(), order.len(), "{waves:?}");
        for (wave, wanted) in waves.iter().zip(order) {
            let (mut wave, mut wanted) = (wave.clone(), keys(wanted));
            wave.sort();
            wanted.sort();
            assert_eq!(wave, wanted);
        }
    }
}
