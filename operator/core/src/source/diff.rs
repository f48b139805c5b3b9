//! Live object against Git's wish, field by field with the manager that changed it, for `kubectl holdfast diff` and Events.

use serde_json::Value;
use similar::TextDiff;

use super::{ObjectKey, owned, redact::HIDDEN};

/// One field in which the cluster differs from Git.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldDiff {
    /// The field, `spec.members`.
    pub field: String,
    /// Its live value as JSON; `None` when it is missing.
    pub live: Option<String>,
    /// What Git wants.
    pub wanted: String,
    /// Who owns the live value, if somebody other than us.
    pub manager: Option<String>,
}

/// The fields of `wanted` whose live value differs. Fields that Git does not mention are the server's and others' business.
/// Secret values are hidden.
pub fn fields(key: &ObjectKey, wanted: &Value, object: &Value, ours: &str) -> Vec<FieldDiff> {
    let mut found = Vec::new();
    walk("", wanted, Some(object), &mut |path, wanted, live| {
        let hide = key.is_secret() && (path.starts_with("data") || path.starts_with("stringData"));
        found.push(FieldDiff {
            field: path.to_owned(),
            live: live.map(|v| if hide { HIDDEN.to_owned() } else { v.to_string() }),
            wanted: if hide { HIDDEN.to_owned() } else { wanted.to_string() },
            manager: owned::owner(object, path, ours),
        });
    });
    found
}

fn walk(path: &str, wanted: &Value, live: Option<&Value>, report: &mut impl FnMut(&str, &Value, Option<&Value>)) {
    match (wanted, live) {
        (Value::Object(fields), Some(Value::Object(live))) => {
            for (name, value) in fields {
                let below = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                walk(&below, value, live.get(name), report);
            }
        }
        (Value::Array(items), Some(Value::Array(live))) if items.len() == live.len() => {
            for (i, (item, live)) in items.iter().zip(live).enumerate() {
                walk(&format!("{path}[{i}]"), item, Some(live), report);
            }
        }
        (Value::Null, None) => {}
        (wanted, Some(live)) if wanted == live => {}
        (wanted, live) => report(path, wanted, live),
    }
}

/// A unified text diff, live → Git, one line per value, with the manager beside each changed field. Empty when nothing differs.
pub fn render(key: &ObjectKey, wanted: &Value, live: Option<&Value>, ours: &str) -> String {
    let diffs = match live {
        Some(live) => fields(key, wanted, live, ours),
        None => Vec::new(),
    };
    let (before, after) = match live {
        Some(_) if diffs.is_empty() => return String::new(),
        Some(_) => (
            diffs
                .iter()
                .map(|d| line(&d.field, d.live.as_deref(), d.manager.as_deref()))
                .collect::<String>(),
            diffs
                .iter()
                .map(|d| line(&d.field, Some(&d.wanted), None))
                .collect::<String>(),
        ),
        None => {
            let hidden = super::redact::secret(key, wanted, "");
            (
                String::new(),
                serde_json::to_string_pretty(&hidden).unwrap_or_default() + "\n",
            )
        }
    };
    TextDiff::from_lines(&before, &after)
        .unified_diff()
        .context_radius(2)
        .header(&format!("{key} (live)"), &format!("{key} (Git)"))
        .to_string()
}

fn line(field: &str, value: Option<&str>, manager: Option<&str>) -> String {
    match (value, manager) {
        (None, _) => String::new(),
        (Some(value), Some(manager)) => format!("{field}: {value}    # by {manager}\n"),
        (Some(value), None) => format!("{field}: {value}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_field_value_and_manager_and_hides_secrets() {
        let key = |kind: &str| ObjectKey {
            group: String::new(),
            kind: kind.into(),
            namespace: Some("n".into()),
            name: "x".into(),
        };
        let live = json!({"metadata": {"managedFields": [{"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:data": {"f:a": {}}}}]}, "data": {"a": "live", "c": "3"}});
        let wanted = json!({"data": {"a": "git", "b": "new"}});
        let text = render(&key("ConfigMap"), &wanted, Some(&live), "us");
        assert!(text.contains("-data.a: \"live\"    # by kubectl-edit"), "{text}");
        assert!(
            text.contains("+data.a: \"git\"") && text.contains("+data.b: \"new\"") && !text.contains("data.c"),
            "{text}"
        );
        let text = render(&key("Secret"), &wanted, Some(&live), "us");
        assert!(!text.contains("git") || text.contains("(Git)"), "{text}");
        assert!(
            !text.contains("\"git\"") && !text.contains("\"live\"") && text.contains(HIDDEN),
            "{text}"
        );
        let text = render(&key("Secret"), &wanted, None, "us");
        assert!(!text.contains("\"new\"") && text.contains(HIDDEN), "{text}");
        assert_eq!(
            render(&key("ConfigMap"), &json!({"data": {"c": "3"}}), Some(&live), "us"),
            ""
        );
    }
}
