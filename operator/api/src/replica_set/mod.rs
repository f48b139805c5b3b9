//! `HAReplicaSet`: one engine, N members, durability, storage, placement, bootstrap.

mod engine;
mod status;
mod storage;

pub use engine::{Engine, PostgresqlEngine};
pub use status::{HAReplicaSetStatus, MemberView, Phase};
pub use storage::{Archive, DeletionPolicy, Placement, Storage};

use k8s_openapi::api::core::v1::{LocalObjectReference, ResourceRequirements};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// A replica set of one database engine: N members, one primary, commits acknowledged by a quorum.
///
/// A dead primary is replaced without the operator; an acknowledged commit is never lost in mode Quorum.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "HAReplicaSet",
    plural = "hareplicasets",
    shortname = "hrs",
    category = "holdfast",
    namespaced,
    status = "HAReplicaSetStatus",
    derive = "PartialEq",
    doc = "A replica set of one database engine: N members, one primary, commits acknowledged by a quorum. A dead primary is replaced without the operator; an acknowledged commit is never lost in mode Quorum.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Primary", type_ = "string", json_path = ".status.primary"),
    printcolumn(name = "Term", type_ = "integer", json_path = ".status.term"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.message", priority = 1),
    validation = Rule::new("size(self.metadata.name) <= 40").message("metadata.name must be at most 40 characters: names of members and Services are made from it"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must start with a letter and use only a-z, 0-9 and '-': Services are named after it")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.durability.copies) || self.durability.copies <= self.members").message("spec.durability.copies must not exceed spec.members: a commit cannot be held by more members than there are"),
    validation = Rule::new("!has(self.durability.mode) || self.durability.mode != 'Async' || !has(self.durability.copies) || self.durability.copies == 1").message("spec.durability.copies is for the modes Quorum and Preferred; leave it out in mode Async"),
    validation = Rule::new("!has(self.durability.mode) || self.durability.mode != 'Quorum' || self.members >= 2").message("spec.durability.mode Quorum needs spec.members of at least 2; use Preferred for a single member that may grow"),
)]
pub struct HAReplicaSetSpec {
    /// The software that the members run: exactly one of the fields.
    pub engine: Engine,

    /// How many members, 1 to 7. Each is a Pod with a volume of its own.
    #[serde(default = "default_members")]
    #[schemars(range(min = 1, max = 7), extend("format" = "int32"))]
    pub members: u16,

    /// When a commit is acknowledged.
    #[serde(default)]
    pub durability: Durability,

    /// The volume of each member.
    pub storage: Storage,

    /// Where all of PostgreSQL's log goes as it is written. Left out: it is archived nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,

    /// CPU and memory of each member's engine container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Where members may run.
    #[serde(default)]
    pub placement: Placement,

    /// Where the first data comes from: made anew as `initdb` says, once, or taken over from a deleted replica set.
    #[serde(default)]
    #[x_kube(validation = Rule::new("has(self.initdb) == has(oldSelf.initdb) && (!has(self.initdb) || self.initdb == oldSelf.initdb)").message("spec.bootstrap.initdb cannot be changed after creation: it describes what was done once"))]
    pub bootstrap: Bootstrap,

    /// Reads from replicas.
    #[serde(default)]
    pub reads: Reads,

    /// What happens to the data when this object is deleted. Retain keeps every volume, and a new HAReplicaSet of the same
    /// name takes them over only with spec.bootstrap.adopt.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// Members whose engine is to be kept stopped, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7), inner(length(max = 63)))]
    pub fenced: Vec<String>,

    /// Secrets for pulling the engine's image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
}

fn default_members() -> u16 {
    3
}

/// When a commit is acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Durability {
    /// Quorum (default for 3 members and more): a commit waits until `copies` members hold it, always.
    /// Preferred (default for 1 and 2): the same while enough members are there, else with those that are.
    /// Async: the primary alone; a failover may lose up to `maximumLag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<DurabilityMode>,
    /// How many members hold a commit before it is acknowledged, the primary included. Default: the smaller of 2 and
    /// spec.members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 7), extend("format" = "int32"))]
    pub copies: Option<u16>,
    /// Async only: bytes of log that a standby may lack and still be elected, for example 16Mi (the default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub maximum_lag: Option<String>,
}

