//! Patroni on the same bed, for comparison: Kubernetes as its store, Endpoints for traffic, quorum commit.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::house::{House, wait_for};
use crate::sql::Access;
use crate::system::System;

/// The `postgres` user of Debian's image.
const UID: &str = "100";

/// How Patroni is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuning {
    /// As it comes: `ttl` 30, `loop_wait` 10, `retry_timeout` 10, `primary_start_timeout` 300.
    Default,
    /// As quick as it lets itself be set: `ttl` 20 is the least that it takes, `primary_start_timeout` 0 fails over at once; log files
    /// as small as Holdfast makes them.
    Tuned,
}

/// Three members under Patroni.
#[derive(Debug)]
pub struct Patroni<'a> {
    house: &'a House,
    namespace: String,
    password: String,
}

impl<'a> Patroni<'a> {
    /// Makes the cluster and waits until all its members stream.
    pub fn apply(house: &'a House, namespace: &str, tuning: Tuning) -> Result<Patroni<'a>> {
        house.namespace(namespace)?;
        let image = house.bed.push_patroni()?.pinned;
        let [ttl, wait, retry, start, segment] = match tuning {
            Tuning::Default => ["30", "10", "10", "300", "16"],
            Tuning::Tuned => ["20", "1", "3", "0", "4"],
        };
        // Known to this bed only, which goes with the run.
        let password = "benchmark-only".to_owned();
        let text = include_str!("patroni.yaml")
            .replace("@NAMESPACE@", namespace)
            .replace("@IMAGE@", &image)
            .replace("@UID@", UID)
            .replace("@PASSWORD@", &password)
            .replace("@LOOP_WAIT@", wait)
            .replace("@RETRY_TIMEOUT@", retry)
            .replace("@START_TIMEOUT@", start)
            .replace("@SEGMENT@", segment)
            .replace("@TTL@", ttl);
        house.apply(&text)?;
        let patroni = Patroni {
            house,
            namespace: namespace.into(),
            password,
        };
        patroni.wait_fit(Duration::from_secs(300))?;
        Ok(patroni)
    }

    fn pods(&self) -> Result<Vec<Pod>> {
        let list = self.house.kubectl(&[
            "-n",
            &self.namespace,
            "get",
            "pods",
            "-l",
            "cluster-name=pg",
            "-o",
            "json",
        ])?;
        let list: Value = serde_json::from_str(&list)?;
        let pods = list
            .pointer("/items")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        Ok(pods.iter().map(Pod::of).collect())
    }

    fn annotation(&self, endpoints: &str, name: &str) -> Result<String> {
        let object = self.house.get(&self.namespace, &format!("endpoints/{endpoints}"))?;
        let path = format!("/metadata/annotations/{name}");
        let value = object.as_ref().and_then(|o| o.pointer(&path)).and_then(Value::as_str);
        Ok(value.unwrap_or_default().to_owned())
    }
}

/// What Patroni says of a member, in its pod's annotation.
struct Pod {
    name: String,
    state: String,
    timeline: u64,
}

impl Pod {
    fn of(object: &Value) -> Pod {
        let text = |path: &str| {
            object
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let status: Value = serde_json::from_str(&text("/metadata/annotations/status")).unwrap_or_default();
        // From 4.0 on a standby that streams is `state: running` and says `streaming` in a word of its own.
        let state = ["/replication_state", "/state"]
            .iter()
            .find_map(|path| status.pointer(path).and_then(Value::as_str));
        Pod {
            name: text("/metadata/name"),
            state: state.unwrap_or_default().to_owned(),
            timeline: status.pointer("/timeline").and_then(Value::as_u64).unwrap_or_default(),
        }
    }
}

impl System for Patroni<'_> {
    fn house(&self) -> &House {
        self.house
    }

    fn namespace(&self) -> &str {
        &self.namespace
    }

    fn access(&self) -> Result<Access> {
        let path = "jsonpath={.spec.clusterIP}";
        let address = self
            .house
            .kubectl(&["-n", &self.namespace, "get", "service", "pg", "-o", path])?;
        Access::plain(&address, "postgres", &self.password)
    }

    fn primary(&self) -> Result<String> {
        self.annotation("pg", "leader")
    }

    fn replicas(&self) -> Result<Vec<String>> {
        let primary = self.primary()?;
        let others = self.pods()?.into_iter().map(|p| p.name).filter(|name| *name != primary);
        Ok(others.collect())
    }

    fn wait_fit(&self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        wait_for("all members of Patroni stream", limit, || {
            let (primary, pods) = (self.primary()?, self.pods()?);
            let timeline = pods.iter().find(|p| p.name == primary).map(|p| p.timeline);
            let fit = pods
                .iter()
                .filter(|p| Some(p.timeline) == timeline && (p.name == primary || p.state == "streaming"));
            let fit = fit.count();
            let synchronous = self.annotation("pg-sync", "sync_standby")?;
            let counted = synchronous.split(',').filter(|name| !name.is_empty()).count();
            Ok(if fit == 3 && counted == 2 {
                Ok(())
            } else {
                Err(format!("{fit} of 3 stream, {counted} are synchronous"))
            })
        })?;
        eprintln!("  Patroni is fit after {:.1} s", start.elapsed().as_secs_f32());
        Ok(())
    }

    fn switchover(&self) -> Result<()> {
        let primary = self.primary()?;
        let args = [
            "-n",
            &self.namespace,
            "exec",
            &primary,
            "--",
            "patronictl",
            "-c",
            "/etc/patroni/patroni.yml",
        ];
        let more = ["switchover", "pg", "--leader", &primary, "--force"];
        self.house
            .kubectl(&[args.as_slice(), more.as_slice()].concat())
            .map(drop)
            .context("patronictl switchover")
    }
}
