//! One GitSource, as a user sees it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::house::House;
use crate::repo::Repo;

/// The ServiceAccount that every source under test applies as; the chart allows this name.
pub const ACCOUNT: &str = "holdfast-applier";
/// Long enough for a busy machine; most waits end within two seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A GitSource under test.
#[derive(Clone, Debug)]
pub struct Source<'a> {
    /// Where it lives.
    pub house: &'a House,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A condition as a user sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// True, False or Unknown.
    pub status: String,
    /// In one word.
    pub reason: String,
    /// In full.
    pub message: String,
}

impl<'a> Source<'a> {
    /// A source over ssh that polls every second, with a ServiceAccount that may do what examples/gitsource-ssh.yaml lets it;
    /// `more` is added to its spec.
    pub fn over_ssh(house: &'a House, namespace: &str, repo: &Repo, more: Value) -> Result<Source<'a>> {
        account(house, namespace)?;
        grant(house, namespace, &["get", "list", "watch", "create", "patch", "delete"])?;
        secret(
            house,
            namespace,
            "git-credentials",
            json!({
                "identity": std::fs::read_to_string(&repo.servers.ssh_key)?,
                "known_hosts": std::fs::read_to_string(&repo.servers.known_hosts)?,
            }),
        )?;
        let source = Source {
            house,
            namespace: namespace.into(),
            name: "git".into(),
        };
        let mut spec = json!({
            "url": repo.servers.ssh_url(&repo.name), "ref": {"branch": "main"}, "interval": "1s",
            "credentialsRef": {"name": "git-credentials"}, "serviceAccountName": ACCOUNT,
        });
        merge(&mut spec, more);
        source.apply(&spec)?;
        Ok(source)
    }

    /// Applies the source with this spec.
    pub fn apply(&self, spec: &Value) -> Result<()> {
        let object = json!({
            "apiVersion": "holdfast.dev/v1alpha1", "kind": "GitSource",
            "metadata": {"name": self.name, "namespace": self.namespace}, "spec": spec,
        });
        self.house.apply(&object.to_string()).map(drop)
    }

    /// Changes some fields of its spec, as a person with kubectl would.
    pub fn patch(&self, spec: Value) -> Result<()> {
        let patch = json!({ "spec": spec }).to_string();
        self.kubectl(&["patch", "gitsource", &self.name, "--type=merge", "-p", &patch])
            .map(drop)
    }

    /// kubectl in its namespace.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.house.kubectl(&[&["-n", self.namespace.as_str()], args].concat())
    }

    /// Its status.
    pub fn status(&self) -> Result<Value> {
        let object = self
            .house
            .get(&self.namespace, &format!("gitsource/{}", self.name))?
            .context("the GitSource is gone")?;
        Ok(object.get("status").cloned().unwrap_or_default())
    }

    /// Waits until `seen` finds what it looks for in the status; the whole status is in the error.
    pub fn wait<T>(&self, what: &str, seen: impl FnMut(&Value) -> Option<T>) -> Result<T> {
        self.wait_within(what, PATIENCE, seen)
    }

    /// The same, with another patience.
    pub fn wait_within<T>(
        &self,
        what: &str,
        patience: Duration,
        mut seen: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T> {
        let start = Instant::now();
        loop {
            let status = self.status()?;
            if let Some(found) = seen(&status) {
                return Ok(found);
            }
            if start.elapsed() > patience {
                bail!("{what}: not within {} s; status: {status:#}", patience.as_secs());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until a commit is in force; the status that says so.
    pub fn wait_applied(&self, commit: &str) -> Result<Value> {
        self.wait(&format!("{commit} is in force"), |status| {
            (text(status, "/appliedRevision") == commit && condition(status, "Applied").status == "True")
                .then(|| status.clone())
        })
    }

    /// Waits until a commit was seen and refused for `reason`; the status that says so.
    pub fn wait_refused(&self, commit: &str, reason: &str) -> Result<Value> {
        self.wait(&format!("{commit} is refused: {reason}"), |status| {
            let ready = condition(status, "Ready");
            (text(status, "/fetchedRevision") == commit && ready.status == "False" && ready.reason == reason)
                .then(|| status.clone())
        })
    }

    /// Waits until Ready says `reason`; its condition.
    pub fn wait_ready_says(&self, reason: &str) -> Result<Condition> {
        self.wait(&format!("Ready says {reason}"), |status| {
            Some(condition(status, "Ready")).filter(|ready| ready.reason == reason)
        })
    }

    /// The key `value` of a ConfigMap; empty when there is none.
    pub fn value(&self, config_map: &str) -> Result<String> {
        let object = self.house.get(&self.namespace, &format!("configmap/{config_map}"))?;
        Ok(object.map_or_else(String::new, |o| text(&o, "/data/value").to_owned()))
    }

    /// Waits until the key `value` of a ConfigMap is `wanted`.
    pub fn wait_value(&self, config_map: &str, wanted: &str) -> Result<()> {
        crate::house::wait_for(&format!("{config_map} says {wanted}"), PATIENCE, || {
            let now = self.value(config_map)?;
            Ok(if now == wanted { Ok(()) } else { Err(now) })
        })
    }

    /// Events about it: reason and note of each.
    pub fn events(&self) -> Result<Vec<(String, String)>> {
        let list: Value = serde_json::from_str(&self.kubectl(&["get", "events", "-o", "json"])?)?;
        let items = list.pointer("/items").and_then(Value::as_array).cloned();
        Ok(items
            .unwrap_or_default()
            .iter()
            .filter(|e| text(e, "/involvedObject/kind") == "GitSource")
            .map(|e| (text(e, "/reason").to_owned(), text(e, "/message").to_owned()))
            .collect())
    }
}

/// Makes the ServiceAccount that sources apply as.
pub fn account(house: &House, namespace: &str) -> Result<()> {
    house
        .apply(&format!(
            "{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: {ACCOUNT}, namespace: {namespace}}}}}"
        ))
        .map(drop)
}

/// Lets that account do this with ConfigMaps and HAReplicaSets, and nothing else.
pub fn grant(house: &House, namespace: &str, verbs: &[&str]) -> Result<()> {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": ACCOUNT, "namespace": namespace},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs},
                  {"apiGroups": ["holdfast.dev"], "resources": ["hareplicasets"], "verbs": verbs}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": ACCOUNT, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}],
    });
    house.apply(&format!("{role}\n---\n{binding}")).map(drop)
}

/// Makes a Secret.
pub fn secret(house: &House, namespace: &str, name: &str, data: Value) -> Result<()> {
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "stringData": data,
    });
    house.apply(&object.to_string()).map(drop)
}

/// A field as text; empty when it is not there.
pub fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A condition of a status; empty when it is not there.
pub fn condition(status: &Value, kind: &str) -> Condition {
    let conditions = status.pointer("/conditions").and_then(Value::as_array);
    let found = conditions.into_iter().flatten().find(|c| text(c, "/type") == kind);
    found.map_or_else(Condition::default, |c| Condition {
        status: text(c, "/status").into(),
        reason: text(c, "/reason").into(),
        message: text(c, "/message").into(),
    })
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}