/// When a commit is acknowledged. Quorum (default for 3 members and more): when `copies` members hold it, always. Preferred
/// (default for 1 and 2): the same while enough members are there, else when those that are there hold it. Async: when the
/// primary holds it; a failover may lose up to `maximumLag`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum DurabilityMode {
    /// A commit waits until `copies` members hold it, always.
    Quorum,
    /// A commit waits for as many of `copies` as there are.
    Preferred,
    /// The primary alone acknowledges.
    Async,
}

/// Where the first data comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// A new, empty database. Cannot be changed after creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initdb: Option<Initdb>,
    /// Take over the volumes of a deleted HAReplicaSet by this name. Without this word, volumes that are already there are
    /// left alone and the replica set waits. It may be changed at any time, and changes nothing once the volumes are its own.
    #[serde(default)]
    pub adopt: bool,
}

/// `initdb`, then one database with an owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Initdb {
    /// The application's database. Default: app.
    #[serde(default = "default_app")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("!(self in ['postgres', 'template0', 'template1'])").message("spec.bootstrap.initdb.database must not be one of PostgreSQL's own databases; choose another name, for example app"))]
    pub database: String,
    /// Its owner, who logs in with the password in the Secret NAME-app. Default: app.
    #[serde(default = "default_app")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self != 'postgres' && !self.startsWith('pg_') && !self.startsWith('holdfast')").message("spec.bootstrap.initdb.owner must not be postgres, nor begin with pg_ or holdfast: those are reserved"))]
    pub owner: String,
    /// Character encoding. Default: UTF8.
    #[serde(default = "default_encoding")]
    #[schemars(length(min = 1, max = 32))]
    pub encoding: String,
    /// Locale, which must exist in the image. Default: C.UTF-8, which is in every image.
    #[serde(default = "default_locale")]
    #[schemars(length(min = 1, max = 63))]
    pub locale: String,
    /// Checksums on data pages. Default: true.
    #[serde(default = "default_true")]
    pub data_checksums: bool,
    /// Size of a file of the write-ahead log. At a failover the new primary copies the file it is in, and each standby receives
    /// it again from its beginning: smaller files make that quicker, larger ones cost less under a very high rate of writes.
    /// Cannot be changed later. Default: 4Mi.
    #[serde(default)]
    pub wal_segment_size: WalSegmentSize,
    /// SQL statements run once in the application's database, as its owner's superuser, after it was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 16384)))]
    pub sql: Vec<String>,
}

/// What `initdb --wal-segsize` takes, as far as the other settings bear it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum WalSegmentSize {
    /// 1 MiB.
    #[serde(rename = "1Mi")]
    Mi1,
    /// 2 MiB.
    #[serde(rename = "2Mi")]
    Mi2,
    /// 4 MiB. Measured against 16 MiB on one machine with three members: promotion and a standby's way to the new timeline took
    /// half of the time or less (docs/benchmarks.md).
    #[default]
    #[serde(rename = "4Mi")]
    Mi4,
    /// 8 MiB.
    #[serde(rename = "8Mi")]
    Mi8,
    /// 16 MiB, PostgreSQL's own default.
    #[serde(rename = "16Mi")]
    Mi16,
    /// 32 MiB.
    #[serde(rename = "32Mi")]
    Mi32,
}

impl WalSegmentSize {
    /// The size in MiB.
    pub fn mebibytes(self) -> u8 {
        match self {
            WalSegmentSize::Mi1 => 1,
            WalSegmentSize::Mi2 => 2,
            WalSegmentSize::Mi4 => 4,
            WalSegmentSize::Mi8 => 8,
            WalSegmentSize::Mi16 => 16,
            WalSegmentSize::Mi32 => 32,
        }
    }
}

impl Default for Initdb {
    fn default() -> Self {
        Initdb {
            database: default_app(),
            owner: default_app(),
            encoding: default_encoding(),
            locale: default_locale(),
            data_checksums: true,
            wal_segment_size: WalSegmentSize::default(),
            sql: Vec::new(),
        }
    }
}

fn default_app() -> String {
    "app".into()
}
fn default_encoding() -> String {
    "UTF8".into()
}
fn default_locale() -> String {
    "C.UTF-8".into()
}
fn default_true() -> bool {
    true
}

/// Reads from replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reads {
    /// A replica that has not replayed this many bytes of log leaves the Service NAME-ro. Default: 64Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub maximum_lag: Option<String>,
}
