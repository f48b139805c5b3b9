//! All replica sets, one a line.

use holdfast_api::HAReplicaSet;
use kube::ResourceExt;

use super::draw::{tone, word};
use crate::paint::{Paint, Tone};
use crate::table::{Cell, layout};

/// Lists.
pub fn list(sets: &[HAReplicaSet], with_namespace: bool, paint: Paint) -> String {
    if sets.is_empty() {
        let more = if with_namespace {
            ""
        } else {
            " in this namespace; -A shows all namespaces"
        };
        return format!("no HAReplicaSet{more}\n");
    }
    let mut rows = vec![row(
        with_namespace,
        Cell::faint("NAMESPACE"),
        ["NAME", "PHASE", "READY", "PRIMARY", "TERM", "WHY"].map(Cell::faint),
    )];
    for set in sets {
        let status = set.status.clone().unwrap_or_default();
        let or_dash = |text: Option<String>| Cell::plain(text.unwrap_or_else(|| "-".into()));
        rows.push(row(
            with_namespace,
            Cell::plain(set.namespace().unwrap_or_default()),
            [
                Cell(Tone::Strong, set.name_any()),
                Cell(tone(status.phase), word(status.phase)),
                or_dash(status.ready),
                or_dash(status.primary),
                or_dash(status.term.map(|t| t.to_string())),
                Cell::plain(status.message.unwrap_or_default()),
            ],
        ));
    }
    layout(&rows, 0, paint)
}

fn row(with_namespace: bool, namespace: Cell, others: [Cell; 6]) -> Vec<Cell> {
    with_namespace.then_some(namespace).into_iter().chain(others).collect()
}
