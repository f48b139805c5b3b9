//! One replica set, as a user sees it.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use holdfast_core::failover::Record;
use holdfast_wire::{Names, RECORD_ANNOTATION, SET_LABEL};
use serde_json::Value;

use crate::house::{House, POSTGRES, SOON, binary, run, wait_for};
use crate::sql::Access;
use crate::system::System;

/// A replica set under test.
#[derive(Clone, Debug)]
pub struct Set<'a> {
    /// Where it lives.
    pub house: &'a House,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The engine's image.
    pub image: String,
    /// The user ID that the engine is to run as, if not the default one.
    pub user: Option<u32>,
}

impl<'a> Set<'a> {
    /// Applies an HAReplicaSet with `members` members; `more` is YAML flow fields added to the spec, such as
    /// `durability: {mode: Async}`.
    pub fn apply(house: &'a House, namespace: &str, name: &str, members: u16, more: &str) -> Result<Set<'a>> {
        let set = Set::named(house, namespace, name);
        set.change(members, more)?;
        Ok(set)
    }

    /// The set of this name, whether it is there yet or not.
    pub fn named(house: &'a House, namespace: &str, name: &str) -> Set<'a> {
        Set {
            house,
            namespace: namespace.into(),
            name: name.into(),
            image: POSTGRES.into(),
            user: None,
        }
    }

    /// Applies the set anew with other fields.
    pub fn change(&self, members: u16, more: &str) -> Result<()> {
        let comma = if more.is_empty() { "" } else { "," };
        let user = self
            .user
            .map_or_else(String::new, |user| format!(", runAsUser: {user}"));
        self.house
            .apply(&format!(
                "{{apiVersion: holdfast.dev/v1alpha1, kind: HAReplicaSet, metadata: {{name: {}, namespace: {}}}, spec: {{\
                 members: {members}, engine: {{postgresql: {{image: '{}'{user}}}}}, storage: {{size: 512Mi}}, resources: {{requests: {{cpu: 200m, memory: 128Mi}}}}{comma} {more}}}}}",
                self.name, self.namespace, self.image
            ))
            .map(drop)
    }

    /// Sets these of PostgreSQL's parameters, as JSON, as a person with kubectl would.
    pub fn set_parameters(&self, parameters: &str) -> Result<()> {
        let patch = format!("{{\"spec\":{{\"engine\":{{\"postgresql\":{{\"parameters\":{parameters}}}}}}}}}");
        let args = ["patch", "hrs", &self.name, "--type=merge", "-p", &patch];
        self.house
            .kubectl(&[["-n", &self.namespace].as_slice(), &args].concat())
            .map(drop)
    }

    /// Name, UID and restarts of each Pod: another word means that one was made or started anew meanwhile.
    pub fn containers(&self) -> Result<String> {
        let each = "{.metadata.name} {.metadata.uid} {.status.containerStatuses[*].restartCount}";
        let path = format!("jsonpath={{range .items[*]}}{each}{{\"\\n\"}}{{end}}");
        let label = format!("{SET_LABEL}={}", self.name);
        let args = ["get", "pods", "-l", &label, "-o", &path];
        self.house
            .kubectl(&[["-n", &self.namespace].as_slice(), &args].concat())
    }

    /// The address of a Pod.
    pub fn address(&self, pod: &str) -> Result<String> {
        let path = "jsonpath={.status.podIP}";
        self.house
            .kubectl(&["-n", &self.namespace, "get", "pod", pod, "-o", path])
    }

    /// The object.
    pub fn object(&self) -> Result<Value> {
        self.house
            .get(&self.namespace, &format!("hareplicaset/{}", self.name))?
            .with_context(|| format!("no HAReplicaSet {}/{}", self.namespace, self.name))
    }

    /// A field of status by JSON pointer, as text.
    pub fn status(&self, pointer: &str) -> Result<String> {
        let object = self.object()?;
        Ok(match object.pointer(&format!("/status{pointer}")) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(s)) => s.clone(),
            Some(other) => other.to_string(),
        })
    }

    /// Waits until the phase is Ready for the generation that is wanted now; says what it waits for when it changes.
    pub fn wait_ready(&self, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        let mut told = String::new();
        wait_for(&format!("{}/{} is Ready", self.namespace, self.name), limit, || {
            let object = self.object()?;
            let text = |p: &str| object.pointer(p).and_then(Value::as_str).unwrap_or("-").to_owned();
            let line = format!(
                "{} {}: {}",
                text("/status/phase"),
                text("/status/ready"),
                text("/status/message")
            );
            if line != told {
                eprintln!("  {:>5.1} s  {line}", start.elapsed().as_secs_f32());
                told.clone_from(&line);
            }
            let current = object.pointer("/status/observedGeneration") == object.pointer("/metadata/generation");
            if current && text("/status/phase") == "Ready" {
                Ok(Ok(()))
            } else {
                Ok(Err(line))
            }
        })?;
        Ok(start.elapsed())
    }

    /// The primary by name, as status says.
    pub fn primary(&self) -> Result<String> {
        self.status("/primary")
    }

