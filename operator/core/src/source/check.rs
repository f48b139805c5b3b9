//! Documents → manifests: everything that can be said about an object without asking the server.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_api::git_source::{Allow, DIGEST_ANNOTATION, SOURCE_LABEL, SOURCE_NAMESPACE_LABEL, default_kinds};
use serde_json::{Map, Value, json};

use super::{
    Digest, Manifest, ObjectKey, Origin, Problem, kinds::Kinds, locate::locate, object::split_api_version,
    yaml::Document,
};

/// What one source may touch, and who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Name of the source.
    pub source: String,
    /// Namespace of the source.
    pub namespace: String,
    /// Namespaces that it may touch.
    pub namespaces: BTreeSet<String>,
    /// (group, kind) that it may touch.
    pub kinds: BTreeSet<(String, String)>,
}

impl Policy {
    /// The policy of a source, with the defaults filled in.
    pub fn new(source: &str, namespace: &str, allow: &Allow) -> Self {
        let namespaces = allow.namespaces.clone().unwrap_or_else(|| vec![namespace.to_owned()]);
        let kinds = allow.kinds.clone().unwrap_or_else(default_kinds);
        Policy {
            source: source.to_owned(),
            namespace: namespace.to_owned(),
            namespaces: namespaces.into_iter().collect(),
            kinds: kinds.into_iter().map(|k| (k.group, k.kind)).collect(),
        }
    }
}

/// The (apiVersion, kind) of a document, where it has them: what discovery may have to be asked about.
pub fn type_of(document: &Document) -> Option<(&str, &str)> {
    Some((
        document.value.get("apiVersion")?.as_str()?,
        document.value.get("kind")?.as_str()?,
    ))
}

/// Checks one document and makes it ready to be applied: placed in its namespace, labelled with its source, without the
/// fields that only a server writes.
pub fn check(
    file: &str,
    text: &str,
    document: &Document,
    policy: &Policy,
    kinds: &Kinds,
) -> Result<Manifest, Box<Problem>> {
    let at = |field: &str, value: Option<&Value>, message: String| {
        Box::new(Problem {
            file: Some(file.to_owned()),
            line: locate(text, document.line, field).or(Some(document.line)),
            object: describe(&document.value),
            field: (!field.is_empty()).then(|| field.to_owned()),
            value: value.map(shown),
            message,
        })
    };
    let Value::Object(fields) = &document.value else {
        return Err(at(
            "",
            None,
            "not a Kubernetes object: it must have apiVersion, kind and metadata.name".into(),
        ));
    };
    let api_version = text_field(fields.get("apiVersion")).ok_or_else(|| {
        at(
            "apiVersion",
            fields.get("apiVersion"),
            "missing or not text: write for example holdfast.dev/v1alpha1".into(),
        )
    })?;
    let kind = text_field(fields.get("kind")).ok_or_else(|| {
        at(
            "kind",
            fields.get("kind"),
            "missing or not text: write for example HAReplicaSet".into(),
        )
    })?;
    let (group, _) = split_api_version(api_version);
    let metadata = match fields.get("metadata") {
        Some(Value::Object(metadata)) => metadata,
        other => {
            return Err(at(
                "metadata",
                other,
                "missing or not a mapping: write metadata with a name".into(),
            ));
        }
    };
    if metadata.contains_key("generateName") && !metadata.contains_key("name") {
        return Err(at(
            "metadata.generateName",
            None,
            "an object in Git needs a fixed name: write metadata.name".into(),
        ));
    }
    let name = text_field(metadata.get("name")).ok_or_else(|| {
        at(
            "metadata.name",
            metadata.get("name"),
            "missing or not text (quote a number): write the object's name".into(),
        )
    })?;
    if !is_name(name) {
        return Err(at(
            "metadata.name",
            metadata.get("name"),
            "not a valid name: use a-z, 0-9, '-' and '.', at most 253 characters".into(),
        ));
    }
    if !policy.kinds.contains(&(group.to_owned(), kind.to_owned())) {
        let group = if group.is_empty() { "\"\"" } else { group };
        return Err(at(
            "kind",
            fields.get("kind"),
            format!(
                "this source may not touch this kind: list {{group: {group}, kind: {kind}}} in spec.allow.kinds of the GitSource, or move the object"
            ),
        ));
    }
    let facts = kinds.get(api_version, kind).ok_or_else(|| {
        at("apiVersion", fields.get("apiVersion"), format!("the server has no kind {kind} in {api_version}: check the spelling, or install its CustomResourceDefinition"))
    })?;
    let namespace = match (facts.namespaced, metadata.get("namespace")) {
        (true, None | Some(Value::Null)) => Some(policy.namespace.clone()),
        (true, Some(Value::String(namespace))) => Some(namespace.clone()),
        (false, None | Some(Value::Null)) => None,
        (false, Some(other)) => {
            return Err(at(
                "metadata.namespace",
                Some(other),
                format!("{kind} is not in a namespace: leave this out"),
            ));
        }
        (true, Some(other)) => {
            return Err(at(
                "metadata.namespace",
                Some(other),
                "not text: write the namespace's name".into(),
            ));
        }
    };
    if let Some(namespace) = &namespace
        && !policy.namespaces.contains(namespace)
    {
        return Err(at(
            "metadata.namespace",
            Some(&json!(namespace)),
            "this source may not touch this namespace: list it in spec.allow.namespaces of the GitSource, or move the object".into(),
        ));
    }
    for (field, value) in [
        ("labels", metadata.get("labels")),
        ("annotations", metadata.get("annotations")),
    ] {
        let path = format!("metadata.{field}");
        match value {
            None | Some(Value::Null) => {}
            Some(Value::Object(entries)) => {
                if let Some((key, value)) = entries.iter().find(|(_, v)| !v.is_string()) {
                    return Err(at(
                        &format!("{path}.{key}"),
                        Some(value),
                        "not text: put it in quotes".into(),
                    ));
                }
            }
            Some(other) => {
                return Err(at(
                    &path,
                    Some(other),
                    "not a mapping: write name: \"value\" pairs".into(),
                ));
            }
        }
    }
    let key = ObjectKey {
        group: group.to_owned(),
        kind: kind.to_owned(),
        namespace,
        name: name.to_owned(),
    };
    let mut value = ready(&document.value, &key, policy).map_err(|(field, message)| at(&field, None, message))?;
    let digest = Digest::of(&value);
    if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if !annotations.is_object() {
            *annotations = json!({});
        }
        if let Value::Object(annotations) = annotations {
            annotations.insert(DIGEST_ANNOTATION.into(), json!(digest.to_string()));
        }
    }
    Ok(Manifest {
        digest,
        api_version: api_version.to_owned(),
        value,
        origin: Origin {
            file: file.into(),
            line: document.line,
        },
        key,
    })
}

