//! What `make bench-git` needs to know of a system that brings a repository's objects into a cluster.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::house::{House, SYSTEM};
use crate::repo::Repo;
use crate::requests::{Request, Webhook};
use crate::source::{Source, condition, secret, text};

/// As long as the largest repository may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(1800);

/// A system under test, which takes one repository into one namespace.
pub trait GitOps {
    /// The bed that it runs on.
    fn house(&self) -> &House;
    /// Where the objects go.
    fn namespace(&self) -> &str;
    /// Where its controllers are.
    fn system(&self) -> &str;
    /// Its controllers' Pods, by label.
    fn selector(&self) -> &str;
    /// Its controllers' programs, as they are called in its images.
    fn programs(&self) -> &[&str];
    /// How often a repository is polled while nothing moves.
    fn quiet_interval(&self) -> &str;
    /// Gives it the repository. It is not polled in the next hour.
    fn take(&self, repo: &Repo) -> Result<()>;
    /// Sets how often the repository is polled.
    fn poll_every(&self, interval: &str) -> Result<()>;
    /// Says that something was pushed, as a Git server does that is connected with it; when it was said (s since 1970).
    fn tell(&self) -> Result<f64>;
    /// Waits until a commit is in force.
    fn wait(&self, commit: &str) -> Result<()>;
    /// When it had the commit, if it says so.
    fn fetched(&self, commit: &str, requests: &[Request]) -> Result<Option<f64>>;
    /// Makes it look at all objects again without any news, as it does from time to time; when that was said. Nothing if it
    /// does no such thing.
    fn again(&self) -> Result<Option<f64>>;
    /// Takes away what would keep the namespace from going.
    fn leave(&self) -> Result<()>;
    /// Whether a request of its controllers is about the repository.
    fn concerns(&self, request: &Request) -> bool;

    /// Whether it says that it is at work, although it may ask for nothing meanwhile.
    fn busy(&self) -> Result<bool> {
        Ok(false)
    }

    /// Deletes its controllers' Pods and waits until there are new ones at work.
    fn restart(&self) -> Result<()> {
        self.renew()
    }

    /// Deletes its controllers' Pods and waits until there are new ones.
    fn renew(&self) -> Result<()> {
        let pods = ["delete", "pods", "-l", self.selector(), "--wait", "--timeout=90s"];
        self.controllers(&pods)?;
        self.controllers(&["rollout", "status", "deployment", "--timeout=120s"])
            .map(drop)
    }

    /// kubectl where its controllers are.
    fn controllers(&self, args: &[&str]) -> Result<String> {
        self.house().kubectl(&[&["-n", self.system()], args].concat())
    }

    /// Fails if a container started again: memory that is not enough shows like this.
    fn no_restarts(&self) -> Result<()> {
        let path = "-o=jsonpath={.items[*].status.containerStatuses[*].restartCount}";
        let counts = self.controllers(&["get", "pods", "-l", self.selector(), path])?;
        ensure!(
            counts.split_whitespace().all(|n| n == "0"),
            "containers in {} started again ({counts} times): see `kubectl describe`",
            self.system()
        );
        Ok(())
    }
}

/// Holdfast: one GitSource, told by webhook.
#[derive(Debug)]
pub struct Holdfast<'a> {
    source: Source<'a>,
    webhook: Webhook,
}

impl<'a> Holdfast<'a> {
    /// For a namespace that is there.
    pub fn new(house: &'a House, namespace: &str) -> Result<Holdfast<'a>> {
        secret(house, namespace, "hook", json!({"token": "between us"}))?;
        Ok(Holdfast {
            source: Source {
                house,
                namespace: namespace.into(),
                name: "git".into(),
            },
            webhook: Webhook::new(house, namespace, "git", b"between us")?,
        })
    }
}

impl GitOps for Holdfast<'_> {
    fn house(&self) -> &House {
        self.source.house
    }

    fn namespace(&self) -> &str {
        &self.source.namespace
    }

    fn system(&self) -> &str {
        SYSTEM
    }

    fn selector(&self) -> &str {
        "app.kubernetes.io/component=operator"
    }

    fn programs(&self) -> &[&str] {
        &["holdfast"]
    }

    fn quiet_interval(&self) -> &str {
        "1s"
    }

    fn take(&self, repo: &Repo) -> Result<()> {
        let hourly = json!({"interval": "1h", "webhook": {"secretRef": {"name": "hook"}}});
        Source::over_ssh(self.source.house, self.namespace(), repo, hourly).map(drop)
    }

    fn poll_every(&self, interval: &str) -> Result<()> {
        self.source.patch(json!({ "interval": interval }))
    }

    fn tell(&self) -> Result<f64> {
        let now = now();
        let answer = self.webhook.deliver()?;
        ensure!(answer == 202, "the webhook was answered {answer}");
        Ok(now)
    }

    fn wait(&self, commit: &str) -> Result<()> {
        let what = format!("{commit} is in force and healthy");
        self.source.wait_within(&what, PATIENCE, |status| {
            (text(status, "/appliedRevision") == commit && condition(status, "Ready").status == "True").then_some(())
        })
    }

    /// By its own log, on this same machine.
    fn fetched(&self, commit: &str, _: &[Request]) -> Result<Option<f64>> {
        let log = self.controllers(&["logs", "-l", self.selector(), "--tail=1000"])?;
        log.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|line| line["message"] == "fetched" && line["revision"] == commit)
            .and_then(|line| line.get("timestamp")?.as_str()?.parse::<jiff::Timestamp>().ok())
            .map(|at| Some(at.as_duration().as_secs_f64()))
            .with_context(|| format!("the operator's log does not tell of {commit}"))
    }

    /// It watches its objects.
    fn again(&self) -> Result<Option<f64>> {
        Ok(None)
    }

    fn leave(&self) -> Result<()> {
        Ok(())
    }

    /// In its own name or as the source's account.
    fn concerns(&self, request: &Request) -> bool {
        request.uri.contains(&format!("/namespaces/{}/", self.namespace()))
            || request.acts_as.contains(&format!(":{}:", self.namespace()))
    }
}

/// Seconds since 1970.
pub fn now() -> f64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}
