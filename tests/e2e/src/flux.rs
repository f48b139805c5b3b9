//! Flux on the same bed, for comparison: source-controller and kustomize-controller with their own defaults.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::gitops::{GitOps, PATIENCE, now};
use crate::house::{House, say, wait_for};
use crate::repo::Repo;
use crate::requests::Request;
use crate::source::{condition, secret, text};

/// Where its controllers are.
pub const SYSTEM: &str = "flux-system";

/// Flux, with one GitRepository and one Kustomization, both `git`.
#[derive(Debug)]
pub struct Flux<'a> {
    house: &'a House,
    namespace: String,
}

impl<'a> Flux<'a> {
    /// Installs both controllers, for objects in a namespace that is there.
    pub fn install(house: &'a House, namespace: &str) -> Result<Flux<'a>> {
        let controllers = holdfast_bed::flux::controllers()?;
        say("installing Flux's source-controller and kustomize-controller (usually 20 s)");
        let mut text = include_str!("flux.yaml").to_owned();
        for controller in &controllers {
            for file in &controller.crds {
                crd(house, file)?;
            }
            let place = match controller.name.as_str() {
                "source-controller" => "@SOURCE@",
                _ => "@KUSTOMIZE@",
            };
            text = text.replace(place, &house.bed.push_flux(controller)?);
        }
        house.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
        house.apply(&text)?;
        let flux = Flux {
            house,
            namespace: namespace.into(),
        };
        flux.controllers(&["rollout", "status", "deployment", "--timeout=180s"])?;
        Ok(flux)
    }

    /// Takes both controllers away. Their kinds stay.
    pub fn uninstall(&self) -> Result<()> {
        self.house
            .kubectl(&["delete", "namespace", SYSTEM, "--wait", "--timeout=180s"])
            .map(drop)
    }

    fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.house.kubectl(&[&["-n", self.namespace.as_str()], args].concat())
    }

    /// Asks for a reconciliation as Flux's Receiver and its command line do; the mark by which the status tells that it was done.
    fn request(&self, kind: &str) -> Result<String> {
        let mark = jiff::Timestamp::now().to_string();
        let annotation = format!("reconcile.fluxcd.io/requestedAt={mark}");
        self.kubectl(&["annotate", "--overwrite", kind, "git", &annotation])?;
        Ok(mark)
    }

    fn wait_kustomization(&self, what: &str, seen: impl Fn(&Value) -> bool) -> Result<()> {
        wait_for(what, PATIENCE, || {
            // The object is large, and times are from the audit log: looking more often would only take what Flux needs.
            std::thread::sleep(Duration::from_secs(1));
            let object = self
                .house
                .get(&self.namespace, "kustomizations.kustomize.toolkit.fluxcd.io/git")?;
            let mut object = object.context("the Kustomization is gone")?;
            // A name for each object is in it, which nobody wants to read in an error.
            if let Some(Value::Object(status)) = object.get_mut("status") {
                status.remove("inventory");
                status.remove("history");
            }
            let status = object.get("status").cloned().unwrap_or_default();
            Ok(if seen(&status) {
                Ok(())
            } else {
                Err(format!("{status:#}"))
            })
        })
    }
}

fn crd(house: &House, file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    house.apply(&text).map(drop)
}

