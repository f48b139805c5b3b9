//! The engine: a one-of, so that a second engine is one more field and no new kind.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The software that the members run: exactly one of the fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.postgresql)").message("spec.engine must name exactly one engine, for example postgresql: {image: postgres:17}"))]
pub struct Engine {
    /// PostgreSQL 15 to 18.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgresql: Option<PostgresqlEngine>,
}

/// PostgreSQL 15 to 18, from any image that has its binaries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostgresqlEngine {
    /// Any image with PostgreSQL's binaries, server and `psql`: the official one, Debian's, your own.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// The user ID that the engine runs as; any will do. Default: 26.
    #[serde(default = "default_uid")]
    #[schemars(range(min = 1, max = 2147483647))]
    pub run_as_user: i64,
    /// Settings of postgresql.conf, checked against the running engine: what can be reloaded takes effect at once, the rest
    /// with one rolling restart. Settings that Holdfast manages are refused, with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub parameters: BTreeMap<String, String>,
}

fn default_uid() -> i64 {
    26
}
