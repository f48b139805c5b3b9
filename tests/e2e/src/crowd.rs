//! A crowd of replica sets whose members are stood in for: their Pods have no node and no engine, and one process writes to the API
//! server what their agents would. For what the operator costs with very many sets; it says nothing of databases.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use holdfast_api::HAReplicaSet;
use holdfast_core::failover::{DirId, Lsn, MemberName, Phase, Position, Record, Rule, Term};
use holdfast_core::instance::Role;
use holdfast_wire::{
    MEMBER_LABEL, MemberState, MemberStatus, Names, RECORD_ANNOTATION, SET_LABEL, STATUS_ANNOTATION, WIRE_VERSION,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Requests at once: more would only queue in the API server.
const AT_ONCE: usize = 16;
/// How often a leader renews its record (`instance/timings.rs`).
const RENEW: Duration = Duration::from_secs(5);
/// How often a member to which nothing happens writes its status: its log moves by the leader's health writes (`agent/status.rs`).
const STATUS: Duration = holdfast_wire::STATUS_EVERY;

/// A crowd: so many sets of three.
#[derive(Clone)]
pub struct Crowd {
    client: Client,
    sets: usize,
    per_namespace: usize,
    /// UIDs of Pods, by namespace and name: an agent knows its own.
    pods: Arc<Mutex<HashMap<(String, String), String>>>,
}

impl Crowd {
    /// Names it; nothing is made yet.
    pub fn new(client: Client, sets: usize) -> Crowd {
        Crowd {
            client,
            sets,
            per_namespace: 100,
            pods: Arc::default(),
        }
    }

    /// Its namespaces.
    pub fn namespaces(&self) -> Vec<String> {
        (0..self.sets.div_ceil(self.per_namespace))
            .map(|n| format!("crowd-{n}"))
            .collect()
    }

    /// Namespace and name of each set.
    fn names(&self) -> impl Iterator<Item = (String, String)> + use<> {
        let per = self.per_namespace;
        (0..self.sets).map(move |n| (format!("crowd-{}", n / per), format!("db-{}", n % per)))
    }

    /// Makes the sets.
    pub async fn make(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for name in self.namespaces() {
            let object = serde_json::from_value(json!({"metadata": {"name": name}}))?;
            namespaces.create(&PostParams::default(), &object).await?;
        }
        stream::iter(self.names())
            .map(|(namespace, name)| async move {
                let api: Api<HAReplicaSet> = Api::namespaced(self.client.clone(), &namespace);
                let object = serde_json::from_value(json!({
                    "apiVersion": "holdfast.dev/v1alpha1", "kind": "HAReplicaSet", "metadata": {"name": name},
                    "spec": {
                        "members": 3,
                        // By digest, which no kubelet has to find out.
                        "engine": {"postgresql": {"image": format!("registry.invalid/postgres@sha256:{}", "0".repeat(64))}},
                        "storage": {"size": "1Gi"},
                        "placement": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "holdfast.dev/nowhere", "operator": "Exists"}]}
                        ]}}}},
                    },
                }))?;
                api.create(&PostParams::default(), &object).await?;
                anyhow::Ok(())
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await
    }

    /// Stands in for the agents of Pods as they come; counts into `known` those that have spoken. Runs until dropped.
    pub async fn stand_in(&self, known: Arc<AtomicUsize>) -> Result<()> {
        let met = &Mutex::new(HashSet::new());
        let pods: Api<Pod> = Api::all(self.client.clone());
        watcher(pods, watcher::Config::default().labels(SET_LABEL))
            .default_backoff()
            .applied_objects()
            .map_err(anyhow::Error::from)
            .try_for_each_concurrent(AT_ONCE, |pod| {
                let known = Arc::clone(&known);
                async move {
                    let first = met.lock().is_ok_and(|mut met| met.insert(pod.uid()));
                    if first && pod.metadata.deletion_timestamp.is_none() {
                        self.speak(&pod).await?;
                        known.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                }
            })
            .await
    }

    /// What a member's first minute leaves behind: a Pod that runs, a status, and of the first one a record.
    async fn speak(&self, pod: &Pod) -> Result<()> {
        let namespace = pod.namespace().context("a Pod's namespace")?;
        let set = pod.labels().get(SET_LABEL).context("a Pod's set")?.clone();
        let member = pod.labels().get(MEMBER_LABEL).context("a Pod's member")?.clone();
        let first = member == Names(&set).member(1);
        if first {
            let dir = |n| DirId(Names(&set).member(n).replace('-', "_"));
            let record = Record {
                phase: Phase::Leading,
                rule: Rule {
                    leader: Some(dir(1)),
                    standbys: BTreeSet::from([dir(2), dir(3)]),
                    quorum: 1,
                },
                system_identifier: Some(7),
                ..Record::bootstrap(MemberName(member.clone()))
            };
            let patch = json!({"metadata": {"annotations": {RECORD_ANNOTATION: serde_json::to_string(&record)?}}});
            self.renew(&namespace, &set, patch).await?;
        }
        let running = json!({"status": {
            "phase": "Running", "podIP": "192.0.2.1",
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
        }});
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        api.patch_status(&member, &PatchParams::default(), &Patch::Strategic(running))
            .await?;
        let uid = pod.uid().unwrap_or_default();
        if let Ok(mut pods) = self.pods.lock() {
            pods.insert((namespace, member.clone()), uid.clone());
        }
        self.report(&api, &member, &uid, first).await
    }

    async fn report(&self, api: &Api<Pod>, member: &str, uid: &str, leads: bool) -> Result<()> {
        let (role, state) = if leads {
            (Role::Leader, MemberState::Serving)
        } else {
            (Role::Replica, MemberState::Streaming)
        };
        let lsn = Lsn(50_331_648 + jiff::Timestamp::now().as_millisecond().unsigned_abs() % 1_000_000_000);
        let status = MemberStatus {
            wire: WIRE_VERSION,
            agent: env!("CARGO_PKG_VERSION").into(),
            pod_uid: uid.into(),
            at: jiff::Timestamp::now().to_string(),
            spec_generation: 1,
            role,
            state,
            reason: "Streaming".into(),
            message: "stood in for".into(),
            term: Term(1),
            dir: Some(DirId(member.replace('-', "_"))),
            position: Position { term: Term(1), lsn },
            replayed: lsn,
            lag_bytes: (!leads).then_some(0),
            leader: None,
            engine_version: Some("17.6".into()),
            system_identifier: Some(7),
            pending_restart: Vec::new(),
            rejected: Vec::new(),
            archiving: None,
            certificate_expires: None,
            volume_free_bytes: Some(900_000_000),
            volume_bytes: Some(1_000_000_000),
        };
        let patch = json!({"metadata": {"annotations": {STATUS_ANNOTATION: serde_json::to_string(&status)?}}});
        api.patch(member, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    async fn renew(&self, namespace: &str, set: &str, mut patch: Value) -> Result<()> {
        if let Some(patch) = patch.as_object_mut() {
            patch.insert(
                "spec".into(),
                json!({"renewTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()}),
            );
        }
        let api: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        api.patch(&Names(set).lease(), &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    /// Changes the first set's wish and waits until an operator has written it down for the members.
    pub async fn change(&self) -> Result<()> {
        let (namespace, set) = self.names().next().context("a set")?;
        let begun = Instant::now();
        let wanted = "7MB";
        let sets: Api<HAReplicaSet> = Api::namespaced(self.client.clone(), &namespace);
        let patch = json!({"spec": {"engine": {"postgresql": {"parameters": {"work_mem": wanted}}}}});
        sets.patch(&set, &PatchParams::default(), &Patch::Merge(patch)).await?;
        let wishes: Api<ConfigMap> = Api::namespaced(self.client.clone(), &namespace);
        loop {
            let wish = wishes.get(&Names(&set).spec()).await?;
            if wish.data.iter().flatten().any(|(_, text)| text.contains(wanted)) {
                return Ok(());
            }
            anyhow::ensure!(
                begun.elapsed() < Duration::from_secs(300),
                "no operator has taken a change up for 5 minutes"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// How many sets are Ready.
    pub async fn ready(&self) -> Result<usize> {
        let api: Api<HAReplicaSet> = Api::all(self.client.clone());
        let sets = api.list(&Default::default()).await?;
        let ready = |set: &HAReplicaSet| {
            let conditions = set.status.iter().flat_map(|status| &status.conditions);
            conditions.clone().any(|c| c.type_ == "Ready" && c.status == "True")
        };
        Ok(sets.iter().filter(|set| ready(set)).count())
    }

    /// Does for so long what the agents of idle sets do: each leader renews its record, each member writes its status. Gives how many
    /// requests that were.
    pub async fn idle(&self, length: Duration) -> Result<usize> {
        let sets: Vec<(String, String)> = self.names().collect();
        let members: Vec<(&(String, String), u16)> =
            sets.iter().flat_map(|set| (1..=3).map(move |n| (set, n))).collect();
        let renewing = paced(&sets, RENEW, length, async |(namespace, set): &(String, String)| {
            self.renew(namespace, set, json!({})).await
        });
        let reporting = paced(
            &members,
            STATUS,
            length,
            async |((namespace, set), member): &(&(String, String), u16)| {
                let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
                let name = Names(set).member(*member);
                let known = self.pods.lock().ok();
                let uid = known.and_then(|pods| pods.get(&(namespace.clone(), name.clone())).cloned());
                let uid = uid.context("a Pod that has spoken")?;
                self.report(&api, &name, &uid, *member == 1).await
            },
        );
        let (renewed, reported) = tokio::try_join!(renewing, reporting)?;
        Ok(renewed + reported)
    }
}

/// Does `work` for each of `all` once in `every`, evenly spread, over and over for `length`, or as often as the API server lets it in
/// that time. Gives how often.
async fn paced<T>(all: &[T], every: Duration, length: Duration, work: impl AsyncFn(&T) -> Result<()>) -> Result<usize> {
    let (begun, pause) = (Instant::now(), every.div_f64(all.len().max(1) as f64));
    let count = length.div_duration_f64(pause) as u32;
    let (all, work) = (&all, &work);
    stream::iter((0..count).zip(all.iter().cycle()))
        .map(|(n, one)| async move {
            tokio::time::sleep_until(begun + pause * n).await;
            if begun.elapsed() >= length {
                return Ok(0);
            }
            work(one).await.map(|()| 1)
        })
        .buffered(AT_ONCE)
        .try_fold(0, |done, one| async move { Ok(done + one) })
        .await
}
