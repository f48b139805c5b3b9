//! What the server said about an object, for people: with file, line, field and value.

use std::collections::BTreeMap;

use holdfast_core::source::{Problem, locate::locate};
use holdfast_kube::source::Answer;
use serde_json::Value;

use super::read::Loaded;

/// A commit with this many problems is not tried further.
const ENOUGH_PROBLEMS: usize = 100;

/// Kinds of refusal, the one that people should hear of first in front.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Failed,
    Forbidden,
    Refused,
    Owned,
}

/// Whether going on would only make the list longer.
pub fn is_enough(wrong: &BTreeMap<Class, Vec<Problem>>) -> bool {
    wrong.values().map(Vec::len).sum::<usize>() >= ENOUGH_PROBLEMS
}

/// Problems of one object, with file and line.
pub fn explain(loaded: &Loaded, answer: Answer) -> (Class, Vec<Problem>) {
    let manifest = &loaded.manifest;
    let line = |field: Option<&str>| {
        field
            .and_then(|f| locate(&loaded.text, manifest.origin.line, f))
            .or(Some(manifest.origin.line))
    };
    let problem = |field: Option<String>, value: Option<String>, message: String| Problem {
        file: Some(manifest.origin.file.to_string()),
        line: line(field.as_deref()),
        object: Some(manifest.key.to_string()),
        field,
        value,
        message,
    };
    match answer {
        Answer::Conflict(conflicts) => {
            let problems = conflicts.into_iter().map(|c| {
                let field = c.field.trim_start_matches('.').to_owned();
                let value = (!manifest.key.is_secret()).then(|| lookup(&manifest.value, &field)).flatten();
                let message = format!(
                    "{} owns this field and this source does not take it: remove it from Git, or have {} give the object up",
                    c.manager, c.manager
                );
                problem(Some(field), value, message)
            });
            (Class::Owned, problems.collect())
        }
        // The server may quote a Secret's values.
        Answer::Invalid(found) if manifest.key.is_secret() => {
            let message = "the server refuses this Secret (its answer is hidden because it may quote values); check type and the base64 of data";
            (
                Class::Refused,
                found
                    .into_iter()
                    .map(|p| problem(p.field, None, message.to_owned()))
                    .collect(),
            )
        }
        Answer::Invalid(found) => (
            Class::Refused,
            found
                .into_iter()
                .map(|p| problem(p.field, p.value, p.message))
                .collect(),
        ),
        Answer::Missing(message) => (Class::Refused, vec![problem(None, None, message)]),
        Answer::Forbidden(message) => (Class::Forbidden, vec![problem(None, None, message)]),
        Answer::Failed(message) => (Class::Failed, vec![problem(None, None, message)]),
        Answer::Done(_) => (Class::Failed, vec![problem(None, None, "unexpected answer".into())]),
    }
}

fn lookup(value: &Value, field: &str) -> Option<String> {
    let mut at = value;
    for part in field.split('.') {
        at = at.get(part)?;
    }
    Some(holdfast_core::source::check::shown(at))
}
