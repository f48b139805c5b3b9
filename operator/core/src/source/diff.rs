//! Live object against Git's wish, field by field with the manager that changed it, for `kubectl holdfast diff` and Events.

use holdfast_api::git_source::DIGEST_ANNOTATION;
use serde_json::Value;
use similar::TextDiff;

use super::{Manifest, object::annotation, owned, redact::HIDDEN};

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

/// The fields of `manifest` whose live value differs. Fields that Git does not mention are the server's and others' business,
/// and so is the spelling of a value that we applied and still own: servers write defaults and quantities in their own way.
/// Secret values are hidden.
pub fn fields(manifest: &Manifest, object: &Value, ours: &str) -> Vec<FieldDiff> {
    let key = &manifest.key;
    let applied = annotation(object, DIGEST_ANNOTATION) == Some(manifest.digest.to_string().as_str());
    let lost = applied.then(|| owned::drifted(&manifest.value, object, ours));
    let mut found = Vec::new();
    walk("", &manifest.value, Some(object), &mut |path, wanted, live| {
        if path.ends_with(DIGEST_ANNOTATION) || lost.as_ref().is_some_and(|lost| !touches(lost, path)) {
            return;
        }
        let hide = key.is_secret() && (path.starts_with("data") || path.starts_with("stringData"));
        found.push(FieldDiff {
            field: path.to_owned(),
            live: live.map(|v| if hide { HIDDEN.to_owned() } else { v.to_string() }),
            wanted: if hide {
                format!("{HIDDEN}, another value")
            } else {
                wanted.to_string()
            },
            manager: owned::owner(object, path, ours),
        });
    });
    found
}

/// Whether a field that we lost is this one, or above or below it.
fn touches(lost: &[String], path: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    lost.iter()
        .any(|lost| lost == "the whole object" || within(path, lost) || within(lost, path))
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
pub fn render(manifest: &Manifest, live: Option<&Value>, ours: &str) -> String {
    let key = &manifest.key;
    let diffs = match live {
        Some(live) => fields(manifest, live, ours),
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
            let hidden = super::redact::secret(key, &manifest.value, "");
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
    use crate::source::{Digest, ObjectKey, Origin};
    use serde_json::json;

    fn manifest(kind: &str, value: Value) -> Manifest {
        Manifest {
            key: ObjectKey {
                group: String::new(),
                kind: kind.into(),
                namespace: Some("n".into()),
                name: "x".into(),
            },
            api_version: "v1".into(),
            origin: Origin {
                file: "a.yaml".into(),
                line: 1,
            },
            digest: Digest::of(&value),
            value,
        }
    }

    #[test]
    fn names_field_value_and_manager_and_hides_secrets() {
        let live = json!({"metadata": {"managedFields": [{"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:data": {"f:a": {}}}}]}, "data": {"a": "live", "c": "3"}});
        let wanted = json!({"data": {"a": "git", "b": "new"}});
        let text = render(&manifest("ConfigMap", wanted.clone()), Some(&live), "us");
        assert!(text.contains("-data.a: \"live\"    # by kubectl-edit"), "{text}");
        assert!(
            text.contains("+data.a: \"git\"") && text.contains("+data.b: \"new\"") && !text.contains("data.c"),
            "{text}"
        );
        let text = render(&manifest("Secret", wanted.clone()), Some(&live), "us");
        assert!(
            !text.contains("\"git\"") && !text.contains("\"live\"") && text.contains(HIDDEN),
            "{text}"
        );
        let text = render(&manifest("Secret", wanted), None, "us");
        assert!(!text.contains("\"new\"") && text.contains(HIDDEN), "{text}");
        let same = manifest("ConfigMap", json!({"data": {"c": "3"}}));
        assert_eq!(render(&same, Some(&live), "us"), "");
    }

    #[test]
    fn a_secret_without_a_mapping_is_hidden_too() {
        for part in ["data", "stringData"] {
            let text = render(&manifest("Secret", json!({part: "hunter2"})), None, "us");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn what_we_applied_and_own_is_as_we_want_it_however_the_server_spells_it() {
        let wanted = manifest("ConfigMap", json!({"spec": {"cpu": "1000m", "n": "1"}}));
        let live = |fields: Value, n: &str| json!({"metadata": {"annotations": {DIGEST_ANNOTATION: wanted.digest.to_string()}, "managedFields": [{"manager": "us", "operation": "Apply", "fieldsV1": {"f:spec": fields}}]}, "spec": {"cpu": "1", "n": n}});
        let owned = json!({"f:cpu": {}, "f:n": {}});
        assert_eq!(fields(&wanted, &live(owned.clone(), "1"), "us"), []);
        let drifted = fields(&wanted, &live(json!({"f:cpu": {}}), "2"), "us");
        assert_eq!(drifted.iter().map(|d| d.field.as_str()).collect::<Vec<_>>(), ["spec.n"]);
        // Another wish than the one applied: every value counts.
        let other = manifest("ConfigMap", json!({"spec": {"cpu": "2", "n": "1"}}));
        assert_eq!(fields(&other, &live(owned, "1"), "us").len(), 1);
    }
}
