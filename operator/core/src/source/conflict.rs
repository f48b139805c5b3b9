//! Who owns a field that Git wants to set, and whether it may be taken.

use serde_json::Value;

/// One field that the server would not change because somebody else owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The other field manager.
    pub manager: String,
    /// The field, `.spec.replicas`.
    pub field: String,
}

/// What to do about the conflicts of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Apply again, taking the fields.
    Take,
    /// Leave the object, and tell.
    Refuse(Vec<Conflict>),
}

/// kubectl's own managers: whoever moves an object from `kubectl apply` to Git hands it over.
/// `before-first-apply` is what the server calls fields set before anybody used apply.
const HANDED_OVER: &[&str] = &["kubectl-client-side-apply", "before-first-apply"];

/// The prefix of every source's field manager.
pub const MANAGER_PREFIX: &str = "holdfast-source";

/// The field manager of a source. Each has its own, so that two sources that want the same object meet a conflict on its
/// labels instead of taking it from each other silently. At most 128 bytes: 63 + 50 for the names, 17 for the rest.
pub fn manager(namespace: &str, name: &str) -> String {
    format!("{MANAGER_PREFIX}:{namespace}/{name}")
}

/// Judges the conflicts of one object.
///
/// 1. Another source owns a field: refused, whatever else. 2. All fields owned by kubectl's hand-over managers: taken.
/// 3. The object is ours and the fields were in what we applied before, so the other changed them after us: drift, taken.
/// 4. Otherwise refused: somebody else owns it.
pub fn judge(conflicts: &[Conflict], ours_before: impl Fn(&str) -> bool) -> Verdict {
    let takeable = |conflict: &Conflict| {
        !conflict.manager.starts_with(MANAGER_PREFIX)
            && (HANDED_OVER.contains(&conflict.manager.as_str()) || ours_before(&conflict.field))
    };
    let refused: Vec<Conflict> = conflicts.iter().filter(|c| !takeable(c)).cloned().collect();
    if refused.is_empty() && !conflicts.is_empty() {
        Verdict::Take
    } else {
        Verdict::Refuse(refused)
    }
}

/// Reads one cause of the server's answer: message `conflict with "kubectl-edit" using v1` and field `.data.a`.
pub fn parse(message: &str, field: &str) -> Conflict {
    let manager = message.split('"').nth(1).unwrap_or("unknown");
    Conflict {
        manager: manager.to_owned(),
        field: field.to_owned(),
    }
}

/// Whether an object has a field that the server names like `.spec.ports[port=80].name`. Names may hold dots themselves
/// (`.metadata.labels.app.kubernetes.io/name`), so every name that fits is followed; of a list, every item.
pub fn holds(value: &Value, field: &str) -> bool {
    if field.is_empty() {
        return true;
    }
    match value {
        Value::Object(fields) => field.strip_prefix('.').is_some_and(|rest| {
            fields.iter().any(|(name, value)| {
                rest.strip_prefix(name.as_str())
                    .is_some_and(|rest| (rest.is_empty() || rest.starts_with(['.', '['])) && holds(value, rest))
            })
        }),
        Value::Array(items) => field
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'))
            .is_some_and(|(_, rest)| items.iter().any(|item| holds(item, rest))),
        // A leaf: whatever is named below it is not there.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_ours_or_is_handed_over_is_taken() {
        let c = |manager: &str| {
            vec![parse(
                &format!("conflict with \"{manager}\" using v1 at 2026-01-01T00:00:00Z"),
                ".data.a",
            )]
        };
        assert_eq!(judge(&c("kubectl-client-side-apply"), |_| false), Verdict::Take);
        assert_eq!(judge(&c("kubectl-edit"), |f| f == ".data.a"), Verdict::Take);
        assert_eq!(judge(&c("kubectl-edit"), |_| false), Verdict::Refuse(c("kubectl-edit")));
        assert_eq!(
            judge(&c("holdfast-source:a/b"), |_| true),
            Verdict::Refuse(c("holdfast-source:a/b"))
        );
        assert_eq!(judge(&[], |_| true), Verdict::Refuse(vec![]));
    }

    #[test]
    fn fields_are_found_as_the_server_names_them() {
        let v = serde_json::json!({"metadata": {"labels": {"a.b/c": "1"}}, "spec": {"ports": [{"port": 80, "name": "x"}], "set": ["v"]}});
        for field in [
            ".metadata.labels.a.b/c",
            ".spec.ports[port=80,protocol=\"TCP\"].name",
            ".spec.set[=\"v\"]",
            ".spec.ports",
        ] {
            assert!(holds(&v, field), "{field}");
        }
        for field in [".metadata.labels.a", ".spec.replicas", ".spec.ports[port=80].other"] {
            assert!(!holds(&v, field), "{field}");
        }
    }

    #[test]
    fn a_manager_name_fits_the_server() {
        assert!(manager(&"n".repeat(60), &"s".repeat(50)).len() <= 128);
    }
}
