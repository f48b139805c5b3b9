//! One-time requests: from people by annotation, from decisions by a step. Each is carried out once, whatever restarts.

use holdfast_api::HAReplicaSet;
use holdfast_core::instance::Command;
use holdfast_core::plan::Decision;
use holdfast_core::replica_set::{SetView, Step, Why};
use kube::ResourceExt;

/// Annotation on the HAReplicaSet: a `Command` as JSON, written by `kubectl holdfast`.
pub const REQUEST: &str = "holdfast.dev/request";
/// Annotation on the wish: the last request of a person that was taken up, so that it is not taken up again when another
/// command has replaced it.
pub const CONSUMED: &str = "holdfast.dev/consumed-request";

/// The command that the wish is to carry now, and the request that counts as taken up.
///
/// A step of the decision wins (it is needed for what a person asked for in the spec), then a new request, then what is in
/// force.
pub fn next(set: &HAReplicaSet, view: &SetView, decision: &Decision<Step, Why>) -> (Option<Command>, Option<String>) {
    let request: Option<Command> = set.annotations().get(REQUEST).and_then(|json| {
        serde_json::from_str(json)
            .inspect_err(|error| tracing::warn!(%error, "annotation {REQUEST} cannot be read and is ignored"))
            .ok()
    });
    let consumed = view.consumed_request.clone();
    let asked = decision.steps().iter().find_map(|s| match s {
        Step::Ask(command) => Some(command.clone()),
        _ => None,
    });
    if let Some(command) = asked {
        return (Some(command), consumed);
    }
    match request {
        Some(request) if consumed.as_deref() != Some(request.id()) => {
            let id = request.id().to_owned();
            (Some(request), Some(id))
        }
        _ => (view.command.clone(), consumed),
    }
}
