//! `holdfast check`: is an installation fit to work? What `helm test` runs, as the operator's own account.

use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::crds;
use crate::operator::LEASE;

/// What to ask.
#[derive(clap::Args)]
pub struct Options {
    /// Host and port of the operator's health endpoint; not asked where left out.
    #[arg(long)]
    health: Option<String>,
    /// Namespace of the operator.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    namespace: String,
    /// The namespace that it watches; all where left out.
    #[arg(long, env = "HOLDFAST_WATCH_NAMESPACE")]
    watch_namespace: Option<String>,
    /// How long an answer may take to become right, for example 60s: an operator that was just installed needs a moment.
    #[arg(long, default_value = "60s")]
    patience: jiff::SignedDuration,
}

/// The rights that the chart gives the operator: the same file, so that what is granted and what is checked cannot differ.
const RULES: &str = include_str!("../../../charts/holdfast/files/rules.yaml");

/// Asks until everything is right or patience ends.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let client = Client::try_default()
        .await
        .context("no Kubernetes API: neither in a Pod nor with a kubeconfig")?;
    let patience = Duration::try_from(options.patience).unwrap_or_default();
    let end = tokio::time::Instant::now() + patience;
    loop {
        let answers = [
            ("the kinds are served", kinds(&client).await),
            (
                "the operator has the rights that it needs",
                rights(&client, &options).await,
            ),
            (
                "a replica of the operator leads",
                leads(&client, &options.namespace).await,
            ),
            ("the operator is ready", health(options.health.as_deref()).await),
            ("the operator tells metrics", metrics(options.health.as_deref()).await),
        ];
        let asked = answers.len();
        let wrong = answers.iter().filter(|(_, a)| a.is_err()).count();
        if wrong > 0 && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_secs(2)).await;
            continue;
        }
        for (what, answer) in answers {
            match answer {
                Ok(()) => println!("ok    {what}"),
                Err(why) => println!("wrong {what}: {why:#}"),
            }
        }
        anyhow::ensure!(wrong == 0, "{wrong} of {asked} are wrong");
        return Ok(());
    }
}

async fn kinds(client: &Client) -> anyhow::Result<()> {
    for crd in crds::kinds() {
        let (group, names) = (&crd.spec.group, &crd.spec.names);
        for version in crd.spec.versions.iter().filter(|v| v.served) {
            let found = client
                .list_api_group_resources(&format!("{group}/{}", version.name))
                .await;
            let served = found.is_ok_and(|l| l.resources.iter().any(|r| r.name == names.plural));
            anyhow::ensure!(
                served,
                "{} is not; helm upgrade --install holdfast-crds charts/holdfast-crds",
                names.kind
            );
        }
    }
    Ok(())
}

/// One question to the API server.
#[derive(Debug, PartialEq, Eq)]
struct Right {
    group: String,
    resource: String,
    subresource: Option<String>,
    verb: String,
}

fn wanted() -> anyhow::Result<Vec<Right>> {
    let rules: Vec<PolicyRule> = serde_saphyr::from_str(RULES).context("files/rules.yaml")?;
    let mut all = Vec::new();
    for rule in &rules {
        for group in rule.api_groups.iter().flatten() {
            for path in rule.resources.iter().flatten() {
                let (resource, subresource) = match path.split_once('/') {
                    Some((resource, sub)) => (resource, Some(sub.to_owned())),
                    None => (path.as_str(), None),
                };
                all.extend(rule.verbs.iter().map(|verb| Right {
                    group: group.clone(),
                    resource: resource.to_owned(),
                    subresource: subresource.clone(),
                    verb: verb.clone(),
                }));
            }
        }
    }
    Ok(all)
}

