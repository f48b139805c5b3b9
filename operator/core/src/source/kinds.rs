//! What is known about kinds without asking a server, and which of them hold data.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{object::split_api_version, yaml::Document};

/// How the API serves one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindFacts {
    /// Its name in URLs.
    pub plural: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

/// Facts by (apiVersion, kind): the built-in ones, and those that discovery added.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    discovered: BTreeMap<(String, String), KindFacts>,
}

/// (apiVersion, kind, plural, namespaced): kinds that every server has, so that no discovery is needed for them.
const BUILT_IN: &[(&str, &str, &str, bool)] = &[
    ("v1", "ConfigMap", "configmaps", true),
    ("v1", "Secret", "secrets", true),
    ("v1", "ServiceAccount", "serviceaccounts", true),
    ("v1", "Service", "services", true),
    ("v1", "PersistentVolumeClaim", "persistentvolumeclaims", true),
    ("v1", "Pod", "pods", true),
    ("v1", "Namespace", "namespaces", false),
    ("v1", "PersistentVolume", "persistentvolumes", false),
    ("v1", "ResourceQuota", "resourcequotas", true),
    ("v1", "LimitRange", "limitranges", true),
    ("apps/v1", "Deployment", "deployments", true),
    ("apps/v1", "StatefulSet", "statefulsets", true),
    ("apps/v1", "DaemonSet", "daemonsets", true),
    ("batch/v1", "Job", "jobs", true),
    ("batch/v1", "CronJob", "cronjobs", true),
    ("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", true),
    ("networking.k8s.io/v1", "Ingress", "ingresses", true),
    ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", true),
    ("rbac.authorization.k8s.io/v1", "Role", "roles", true),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings", true),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", false),
    (
        "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding",
        "clusterrolebindings",
        false,
    ),
    (
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        false,
    ),
    ("storage.k8s.io/v1", "StorageClass", "storageclasses", false),
    ("holdfast.dev/v1alpha1", "HAReplicaSet", "hareplicasets", true),
    ("holdfast.dev/v1alpha1", "GitSource", "gitsources", true),
];

impl Kinds {
    /// Facts about a kind, if they are known.
    pub fn get(&self, api_version: &str, kind: &str) -> Option<KindFacts> {
        if let Some((_, _, plural, namespaced)) = BUILT_IN.iter().find(|(v, k, ..)| *v == api_version && *k == kind) {
            return Some(KindFacts {
                plural: (*plural).to_owned(),
                namespaced: *namespaced,
            });
        }
        self.discovered.get(&(api_version.to_owned(), kind.to_owned())).cloned()
    }

    /// Some version of a kind that is known by its group.
    pub fn any_version(&self, group: &str, kind: &str) -> Option<(String, KindFacts)> {
        let fits = |api_version: &str, k: &str| k == kind && split_api_version(api_version).0 == group;
        let built_in = BUILT_IN
            .iter()
            .find(|(v, k, ..)| fits(v, k))
            .map(|(v, ..)| (*v).to_owned());
        let version = built_in.or_else(|| self.discovered.keys().find(|(v, k)| fits(v, k)).map(|(v, _)| v.clone()))?;
        let facts = self.get(&version, kind)?;
        Some((version, facts))
    }

    /// Adds what discovery found.
    pub fn learn(&mut self, api_version: &str, kind: &str, facts: KindFacts) {
        self.discovered.insert((api_version.to_owned(), kind.to_owned()), facts);
    }

    /// Forgets what discovery found, so that it is asked again.
    pub fn forget(&mut self, api_version: &str, kind: &str) {
        self.discovered.remove(&(api_version.to_owned(), kind.to_owned()));
    }
}

/// Whether deleting an object of this kind destroys data, or many other objects with it.
pub fn holds_data(group: &str, kind: &str) -> bool {
    match group {
        "holdfast.dev" => matches!(kind, "HAReplicaSet" | "HACluster" | "BackupTier" | "Backup"),
        "" => matches!(kind, "PersistentVolumeClaim" | "PersistentVolume" | "Namespace"),
        "apps" => kind == "StatefulSet",
        "apiextensions.k8s.io" => kind == "CustomResourceDefinition",
        _ => false,
    }
}

/// The kinds that CustomResourceDefinitions among these documents provide; they become known without asking the server, which
/// may not have them yet.
pub fn definitions<'a>(
    documents: impl IntoIterator<Item = &'a Document>,
    kinds: &mut Kinds,
) -> BTreeSet<(String, String)> {
    let mut provided = BTreeSet::new();
    for document in documents {
        let text = |pointer: &str| document.value.pointer(pointer).and_then(Value::as_str);
        if text("/kind") != Some("CustomResourceDefinition") {
            continue;
        }
        let (Some(group), Some(kind), Some(plural)) = (
            text("/spec/group"),
            text("/spec/names/kind"),
            text("/spec/names/plural"),
        ) else {
            continue;
        };
        let versions = document.value.pointer("/spec/versions").and_then(Value::as_array);
        for version in versions
            .into_iter()
            .flatten()
            .filter_map(|v| v.get("name").and_then(Value::as_str))
        {
            let api_version = format!("{group}/{version}");
            if kinds.get(&api_version, kind).is_none() {
                kinds.learn(
                    &api_version,
                    kind,
                    KindFacts {
                        plural: plural.to_owned(),
                        namespaced: text("/spec/scope") != Some("Cluster"),
                    },
                );
                provided.insert((api_version, kind.to_owned()));
            }
        }
    }
    provided
}
