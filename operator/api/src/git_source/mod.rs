//! `GitSource`: one path of one Git repository, taken whole or not at all.

mod policy;
mod status;

pub use policy::{Allow, AllowedKind, Limits, Prune, SecretRef, Signer, Verify, VerifyMode, Webhook, default_kinds};
pub use status::{Applied, GitSourceStatus, InventorySummary, Problem};

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// A path in a Git repository whose objects are applied to this cluster, and kept as they are in Git.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "GitSource",
    plural = "gitsources",
    shortname = "gs",
    category = "holdfast",
    namespaced,
    status = "GitSourceStatus",
    derive = "PartialEq",
    doc = "A path in a Git repository whose objects are applied to this cluster, and kept as they are in Git. A commit is taken whole or not at all: everything is parsed and tried on the server first, and until it passes the last good revision stays in force.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.appliedRevision"),
    printcolumn(name = "Objects", type_ = "integer", json_path = ".status.inventory.objects"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Why", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = 1),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.url", priority = 1),
    validation = Rule::new("size(self.metadata.name) <= 50").message("metadata.name must be at most 50 characters: the names of its inventory are made from it")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.url.startsWith('https://') || self.url.startsWith('ssh://')").message("spec.url must start with https:// or ssh://; write ssh://git@host/path.git instead of git@host:path.git"),
    validation = Rule::new("!self.url.startsWith('ssh://') || has(self.credentialsRef)").message("spec.credentialsRef is needed for ssh: name a Secret with the keys identity (private key) and known_hosts"),
    validation = Rule::new("!has(self.verify) || size(self.verify.signers) > 0").message("spec.verify.signers must name at least one signer: with none, every commit would be refused"),
)]
pub struct GitSourceSpec {
    /// Where the repository is: `https://host/path` or `ssh://user@host[:port]/path`. No password in it.
    #[schemars(length(min = 9, max = 1024))]
    pub url: String,

    /// What to follow: exactly one of branch, tag, commit.
    #[serde(rename = "ref")]
    pub reference: GitRef,

    /// The folder whose `*.yaml`, `*.yml` and `*.json` files are applied, with its sub-folders. Default: the whole repository.
    #[serde(default = "default_path")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("!self.contains('..') && !self.startsWith('/')").message("spec.path must be inside the repository: write it without a leading '/' and without '..'"))]
    pub path: String,

    /// How often to ask the server whether the ref has moved, for example `60s` or `5m`; spread by up to 10 %. A webhook asks at once.
    #[serde(default = "default_interval")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]+(h|m|s))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('24h')").message("spec.interval must be between 1s and 24h"))]
    pub interval: String,

    /// The Secret with what the server wants. ssh: `identity` (private key, OpenSSH format) and `known_hosts`, both needed.
    /// https: `token`, or `username` and `password`; `ca.crt` when the server's certificate is from an authority of your own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<SecretRef>,

    /// Whose ssh signature a commit must carry. Left out: no signature is asked for, and status says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,

    /// The ServiceAccount of this namespace that everything is applied as. What it may not do, this source may not do.
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: String,

    /// Which namespaces and kinds this source may touch. Default: its own namespace; Holdfast's kinds (without GitSource),
    /// ConfigMap, Secret, ServiceAccount, NetworkPolicy and PodDisruptionBudget.
    #[serde(default)]
    pub allow: Allow,

    /// What happens to an object that has gone from Git.
    #[serde(default)]
    pub prune: Prune,

    /// Whether to follow a branch whose history was rewritten (the applied commit is no longer part of it). Default: refused.
    #[serde(default)]
    pub allow_history_rewrite: bool,

    /// Stops everything for this source: no poll, no apply, no put-back of drift. What is applied stays.
    #[serde(default)]
    pub suspend: bool,

    /// Lets the Git server say that something was pushed: `POST /hook/<namespace>/<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,

    /// Bounds on what a repository may make the operator do.
    #[serde(default)]
    pub limits: Limits,
}

fn default_path() -> String {
    "./".into()
}

fn default_interval() -> String {
    "60s".into()
}

/// What to follow: exactly one of the fields.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("(has(self.branch) ? 1 : 0) + (has(self.tag) ? 1 : 0) + (has(self.commit) ? 1 : 0) == 1").message("spec.ref must have exactly one of branch, tag and commit")
)]
#[serde(rename_all = "camelCase")]
pub struct GitRef {
    /// The tip of this branch, for example `main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 244), regex(pattern = r"^[A-Za-z0-9_][A-Za-z0-9._/+-]*$"))]
    pub branch: Option<String>,
    /// This tag. A tag that moves is a rewritten history unless the new commit follows the old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 244), regex(pattern = r"^[A-Za-z0-9_][A-Za-z0-9._/+-]*$"))]
    pub tag: Option<String>,
    /// Exactly this commit: 40 lower-case hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{40}$"))]
    pub commit: Option<String>,
}

/// Annotation on an object: `disabled` leaves the object alone, in Git or on the live object.
pub const RECONCILE_ANNOTATION: &str = "holdfast.dev/reconcile";
/// Annotation on an object: `disabled` keeps the object when it has gone from Git.
pub const PRUNE_ANNOTATION: &str = "holdfast.dev/prune";
/// Label on every applied object: the name of its GitSource.
pub const SOURCE_LABEL: &str = "holdfast.dev/source";
/// Label on every applied object: the namespace of its GitSource.
pub const SOURCE_NAMESPACE_LABEL: &str = "holdfast.dev/source-namespace";
/// Annotation on every applied object: which wish was applied last, so that any process can tell without having been there.
pub const DIGEST_ANNOTATION: &str = "holdfast.dev/digest";