async fn rights(client: &Client, options: &Options) -> anyhow::Result<()> {
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut lacking = Vec::new();
    for right in wanted()? {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    group: Some(right.group.clone()),
                    resource: Some(right.resource.clone()),
                    subresource: right.subresource.clone(),
                    verb: Some(right.verb.clone()),
                    namespace: options.watch_namespace.clone(),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let answer = api
            .create(&PostParams::default(), &review)
            .await
            .context("asking for rights")?;
        if !answer.status.is_some_and(|s| s.allowed) {
            lacking.push(format!("{} {}.{}", right.verb, right.resource, right.group));
        }
    }
    anyhow::ensure!(
        lacking.is_empty(),
        "it may not {}; compare the chart's files/rules.yaml",
        lacking.join(", ")
    );
    Ok(())
}

async fn leads(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let lease = api
        .get_opt(LEASE)
        .await
        .context("reading the operator's Lease")?
        .and_then(|l| l.spec);
    let lease = lease.with_context(|| format!("no Lease {LEASE} in {namespace}: no operator has started here"))?;
    let holder = lease
        .holder_identity
        .filter(|h| !h.is_empty())
        .context("nobody holds the Lease")?;
    let renewed = lease.renew_time.context("the Lease was never renewed")?.0;
    let age = jiff::Timestamp::now().duration_since(renewed).as_secs();
    let bound = i64::from(lease.lease_duration_seconds.unwrap_or(15));
    anyhow::ensure!(
        age <= bound,
        "{holder} has not renewed the Lease for {age} s; see its log"
    );
    Ok(())
}

async fn health(address: Option<&str>) -> anyhow::Result<()> {
    let Some(address) = address else { return Ok(()) };
    ask(address, "/readyz").await.map(drop)
}

async fn metrics(address: Option<&str>) -> anyhow::Result<()> {
    let Some(address) = address else { return Ok(()) };
    let text = ask(address, "/metrics").await?;
    anyhow::ensure!(
        text.contains("\nholdfast_leads "),
        "{address}/metrics has no holdfast_leads"
    );
    Ok(())
}

/// The answer to a GET, its head included, up to a bound.
async fn ask(address: &str, path: &str) -> anyhow::Result<String> {
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream
            .write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())
            .await?;
        let mut answer = String::new();
        stream.take(65_536).read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), ask)
        .await
        .with_context(|| format!("{address} does not answer"))?
        .with_context(|| address.to_owned())?;
    let first = answer.lines().next().unwrap_or_default();
    anyhow::ensure!(first.contains(" 200 "), "{address}{path} says {first:?}");
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Nobody can grant what they lack: each right of an agent must be one of the operator's.
    #[test]
    fn agents_get_nothing_that_the_operator_lacks() {
        let set: holdfast_api::HAReplicaSet = serde_json::from_value(serde_json::json!({
            "apiVersion": "holdfast.dev/v1alpha1", "kind": "HAReplicaSet",
            "metadata": {"name": "pg", "namespace": "a", "uid": "u"},
            "spec": {"engine": {"postgresql": {"image": "postgres:17"}}, "storage": {"size": "1Gi"}}
        }))
        .unwrap();
        let owner = holdfast_controllers::replica_set::manifests::Owner::of(&set);
        let role = holdfast_controllers::replica_set::manifests::role(&owner, &["pg-1".into()]);
        let ours: BTreeSet<String> = wanted()
            .unwrap()
            .into_iter()
            .map(|r| format!("{} {}/{}", r.verb, r.group, r.resource))
            .collect();
        for rule in role.rules.unwrap() {
            for group in rule.api_groups.unwrap() {
                for resource in rule.resources.iter().flatten() {
                    for verb in &rule.verbs {
                        let right = format!("{verb} {group}/{resource}");
                        assert!(ours.contains(&right), "agents may {right}, the operator may not");
                    }
                }
            }
        }
    }

    #[test]
    fn no_rule_is_a_wildcard_or_a_way_to_more() {
        for right in wanted().unwrap() {
            assert!(!right.group.contains('*') && !right.resource.contains('*'), "{right:?}");
            assert!(!["*", "escalate", "bind"].contains(&right.verb.as_str()), "{right:?}");
        }
    }
}