impl GitOps for Flux<'_> {
    fn house(&self) -> &House {
        self.house
    }

    fn namespace(&self) -> &str {
        &self.namespace
    }

    fn system(&self) -> &str {
        SYSTEM
    }

    fn selector(&self) -> &str {
        "bench=flux"
    }

    fn programs(&self) -> &[&str] {
        &["source-controller", "kustomize-controller"]
    }

    fn quiet_interval(&self) -> &str {
        "5s"
    }

    /// Defaults wherever there are any: it applies in its own name and does not wait for health (`wait: false`), which costs it
    /// least. Both intervals are so long that none ends within a measurement, the Kustomization's look at all objects is
    /// measured by [`GitOps::again`].
    fn take(&self, repo: &Repo) -> Result<()> {
        let credentials = json!({
            "identity": std::fs::read_to_string(&repo.servers.ssh_key)?,
            "known_hosts": std::fs::read_to_string(&repo.servers.known_hosts)?,
        });
        secret(self.house, &self.namespace, "git-credentials", credentials)?;
        let metadata = json!({"name": "git", "namespace": self.namespace});
        let source = json!({
            "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository", "metadata": metadata,
            "spec": {"url": repo.servers.ssh_url(&repo.name), "ref": {"branch": "main"}, "interval": "1h",
                     "secretRef": {"name": "git-credentials"}},
        });
        let kustomization = json!({
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization", "metadata": metadata,
            "spec": {"interval": "1h", "path": "./", "prune": true, "deletionPolicy": "Orphan", "targetNamespace": self.namespace,
                     "sourceRef": {"kind": "GitRepository", "name": "git"}},
        });
        self.house.apply(&format!("{source}\n---\n{kustomization}")).map(drop)
    }

    fn poll_every(&self, interval: &str) -> Result<()> {
        let patch = json!({"spec": {"interval": interval}}).to_string();
        self.kubectl(&["patch", "gitrepository", "git", "--type=merge", "-p", &patch])
            .map(drop)
    }

    /// What its Receiver does when a webhook comes. From when it was done: kubectl's own start is not Flux's.
    fn tell(&self) -> Result<f64> {
        self.request("gitrepository").map(|_| now())
    }

    fn wait(&self, commit: &str) -> Result<()> {
        self.wait_kustomization(&format!("{commit} is in force"), |status| {
            text(status, "/lastAppliedRevision").ends_with(commit) && condition(status, "Ready").status == "True"
        })
    }

    /// When the source's status names the new artifact: the last that is said of the source before the Kustomization is done.
    fn fetched(&self, _: &str, requests: &[Request]) -> Result<Option<f64>> {
        let of_source = requests
            .iter()
            .filter(|r| r.uri.contains("/gitrepositories/git/status"));
        Ok(of_source.map(|r| r.done).max_by(f64::total_cmp))
    }

    /// What happens at each of the Kustomization's intervals.
    fn again(&self) -> Result<Option<f64>> {
        let mark = self.request("kustomization")?;
        let from = now();
        self.wait_kustomization("a look at all objects", |status| {
            text(status, "/lastHandledReconcileAt") == mark && condition(status, "Ready").status == "True"
        })?;
        Ok(Some(from))
    }

    /// Building the manifests of 10,000 objects takes minutes without a request.
    fn busy(&self) -> Result<bool> {
        let object = self
            .house
            .get(&self.namespace, "kustomizations.kustomize.toolkit.fluxcd.io/git")?
            .context("the Kustomization is gone")?;
        let status = object.get("status").cloned().unwrap_or_default();
        Ok(condition(&status, "Ready").status != "True")
    }

    /// Its new Pods do nothing before the leases of the old ones are theirs.
    fn restart(&self) -> Result<()> {
        self.renew()?;
        wait_for("new leaders", Duration::from_secs(120), || {
            let names = |what: &str, path: &str| {
                let path = format!("-o=jsonpath={{.items[*]{path}}}");
                self.controllers(&["get", what, &path])
            };
            let (pods, holders) = (
                names("pods", ".metadata.name")?,
                names("leases", ".spec.holderIdentity")?,
            );
            Ok(if led(&pods, &holders) {
                Ok(())
            } else {
                Err(format!("{holders:?} lead, {pods:?} are there"))
            })
        })
    }

    fn leave(&self) -> Result<()> {
        let objects = ["kustomization/git", "gitrepository/git"];
        let wait = ["--ignore-not-found", "--wait", "--timeout=120s"];
        self.kubectl(&[&["delete"], &objects[..], &wait[..]].concat())?;
        Ok(())
    }

    /// There is nothing else that it could be about.
    fn concerns(&self, _: &Request) -> bool {
        true
    }
}

/// Whether each lease is held by one of these Pods: a holder is the Pod's name, `_`, and something.
fn led(pods: &str, holders: &str) -> bool {
    let of_pod = |holder: &str| pods.split_whitespace().any(|pod| holder.split('_').next() == Some(pod));
    let holders: Vec<&str> = holders.split_whitespace().collect();
    holders.len() == 2 && holders.iter().all(|holder| of_pod(holder))
}

#[cfg(test)]
mod tests {
    use super::led;

    #[test]
    fn a_lease_of_a_pod_that_is_gone_is_not_led() {
        let pods = "source-controller-a1 kustomize-controller-b2";
        assert!(led(pods, "source-controller-a1_77 kustomize-controller-b2_78"));
        assert!(!led(pods, "source-controller-a1_77 kustomize-controller-b1_78"));
        assert!(!led(pods, "source-controller-a1_77"));
        assert!(!led(pods, ""));
    }
}
