//! One-time requests: an annotation that the operator passes on to the members, each carried out once.

use std::time::Duration;

use holdfast_api::HAReplicaSet;
use holdfast_core::instance::Command;
use kube::api::{Patch, PatchParams};
use tokio::time::Instant;

use crate::cluster::{Cluster, FIELD_MANAGER};
use crate::failure::Failure;

/// Annotation on the HAReplicaSet: a `Command` as JSON.
pub const ANNOTATION: &str = "holdfast.dev/request";

/// A name that no other request has: when, and by which process.
pub fn fresh_id() -> String {
    format!("{}-{}", jiff::Timestamp::now().as_nanosecond(), std::process::id())
}

/// Writes the request. The spec is left alone, so Git has nothing to put back.
pub async fn ask(cluster: &Cluster, name: &str, command: &Command) -> Result<(), Failure> {
    let json = serde_json::to_string(command).map_err(|e| Failure::new(e.to_string()))?;
    let patch = serde_json::json!({"metadata": {"annotations": {ANNOTATION: json}}});
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    cluster
        .sets()
        .patch(name, &params, &Patch::Merge(&patch))
        .await
        .map(drop)
        .map_err(|e| Failure::of(&cluster.call(name), e))
}

/// Looks at the replica set until `done` or `patience` ends, and tells each change on the way.
pub async fn follow(
    cluster: &Cluster,
    name: &str,
    patience: Duration,
    done: impl Fn(&HAReplicaSet) -> bool,
) -> Result<HAReplicaSet, Failure> {
    let started = Instant::now();
    let mut told = String::new();
    loop {
        let set = cluster.set(name).await?;
        let line = progress(&set);
        if line != told {
            println!("{:>6.1}s  {line}", started.elapsed().as_secs_f32());
            told = line;
        }
        if done(&set) {
            return Ok(set);
        }
        if started.elapsed() > patience {
            return Err(Failure::new(format!("not done after {} s", patience.as_secs())).next(format!(
                "the request stands, and may still be carried out; `kubectl holdfast status {name} -n {}` says what it waits for",
                cluster.namespace
            )));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

fn progress(set: &HAReplicaSet) -> String {
    let status = set.status.clone().unwrap_or_default();
    let members: Vec<String> = status
        .members
        .iter()
        .map(|m| format!("{} {}/{}", m.name, m.role, m.state))
        .collect();
    format!(
        "term {} {}, primary {}: {}",
        status.term.unwrap_or(0),
        status.phase.map_or_else(|| "Unknown".into(), |p| format!("{p:?}")),
        status.primary.as_deref().unwrap_or("nobody"),
        members.join(", ")
    )
}
