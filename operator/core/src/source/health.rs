//! Health of one object, by the rules of kstatus.

use serde_json::Value;

use super::object::split_api_version;

/// How an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// As its spec wants it.
    Current,
    /// On its way.
    InProgress(String),
    /// It will not get there by itself.
    Failed(String),
}

/// The health of a live object. An object that reports nothing is `Current`: there is nothing to wait for.
pub fn of(live: &Value) -> Health {
    if live.pointer("/metadata/deletionTimestamp").is_some() {
        return Health::InProgress("is being deleted".into());
    }
    let (group, _) = split_api_version(live.get("apiVersion").and_then(Value::as_str).unwrap_or(""));
    let kind = live.get("kind").and_then(Value::as_str).unwrap_or("");
    let special = match (group, kind) {
        ("apps", "Deployment" | "StatefulSet") => Some(replicas(live)),
        ("apps", "DaemonSet") => Some(daemon_set(live)),
        ("batch", "Job") => Some(job(live)),
        ("", "PersistentVolumeClaim") => Some(claim(live)),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => Some(definition(live)),
        // What is applied is what it is: these have conditions that mean something else, or none.
        ("", "ConfigMap" | "Secret" | "ServiceAccount" | "Service" | "Namespace")
        | ("policy", "PodDisruptionBudget") => Some(Health::Current),
        _ => None,
    };
    special.unwrap_or_else(|| generic(live))
}

fn number(live: &Value, pointer: &str) -> Option<i64> {
    live.pointer(pointer).and_then(Value::as_i64)
}

fn condition<'a>(live: &'a Value, kind: &str) -> Option<(&'a str, &'a str)> {
    let found = live
        .pointer("/status/conditions")?
        .as_array()?
        .iter()
        .find(|c| c.get("type").and_then(Value::as_str) == Some(kind))?;
    let text = |field: &str| found.get(field).and_then(Value::as_str);
    Some((
        text("status")?,
        text("message")
            .filter(|m| !m.is_empty())
            .or_else(|| text("reason"))
            .unwrap_or(""),
    ))
}

fn behind(live: &Value) -> bool {
    match (
        number(live, "/metadata/generation"),
        number(live, "/status/observedGeneration"),
    ) {
        (Some(wanted), Some(seen)) => seen < wanted,
        _ => false,
    }
}

fn generic(live: &Value) -> Health {
    if behind(live) {
        return Health::InProgress("its controller has not seen the change yet".into());
    }
    if let Some(("True", message)) = condition(live, "Stalled") {
        return Health::Failed(message.to_owned());
    }
    if let Some(("True", message)) = condition(live, "Reconciling") {
        return Health::InProgress(message.to_owned());
    }
    match condition(live, "Ready") {
        Some(("True", _)) => Health::Current,
        Some((_, message)) => Health::InProgress(message.to_owned()),
        // Holdfast's own kinds always report, so no Ready yet means that nobody has looked; others may never report.
        None if is_ours(live)
            && live.get("spec").is_some()
            && live.pointer("/status/conditions").is_none()
            && reports(live) =>
        {
            Health::InProgress("its controller has not reported yet".into())
        }
        None => Health::Current,
    }
}

fn is_ours(live: &Value) -> bool {
    live.get("apiVersion")
        .and_then(Value::as_str)
        .is_some_and(|v| v.starts_with("holdfast.dev/"))
}

fn reports(live: &Value) -> bool {
    matches!(
        live.get("kind").and_then(Value::as_str),
        Some("HAReplicaSet" | "HACluster" | "GitSource")
    )
}

fn replicas(live: &Value) -> Health {
    if behind(live) {
        return Health::InProgress("its controller has not seen the change yet".into());
    }
    if let Some(("False", message)) = condition(live, "Progressing") {
        return Health::Failed(message.to_owned());
    }
    let wanted = number(live, "/spec/replicas").unwrap_or(1);
    let updated = number(live, "/status/updatedReplicas").unwrap_or(0);
    let ready = number(live, "/status/readyReplicas").unwrap_or(0);
    let total = number(live, "/status/replicas").unwrap_or(0);
    if updated < wanted {
        Health::InProgress(format!("{updated} of {wanted} replicas updated"))
    } else if ready < wanted {
        Health::InProgress(format!("{ready} of {wanted} replicas ready"))
    } else if total > wanted {
        Health::InProgress(format!("{} old replicas left", total - wanted))
    } else {
        Health::Current
    }
}

fn daemon_set(live: &Value) -> Health {
    let wanted = number(live, "/status/desiredNumberScheduled");
    let ready = number(live, "/status/numberReady").unwrap_or(0);
    match wanted {
        _ if behind(live) => Health::InProgress("its controller has not seen the change yet".into()),
        Some(wanted) if ready >= wanted && number(live, "/status/updatedNumberScheduled").unwrap_or(0) >= wanted => {
            Health::Current
        }
        Some(wanted) => Health::InProgress(format!("{ready} of {wanted} pods ready")),
        None => Health::InProgress("not scheduled yet".into()),
    }
}

fn job(live: &Value) -> Health {
    match (condition(live, "Failed"), condition(live, "Complete")) {
        (Some(("True", message)), _) => Health::Failed(message.to_owned()),
        (_, Some(("True", _))) => Health::Current,
        _ => Health::InProgress("running".into()),
    }
}

fn claim(live: &Value) -> Health {
    match live.pointer("/status/phase").and_then(Value::as_str) {
        Some("Bound") => Health::Current,
        Some("Lost") => Health::Failed("its volume is lost".into()),
        // A claim of a WaitForFirstConsumer class stays Pending until a pod uses it; waiting for that would wait for ever.
        _ => Health::Current,
    }
}

fn definition(live: &Value) -> Health {
    match (condition(live, "NamesAccepted"), condition(live, "Established")) {
        (Some(("False", message)), _) => Health::Failed(message.to_owned()),
        (_, Some(("True", _))) => Health::Current,
        _ => Health::InProgress("not served yet".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kstatus_rules() {
        let hrs = |status: Value| {
            of(
                &json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "HAReplicaSet", "metadata": {"generation": 2}, "spec": {}, "status": status}),
            )
        };
        assert!(matches!(hrs(json!({})), Health::InProgress(_)));
        let ready = |status: &str| json!([{"type": "Ready", "status": status, "message": "m"}]);
        assert_eq!(
            hrs(json!({"observedGeneration": 2, "conditions": ready("True")})),
            Health::Current
        );
        assert!(matches!(
            hrs(json!({"observedGeneration": 1, "conditions": ready("True")})),
            Health::InProgress(_)
        ));
        assert_eq!(
            hrs(json!({"observedGeneration": 2, "conditions": ready("False")})),
            Health::InProgress("m".into())
        );
        assert_eq!(
            hrs(json!({"conditions": [{"type": "Stalled", "status": "True", "message": "x"}]})),
            Health::Failed("x".into())
        );
        assert_eq!(of(&json!({"apiVersion": "v1", "kind": "ConfigMap"})), Health::Current);
        let deployment = |ready: i64| {
            of(
                &json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 2}, "status": {"replicas": 2, "updatedReplicas": 2, "readyReplicas": ready}}),
            )
        };
        assert_eq!(deployment(2), Health::Current);
        assert_eq!(deployment(1), Health::InProgress("1 of 2 replicas ready".into()));
    }
}
