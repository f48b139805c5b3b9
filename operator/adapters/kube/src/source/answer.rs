//! The API server's answers, sorted by what to do about them.

use holdfast_core::{
    source::{
        Problem,
        conflict::{self, Conflict},
    },
    status::conditions::clip,
};
use serde_json::Value;

/// What came of one request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Done, or in a dry run: would be done. The object as it is now.
    Done(Box<Value>),
    /// Fields are owned by others.
    Conflict(Vec<Conflict>),
    /// The server will not have the object: one problem per field (field, value, message).
    Invalid(Vec<Problem>),
    /// The ServiceAccount may not.
    Forbidden(String),
    /// The object, its namespace or its kind does not exist.
    Missing(String),
    /// No answer, or an answer that another try may change.
    Failed(String),
}

/// Sorts an error.
pub fn read(error: &kube::Error) -> Answer {
    let kube::Error::Api(status) = error else {
        return Answer::Failed(clip(format!("the API server cannot be asked: {error}"), 512));
    };
    let message = clip(status.message.clone(), 512);
    let causes = status.details.as_ref().map(|d| d.causes.as_slice()).unwrap_or_default();
    let conflicts: Vec<Conflict> = causes
        .iter()
        .filter(|c| c.reason == "FieldManagerConflict")
        .map(|c| conflict::parse(&c.message, &c.field))
        .collect();
    match status.code {
        409 if !conflicts.is_empty() => Answer::Conflict(conflicts),
        403 => Answer::Forbidden(message),
        404 => Answer::Missing(message),
        // The server calls it its own failure when a value's type does not fit the schema.
        500 if message.contains(MISTYPED) => Answer::Invalid(vec![mistyped(&message)]),
        400 | 422 => Answer::Invalid(problems(
            causes.iter().map(|c| (c.field.as_str(), c.message.as_str())),
            &message,
        )),
        _ => Answer::Failed(message),
    }
}

const MISTYPED: &str = "failed to create typed patch object";

/// `failed to create typed patch object (a/b; /v1, Kind=ConfigMap): .data.n: expected string, got &value.valueUnstructured{Value:5}`
fn mistyped(message: &str) -> Problem {
    let mut rest = message.split_once("): ").map_or(message, |(_, rest)| rest);
    let mut field = None;
    if let Some((path, text)) = rest.split_once(": ")
        && let Some(path) = path.strip_prefix('.')
    {
        field = Some(path.to_owned());
        rest = text;
    }
    let value = rest
        .split_once("Value:")
        .map(|(_, v)| clip(v.trim_end_matches('}').to_owned(), 128));
    let expected = rest.strip_prefix("expected ").and_then(|e| e.split(',').next());
    let message = match expected {
        Some("string") => "expected text: put the value in quotes".to_owned(),
        Some(expected) => format!("expected {expected}"),
        None => rest.to_owned(),
    };
    Problem {
        field,
        value,
        message,
        ..Problem::default()
    }
}

fn problems<'a>(causes: impl Iterator<Item = (&'a str, &'a str)>, message: &str) -> Vec<Problem> {
    let found: Vec<Problem> = causes
        .map(|(field, text)| Problem {
            field: (!field.is_empty() && field != "<nil>").then(|| field.to_owned()),
            value: value_of(text),
            message: clip(text.to_owned(), 512),
            ..Problem::default()
        })
        .collect();
    if !found.is_empty() {
        return found;
    }
    // Unknown fields come without causes: `….spec.member: field not declared in schema`.
    let field = message
        .split(": ")
        .find(|p| p.starts_with('.'))
        .map(|p| p.trim_start_matches('.').to_owned());
    vec![Problem {
        field,
        message: message.to_owned(),
        ..Problem::default()
    }]
}

/// `Invalid value: 99: should be less than…` → `99`; objects and arrays are too long to be shown.
fn value_of(text: &str) -> Option<String> {
    let rest = text
        .split_once("Invalid value: ")
        .or_else(|| text.split_once("Unsupported value: "))?
        .1;
    let value = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => rest.split(": ").next()?,
    };
    (!value.starts_with(['{', '['])).then(|| clip(value.to_owned(), 128))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::response::{Status, StatusCause, StatusDetails};

    fn error(code: u16, message: &str, causes: &[(&str, &str, &str)]) -> kube::Error {
        let cause = |(reason, message, field): &(&str, &str, &str)| StatusCause {
            reason: (*reason).into(),
            message: (*message).into(),
            field: (*field).into(),
        };
        kube::Error::Api(Box::new(Status {
            code,
            message: message.into(),
            details: Some(StatusDetails {
                causes: causes.iter().map(cause).collect(),
                name: String::new(),
                group: String::new(),
                kind: String::new(),
                uid: String::new(),
                retry_after_seconds: 0,
            }),
            ..Status::failure(message, "x")
        }))
    }

    #[test]
    fn answers_are_sorted_by_what_to_do() {
        let a = read(&error(
            409,
            "Apply failed",
            &[(
                "FieldManagerConflict",
                "conflict with \"kubectl-edit\" using v1",
                ".data.a",
            )],
        ));
        assert_eq!(
            a,
            Answer::Conflict(vec![Conflict {
                manager: "kubectl-edit".into(),
                field: ".data.a".into()
            }])
        );
        assert!(matches!(
            read(&error(409, "object was modified", &[])),
            Answer::Failed(_)
        ));
        let a = read(&error(
            422,
            "x is invalid",
            &[(
                "FieldValueInvalid",
                "Invalid value: 99: should be less than or equal to 7",
                "spec.members",
            )],
        ));
        let Answer::Invalid(problems) = a else { panic!("{a:?}") };
        assert_eq!(
            (problems[0].field.as_deref(), problems[0].value.as_deref()),
            (Some("spec.members"), Some("99"))
        );
        let a = read(&error(
            400,
            "failed to create typed patch object (a/b): .spec.member: field not declared in schema",
            &[],
        ));
        let Answer::Invalid(problems) = a else { panic!("{a:?}") };
        assert_eq!(problems[0].field.as_deref(), Some("spec.member"));
        let text = "failed to create typed patch object (civil/c; /v1, Kind=ConfigMap): .data.n: expected string, got &value.valueUnstructured{Value:5}";
        let Answer::Invalid(problems) = read(&error(500, text, &[])) else {
            panic!()
        };
        assert_eq!(
            (problems[0].field.as_deref(), problems[0].value.as_deref()),
            (Some("data.n"), Some("5"))
        );
        assert!(problems[0].message.contains("quotes"));
        assert!(matches!(read(&error(403, "no", &[])), Answer::Forbidden(_)));
        assert!(matches!(read(&error(503, "no", &[])), Answer::Failed(_)));
    }
}
