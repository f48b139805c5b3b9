//! What a source may do, and whom it believes.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::GROUP;

/// Whose signature is needed, and on which commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verify {
    /// EveryCommit (default): every commit between the applied one and the new one, merged branches included. Head: the new one alone.
    #[serde(default)]
    pub mode: VerifyMode,
    /// Who may sign.
    #[schemars(length(min = 1, max = 64))]
    pub signers: Vec<Signer>,
}

/// EveryCommit (default): every commit between the applied one and the new one, merged branches included. Head: the new one alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VerifyMode {
    /// Every commit between the applied one and the new one.
    #[default]
    EveryCommit,
    /// The new commit alone.
    Head,
}

/// A person or machine that may sign commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Signer {
    /// Shown in status.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Public key in OpenSSH format, for example `ssh-ed25519 AAAA…`.
    #[schemars(length(min = 16, max = 2048))]
    pub key: String,
}

/// What a source may touch. Both lists replace their default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Allow {
    /// Namespaces, by name. Default: the source's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 63)))]
    pub namespaces: Option<Vec<String>>,
    /// Kinds. A cluster-scoped kind is touched only when it is listed here, and the ServiceAccount may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub kinds: Option<Vec<AllowedKind>>,
}

/// One kind; the core group is the empty string.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedKind {
    /// API group without version, for example `apps`; empty or left out for the core group.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub group: String,
    /// Kind, for example `ConfigMap`.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
}

/// The kinds that a source may apply when `spec.allow.kinds` is left out. GitSource is not among them: a repository must
/// not be able to widen its own rights.
pub fn default_kinds() -> Vec<AllowedKind> {
    let own = [
        "HAReplicaSet",
        "HACluster",
        "BackupTier",
        "BackupPolicy",
        "UpdateWindow",
        "Drill",
        "SoftwareBaseline",
        "PromotionPlan",
    ];
    let other = [
        ("", "ConfigMap"),
        ("", "Secret"),
        ("", "ServiceAccount"),
        ("networking.k8s.io", "NetworkPolicy"),
        ("policy", "PodDisruptionBudget"),
    ];
    own.into_iter()
        .map(|kind| (GROUP, kind))
        .chain(other)
        .map(|(group, kind)| AllowedKind {
            group: group.into(),
            kind: kind.into(),
        })
        .collect()
}

/// What happens to an object that has gone from Git.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Prune {
    /// Delete objects that have gone from Git. Default: true. False: they are left, and shown as orphans.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// A commit that removes more than this share of the objects, in percent, is refused. Five objects and fewer may go whatever their share, but never the last one. Default: 20.
    #[serde(default = "twenty")]
    #[schemars(range(min = 0, max = 100))]
    pub max_share: u8,
    /// Also delete kinds that hold data or carry others with them: HAReplicaSet, HACluster, BackupTier, Backup,
    /// PersistentVolumeClaim, PersistentVolume, StatefulSet, Namespace, CustomResourceDefinition. Default: false: a commit that removes one is refused.
    #[serde(default)]
    pub data_bearing: bool,
}

impl Default for Prune {
    fn default() -> Self {
        Prune {
            enabled: true,
            max_share: 20,
            data_bearing: false,
        }
    }
}

fn yes() -> bool {
    true
}

fn twenty() -> u8 {
    20
}

/// A Secret in the source's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// How the Git server proves that it sent a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// A Secret whose key `token` is the shared secret: GitHub's `X-Hub-Signature-256`, or `X-Holdfast-Signature: sha256=<hex of HMAC-SHA256>`.
    pub secret_ref: SecretRef,
}

/// Bounds on what a repository may make the operator do.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Bytes that one fetch may send, in MiB. Default: 256.
    #[serde(rename = "repositoryMiB", default = "default_repository_mib")]
    #[schemars(range(min = 1, max = 16384))]
    pub repository_mib: u32,
    /// Size of one manifest, in KiB. Default: 1024.
    #[serde(rename = "fileKiB", default = "default_file_kib")]
    #[schemars(range(min = 1, max = 16384))]
    pub file_kib: u32,
    /// Files under the path. Default: 20000.
    #[serde(default = "default_count")]
    #[schemars(range(min = 1, max = 200000))]
    pub files: u32,
    /// Objects in all files together. Default: 20000.
    #[serde(default = "default_count")]
    #[schemars(range(min = 1, max = 200000))]
    pub objects: u32,
    /// How long one exchange with the Git server may take. Default: 60s.
    #[serde(default = "default_timeout")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]+(h|m|s))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('30m')").message("spec.limits.timeout must be between 1s and 30m"))]
    pub timeout: String,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            repository_mib: default_repository_mib(),
            file_kib: default_file_kib(),
            files: default_count(),
            objects: default_count(),
            timeout: default_timeout(),
        }
    }
}

fn default_repository_mib() -> u32 {
    256
}

/// etcd refuses objects above about 1.5 MiB, so a file far above 1 MiB is no manifest that anyone meant.
fn default_file_kib() -> u32 {
    1024
}

fn default_count() -> u32 {
    20_000
}

fn default_timeout() -> String {
    "60s".into()
}