    /// The term, as status says.
    pub fn term(&self) -> Result<u64> {
        let term = self.status("/term")?;
        term.parse().with_context(|| format!("term {term:?}"))
    }

    /// Waits until status names a primary of a later term than this one. It may be the one of before: a member that is back
    /// soon enough may be elected again.
    pub fn wait_term_after(&self, before: u64) -> Result<()> {
        wait_for(&format!("a primary of a later term than {before}"), SOON, || {
            let (primary, now) = (self.primary()?, self.term()?);
            Ok(if now > before && !primary.is_empty() {
                Ok(())
            } else {
                Err(format!("primary {primary:?}, term {now}"))
            })
        })
    }

    /// The authority record, which the members keep.
    pub fn record(&self) -> Result<Record> {
        let lease = Names(&self.name).lease();
        let lease = self.house.get(&self.namespace, &format!("lease/{lease}"))?;
        let text = lease
            .as_ref()
            .and_then(|l| l.pointer("/metadata/annotations")?.get(RECORD_ANNOTATION)?.as_str());
        Ok(serde_json::from_str(text.context("no authority record")?)?)
    }

    /// How often its members have told, by an Event, that they opened an election because the leader was lost.
    pub fn elections_told(&self) -> Result<u64> {
        let args = ["get", "events", "--field-selector=reason=ElectionOpened", "-o", "json"];
        let text = self
            .house
            .kubectl(&[["-n", &self.namespace].as_slice(), &args].concat())?;
        let list: Value = serde_json::from_str(&text)?;
        let pods = format!("{}-", self.name);
        let ours = |event: &&Value| {
            let pod = event.pointer("/involvedObject/name").and_then(Value::as_str);
            pod.is_some_and(|pod| pod.starts_with(&pods))
        };
        // One that is told again within minutes is the same Event, counted up.
        let times = |event: &Value| event.pointer("/series/count").and_then(Value::as_u64).unwrap_or(1);
        let events = list.pointer("/items").and_then(Value::as_array);
        Ok(events.into_iter().flatten().filter(ours).map(times).sum())
    }

    /// A key of the application's Secret.
    pub fn secret(&self, key: &str) -> Result<String> {
        self.house.kubectl(&[
            "-n",
            &self.namespace,
            "get",
            "secret",
            &format!("{}-app", self.name),
            "-o",
            &format!("go-template={{{{index .data {key:?} | base64decode}}}}"),
        ])
    }

    /// Address of a Service (`rw`, `ro`, `r`), which this machine reaches by way of the bed's outside client.
    pub fn service(&self, which: &str) -> Result<String> {
        let service = format!("{}-{which}", self.name);
        self.house.kubectl(&[
            "-n",
            &self.namespace,
            "get",
            "service",
            &service,
            "-o",
            "jsonpath={.spec.clusterIP}",
        ])
    }

    /// A planned switchover by kubectl-holdfast, with more arguments such as `--to`.
    pub fn switchover_to(&self, more: &[&str]) -> Result<()> {
        let program = binary()?.with_file_name("kubectl-holdfast");
        ensure!(
            program.exists(),
            "{} is not there: run `make image` first",
            program.display()
        );
        let mut command = Command::new(program);
        command.env("KUBECONFIG", self.house.bed.kubeconfig()?);
        run(command
            .args(["-n", &self.namespace, "switchover", &self.name])
            .args(more))
        .map(drop)
    }

    /// Names of the Pods behind a Service, as the EndpointSlice says, sorted.
    pub fn behind(&self, which: &str) -> Result<Vec<String>> {
        let slice = self
            .house
            .get(&self.namespace, &format!("endpointslice/{}-{which}", self.name))?
            .context("no EndpointSlice")?;
        let mut names: Vec<String> = slice
            .pointer("/endpoints")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|e| {
                e.pointer("/targetRef/name")
                    .and_then(Value::as_str)
                    .map(ToOwned::to_owned)
            })
            .collect();
        names.sort();
        Ok(names)
    }

    /// Waits until the Pods behind a Service are as they should be: members write there, each in its own time.
    pub fn wait_behind(&self, which: &str, right: impl Fn(&[String]) -> bool) -> Result<()> {
        wait_for(&format!("the right Pods are behind -{which}"), SOON, || {
            let pods = self.behind(which)?;
            Ok(if right(&pods) { Ok(()) } else { Err(format!("{pods:?}")) })
        })
    }
}

impl System for Set<'_> {
    fn house(&self) -> &House {
        self.house
    }

    fn namespace(&self) -> &str {
        &self.namespace
    }

    fn access(&self) -> Result<Access> {
        Access::to(self, "rw")
    }

    fn primary(&self) -> Result<String> {
        Set::primary(self)
    }

    fn replicas(&self) -> Result<Vec<String>> {
        self.behind("ro")
    }

    fn wait_fit(&self, limit: Duration) -> Result<()> {
        self.wait_ready(limit).map(drop)
    }

    fn switchover(&self) -> Result<()> {
        self.switchover_to(&[])
    }
}
