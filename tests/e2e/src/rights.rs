//! Rights that an account was given, by the objects of RBAC, and those that it has used, by the API server's audit log.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context, Result};
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::Value;

use crate::house::House;
use crate::requests::Mark;

/// One thing that an account may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// `get`, `patch`, …
    pub verb: String,
    /// What it may be done to, with its group, if it has one: `leases.coordination.k8s.io`, `gitsources/status.holdfast.dev`.
    pub resource: String,
    /// Only to objects of these names; to all when there is none.
    pub names: Vec<String>,
    /// Only in this namespace; in all when there is none.
    pub namespace: Option<String>,
}

/// One thing that an account did, or tried to do.
#[derive(Clone, Debug)]
pub struct Use {
    /// Its user name.
    pub by: String,
    /// As in a right.
    pub verb: String,
    /// As in a right.
    pub resource: String,
    /// The object's name; empty where there is none.
    pub name: String,
    /// The object's namespace; empty where there is none.
    pub namespace: String,
    /// The answer.
    pub code: u64,
    /// What the server said about a refusal.
    pub message: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.names.is_empty() {
            write!(f, " {}", self.names.join(","))?;
        }
        self.namespace.iter().try_for_each(|ns| write!(f, " in {ns}"))
    }
}

impl Right {
    fn covers(&self, used: &Use) -> bool {
        self.verb == used.verb
            && self.resource == used.resource
            && (self.names.is_empty() || self.names.contains(&used.name))
            && self.namespace.as_ref().is_none_or(|ns| *ns == used.namespace)
    }

    /// How narrow it is: a use is of the narrowest right that covers it.
    fn bounds(&self) -> u8 {
        u8::from(!self.names.is_empty()) + u8::from(self.namespace.is_some())
    }
}

/// Those of `rights` that no use needed; what was refused is no use.
pub fn unused<'r>(rights: &'r [Right], uses: &[Use]) -> Vec<&'r Right> {
    let narrowest = |one: &Use| {
        let covering = rights.iter().enumerate().filter(|(_, right)| right.covers(one));
        covering.max_by_key(|(_, right)| right.bounds()).map(|(at, _)| at)
    };
    let used: BTreeSet<usize> = uses.iter().filter(|u| u.code != 403).filter_map(narrowest).collect();
    let all = rights.iter().enumerate();
    all.filter(|(at, _)| !used.contains(at))
        .map(|(_, right)| right)
        .collect()
}

fn qualified(resource: &str, group: &str) -> String {
    match group {
        "" => resource.to_owned(),
        group => format!("{resource}.{group}"),
    }
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn rights_of(rule: &PolicyRule, namespace: Option<&str>) -> Vec<Right> {
    let mut all = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            all.extend(rule.verbs.iter().map(|verb| Right {
                verb: verb.clone(),
                resource: qualified(resource, group),
                names: rule.resource_names.clone().unwrap_or_default(),
                namespace: namespace.map(ToOwned::to_owned),
            }));
        }
    }
    all
}

impl House {
    /// Everything that bindings give to the ServiceAccount `account` of `namespace` by name.
    pub fn rights(&self, namespace: &str, account: &str) -> Result<Vec<Right>> {
        let list = self.kubectl(&["get", "clusterrolebindings,rolebindings", "-A", "-o", "json"])?;
        let list: Value = serde_json::from_str(&list)?;
        let mut all = Vec::new();
        for binding in list.pointer("/items").and_then(Value::as_array).into_iter().flatten() {
            let subjects = binding.pointer("/subjects").and_then(Value::as_array);
            let ours = |s: &Value| {
                text(s, "/kind") == "ServiceAccount"
                    && text(s, "/namespace") == namespace
                    && text(s, "/name") == account
            };
            if !subjects.into_iter().flatten().any(ours) {
                continue;
            }
            let bound = binding.pointer("/metadata/namespace").and_then(Value::as_str);
            let (kind, name) = (text(binding, "/roleRef/kind"), text(binding, "/roleRef/name"));
            let role = self
                .get(bound.unwrap_or("default"), &format!("{kind}/{name}"))?
                .with_context(|| format!("no {kind} {name}"))?;
            let rules: Vec<PolicyRule> = serde_json::from_value(role.get("rules").cloned().unwrap_or_default())?;
            all.extend(rules.iter().flat_map(|rule| rights_of(rule, bound)));
        }
        Ok(all)
    }

    /// What accounts have done since. An apply that made its object needed the right to create as well; what is done as
    /// somebody else needs the right to act as them, and the rest is theirs.
    pub fn uses_since(&self, mark: Mark) -> Result<Vec<Use>> {
        let mut all = Vec::new();
        for event in self.audited_since(mark)? {
            let [resource, group, below] = ["resource", "apiGroup", "subresource"]
                .map(|field| text(&event, &format!("/objectRef/{field}")).to_owned());
            let resource = match below.as_str() {
                "" => resource,
                below => format!("{resource}/{below}"),
            };
            let mut one = Use {
                by: text(&event, "/user/username").to_owned(),
                verb: text(&event, "/verb").to_owned(),
                resource: qualified(&resource, &group),
                name: text(&event, "/objectRef/name").to_owned(),
                namespace: text(&event, "/objectRef/namespace").to_owned(),
                code: event
                    .pointer("/responseStatus/code")
                    .and_then(Value::as_u64)
                    .unwrap_or(0),
                message: text(&event, "/responseStatus/message").to_owned(),
            };
            let acts_as = text(&event, "/impersonatedUser/username");
            if let Some((namespace, name)) = acts_as
                .strip_prefix("system:serviceaccount:")
                .and_then(|account| account.split_once(':'))
            {
                one.verb = "impersonate".into();
                one.resource = "serviceaccounts".into();
                one.name = name.into();
                one.namespace = namespace.into();
            }
            if one.verb == "patch" && one.code == 201 {
                all.push(Use {
                    verb: "create".into(),
                    ..one.clone()
                });
            }
            all.push(one);
        }
        Ok(all)
    }
}