/// The same object in two places would be applied twice with different wishes; the later place is named as the problem.
pub fn duplicates<'a>(manifests: impl IntoIterator<Item = (&'a ObjectKey, &'a Origin)>) -> Vec<Problem> {
    let mut first: BTreeMap<&ObjectKey, &Origin> = BTreeMap::new();
    let mut problems = Vec::new();
    for (key, origin) in manifests {
        match first.get(key) {
            None => {
                first.insert(key, origin);
            }
            Some(before) => {
                let (a, b) = if *before <= origin {
                    (*before, origin)
                } else {
                    (origin, *before)
                };
                problems.push(Problem {
                    file: Some(b.file.to_string()),
                    line: Some(b.line),
                    object: Some(key.to_string()),
                    message: format!("also written in {} line {}: keep one of them", a.file, a.line),
                    ..Problem::default()
                });
            }
        }
    }
    problems
}

fn ready(value: &Value, key: &ObjectKey, policy: &Policy) -> Result<Value, (String, String)> {
    let mut value = value.clone();
    if let Value::Object(fields) = &mut value {
        // Only servers write status; people who saved `kubectl get -o yaml` have it in their files.
        fields.remove("status");
        if key.is_secret() {
            secret_data(fields)?;
        }
        if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
            for server_side in [
                "uid",
                "resourceVersion",
                "generation",
                "creationTimestamp",
                "managedFields",
                "selfLink",
                "deletionTimestamp",
            ] {
                metadata.remove(server_side);
            }
            match &key.namespace {
                Some(namespace) => metadata.insert("namespace".into(), json!(namespace)),
                None => metadata.remove("namespace"),
            };
            if !matches!(metadata.get("labels"), Some(Value::Object(_))) {
                metadata.insert("labels".into(), Value::Object(Map::new()));
            }
            if let Some(Value::Object(labels)) = metadata.get_mut("labels") {
                labels.insert(SOURCE_LABEL.into(), json!(policy.source));
                labels.insert(SOURCE_NAMESPACE_LABEL.into(), json!(policy.namespace));
            }
        }
    }
    Ok(value)
}

/// `stringData` is write-only: the server turns it into `data` and forgets who owns it. Doing that here keeps ownership,
/// and with it drift, visible.
fn secret_data(fields: &mut Map<String, Value>) -> Result<(), (String, String)> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let Some(string_data) = fields.remove("stringData") else {
        return Ok(());
    };
    let Value::Object(string_data) = string_data else {
        return Err(("stringData".into(), "not a mapping: write name: \"value\" pairs".into()));
    };
    let mut encoded = Map::new();
    for (key, value) in string_data {
        let Value::String(text) = value else {
            return Err((format!("stringData.{key}"), "not text: put it in quotes".into()));
        };
        encoded.insert(key, json!(STANDARD.encode(text)));
    }
    match fields.get_mut("data") {
        Some(Value::Object(data)) => data.extend(encoded),
        _ => {
            fields.insert("data".into(), Value::Object(encoded));
        }
    }
    Ok(())
}

fn text_field(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn is_name(name: &str) -> bool {
    // Kinds differ (RBAC allows ':'); the server has the last word. Here: nothing that could change a URL's path.
    name.len() <= 253
        && name != "."
        && name != ".."
        && !name.contains(['/', '%', '\\', '?', '#'])
        && !name.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// `Kind.group namespace/name` as far as the document says.
pub fn describe(value: &Value) -> Option<String> {
    let kind = value.get("kind")?.as_str()?;
    let (group, _) = split_api_version(value.get("apiVersion").and_then(Value::as_str).unwrap_or(""));
    let metadata = value.get("metadata");
    let text = |field: &str| {
        metadata
            .and_then(|m| m.get(field))
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let key = ObjectKey {
        group: group.to_owned(),
        kind: kind.to_owned(),
        namespace: text("namespace"),
        name: text("name").unwrap_or_else(|| "?".into()),
    };
    Some(crate::status::conditions::clip(key.to_string(), 512))
}

/// A value short enough for status.
pub fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    crate::status::conditions::clip(text, 128)
}
