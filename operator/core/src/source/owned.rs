//! Drift, read from who owns what.
//!
//! Whoever changes a field takes its ownership away from us (an update always, an apply when forced), and a field that is
//! removed is owned by nobody. So an object has drifted exactly when a field that Git wants is missing from our entry in
//! `metadata.managedFields`. Values need no comparison, so defaults and rewritten quantities cannot look like drift.

use serde_json::{Map, Value};

/// The fields of `wanted` that `manager` no longer owns in `live`, as paths; empty means no drift.
pub fn drifted(wanted: &Value, live: &Value, manager: &str) -> Vec<String> {
    let mut missing = Vec::new();
    let Some(Value::Object(fields)) = entry(live, manager) else {
        return vec!["the whole object".to_owned()];
    };
    if let Value::Object(wanted) = wanted {
        for (name, value) in wanted {
            // Identity is owned by nobody.
            match name.as_str() {
                "apiVersion" | "kind" | "status" => {}
                "metadata" => {
                    let owned = fields.get("f:metadata").and_then(Value::as_object);
                    for part in ["labels", "annotations", "finalizers"] {
                        if let Some(value) = value.get(part) {
                            field(
                                &format!("metadata.{part}"),
                                value,
                                owned.and_then(|f| f.get(&format!("f:{part}"))),
                                &mut missing,
                            );
                        }
                    }
                }
                _ => field(name, value, fields.get(&format!("f:{name}")), &mut missing),
            }
        }
    }
    missing
}

/// Our entry's `fieldsV1`.
fn entry<'a>(live: &'a Value, manager: &str) -> Option<&'a Value> {
    live.get("metadata")?
        .get("managedFields")?
        .as_array()?
        .iter()
        .find(|e| {
            e.get("manager").and_then(Value::as_str) == Some(manager)
                && e.get("operation").and_then(Value::as_str) == Some("Apply")
                && e.get("subresource").and_then(Value::as_str).is_none_or(str::is_empty)
        })?
        .get("fieldsV1")
}

/// Who owns `path` now, other than us: for Events and diffs.
pub fn owner(live: &Value, path: &str, ours: &str) -> Option<String> {
    let entries = live.get("metadata")?.get("managedFields")?.as_array()?;
    let keys: Vec<String> = path
        .split('.')
        .map(|p| format!("f:{}", p.split('[').next().unwrap_or(p)))
        .collect();
    entries
        .iter()
        .filter(|e| e.get("manager").and_then(Value::as_str) != Some(ours))
        .filter_map(|e| {
            let mut at = e.get("fieldsV1")?;
            let mut depth = 0;
            for key in &keys {
                match at.get(key) {
                    Some(next) => at = next,
                    None => break,
                }
                depth += 1;
            }
            // Two steps deep (`f:spec.f:x`) at least, or one when the path has only one.
            (depth >= keys.len().min(2)).then(|| {
                (
                    depth,
                    e.get("manager").and_then(Value::as_str).unwrap_or("unknown").to_owned(),
                )
            })
        })
        .max_by_key(|(depth, _)| *depth)
        .map(|(_, manager)| manager)
}

fn field(path: &str, wanted: &Value, owned: Option<&Value>, missing: &mut Vec<String>) {
    // Null in an applied configuration asks for nothing to own.
    if wanted.is_null() {
        return;
    }
    let Some(owned) = owned.and_then(Value::as_object) else {
        // Nothing below is ours either: the fields are named, and not what holds them.
        match wanted {
            Value::Object(fields) if fields.values().any(|v| !v.is_null()) => {
                for (name, value) in fields {
                    field(&format!("{path}.{name}"), value, None, missing);
                }
            }
            _ => missing.push(path.to_owned()),
        }
        return;
    };
    // An empty set of children is a leaf, or an atomic value: everything below is ours.
    if owned.keys().all(|k| k == ".") {
        return;
    }
    match wanted {
        Value::Object(fields) => {
            for (name, value) in fields {
                field(
                    &format!("{path}.{name}"),
                    value,
                    owned.get(&format!("f:{name}")),
                    missing,
                );
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                list_item(&format!("{path}[{i}]"), item, owned, missing);
            }
        }
        _ => {}
    }
}

fn list_item(path: &str, item: &Value, owned: &Map<String, Value>, missing: &mut Vec<String>) {
    let Value::Object(fields) = item else {
        // A set: `v:"value"`.
        if owned.keys().any(|k| k.starts_with("v:")) && !owned.contains_key(&format!("v:{item}")) {
            missing.push(path.to_owned());
        }
        return;
    };
    let keyed = owned
        .iter()
        .filter_map(|(k, v)| Some((serde_json::from_str::<Value>(k.strip_prefix("k:")?).ok()?, v)));
    let mut any = false;
    for (key, below) in keyed {
        any = true;
        // A key field that Git leaves out has its default on the server, so only those present are compared.
        let fits = key.as_object().is_some_and(|k| {
            k.iter()
                .all(|(name, value)| fields.get(name).is_none_or(|f| f == value))
        });
        if fits {
            if let Some(below) = below.as_object()
                && !below.keys().all(|k| k == ".")
            {
                for (name, value) in fields {
                    field(
                        &format!("{path}.{name}"),
                        value,
                        below.get(&format!("f:{name}")),
                        missing,
                    );
                }
            }
            return;
        }
    }
    if any {
        missing.push(path.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn live(fields: Value) -> Value {
        json!({"metadata": {"managedFields": [
            {"manager": "other", "operation": "Update", "fieldsV1": {"f:data": {"f:b": {}}}},
            {"manager": "us", "operation": "Apply", "fieldsV1": fields},
        ]}})
    }

    #[test]
    fn a_field_taken_away_is_drift() {
        let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "labels": {"l": "1"}}, "data": {"a": "1", "b": "2"}});
        let all = json!({"f:metadata": {"f:labels": {"f:l": {}}}, "f:data": {"f:a": {}, "f:b": {}}});
        assert!(drifted(&wanted, &live(all), "us").is_empty());
        let less = json!({"f:metadata": {"f:labels": {"f:l": {}}}, "f:data": {"f:a": {}}});
        assert_eq!(drifted(&wanted, &live(less.clone()), "us"), ["data.b"]);
        assert_eq!(owner(&live(less), "data.b", "us").as_deref(), Some("other"));
        // The last one of a mapping takes the mapping with it; it is still the field that is named.
        let none = json!({"f:metadata": {"f:labels": {"f:l": {}}}});
        assert_eq!(drifted(&wanted, &live(none), "us"), ["data.a", "data.b"]);
        assert_eq!(drifted(&wanted, &json!({}), "us"), ["the whole object"]);
    }

    #[test]
    fn lists_are_matched_by_their_keys() {
        let wanted = json!({"spec": {"ports": [{"port": 80, "name": "a"}], "args": ["x"], "sets": ["one", "two"]}});
        let fields = json!({"f:spec": {
            "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}},
            "f:args": {},
            "f:sets": {"v:\"one\"": {}, "v:\"two\"": {}},
        }});
        assert!(drifted(&wanted, &live(fields), "us").is_empty());
        let fields = json!({"f:spec": {"f:ports": {"k:{\"port\":81,\"protocol\":\"TCP\"}": {".": {}}}, "f:args": {}, "f:sets": {"v:\"one\"": {}}}});
        assert_eq!(drifted(&wanted, &live(fields), "us"), ["spec.ports[0]", "spec.sets[1]"]);
    }
}
