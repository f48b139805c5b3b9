//! `kubectl holdfast pause` and `resume`.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, FIELD_MANAGER};
use crate::failure::Failure;

/// What.
#[derive(clap::Args)]
pub struct Options {
    /// The replica set.
    name: String,
}

/// On an object: `disabled` makes a GitSource leave it alone.
const ANNOTATION: &str = "holdfast.dev/reconcile";

/// Sets or takes away the annotation. Failover and healing go on: only Git is kept out.
pub async fn run(cluster: &Cluster, options: &Options, pause: bool) -> Result<(), Failure> {
    let name = &options.name;
    let value = if pause { json!("disabled") } else { Value::Null };
    let patch = json!({"metadata": {"annotations": {ANNOTATION: value}}});
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    cluster
        .sets()
        .patch(name, &params, &Patch::Merge(&patch))
        .await
        .map_err(|e| Failure::of(&cluster.call(name), e))?;
    if pause {
        println!("Git leaves {name} alone until `kubectl holdfast resume {name}`; failover and healing go on");
    } else {
        println!("Git keeps {name} as it is in Git again");
    }
    Ok(())
}
