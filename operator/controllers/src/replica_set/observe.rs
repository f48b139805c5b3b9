//! One complete view of a replica set from the caches. Whatever is written later carries a UID or resourceVersion, so a
//! cache that lags can delay a step but not misdirect it.

use std::collections::BTreeMap;

use holdfast_api::HAReplicaSet;
use holdfast_core::failover::{MemberName, Record};
use holdfast_core::instance::{Command, SetSpec};
use holdfast_core::replica_set::{
    MemberSeen, Plan, PodView, RecordView, SILENT, SetView, Ties, VolumeView, plan::quantity_bytes,
};
use holdfast_wire::{
    Bootstrap, MEMBER_LABEL, MemberState, MemberStatus, Names, RECORD_ANNOTATION, SPEC_KEY, STATUS_ANNOTATION,
    STATUS_EVERY,
};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, PersistentVolumeClaim, Pod, Secret};
use kube::ResourceExt;
use kube::core::PartialObjectMeta;

use super::Context;
use super::commands::CONSUMED;
use super::manifests::{OWNER_UID, Owner, PodInput, TEMPLATE, template_hash};
use super::views::{News, SetKey, View};

/// Assembles the view.
pub fn observe(ctx: &Context, set: &HAReplicaSet, plan: Plan, at: Timestamp) -> SetView {
    let (namespace, name) = (set.namespace().unwrap_or_default(), set.name_any());
    let key = SetKey {
        namespace,
        set: name.clone(),
    };
    let names = Names(&name);
    let pods = by_member(ctx.stores.pods.of(&key));
    let volumes = by_member(ctx.stores.claims.of(&key));
    let record = ctx.stores.leases.of(&key).remove(&names.lease());
    let mut secrets = ctx.stores.secrets.of(&key);
    secrets.retain(|name, _| [names.ca(), names.app()].contains(name));
    let wish = ctx.stores.wishes.of(&key).remove(&names.spec()).unwrap_or_default();
    let resolved_image = resolved(set, &plan, &pods);
    let template = input(ctx, set, &plan, template_hash).unwrap_or_default();
    SetView {
        ties_refused: false,
        at,
        uid: set.uid().unwrap_or_default(),
        generation: set.metadata.generation.unwrap_or(0),
        deleting: set.metadata.deletion_timestamp.is_some(),
        command: wish.command,
        consumed_request: wish.consumed,
        name,
        plan,
        resolved_image,
        record,
        volumes,
        secrets,
        pods,
        template,
    }
}

/// Calls `f` with what Pods are made from.
pub fn input<T>(ctx: &Context, set: &HAReplicaSet, plan: &Plan, f: impl FnOnce(&PodInput<'_>) -> T) -> Option<T> {
    let owner = Owner::of(set);
    let bootstrap = Bootstrap {
        database: plan.initdb.database.clone(),
        owner: plan.initdb.owner.clone(),
        encoding: plan.initdb.encoding.clone(),
        locale: plan.initdb.locale.clone(),
        data_checksums: plan.initdb.data_checksums,
        wal_segment_mib: plan.initdb.wal_segment_size.mebibytes(),
    };
    let engine = set.spec.engine.postgresql.as_ref()?;
    Some(f(&PodInput {
        owner: &owner,
        spec: &set.spec,
        engine,
        bootstrap: &bootstrap,
        agent_image: &ctx.settings.agent_image,
    }))
}

/// The record in a Lease, if it can be read.
pub fn record_of(lease: &Lease) -> Option<Record> {
    lease
        .annotations()
        .get(RECORD_ANNOTATION)
        .and_then(|json| read_record(json))
}

fn read_record(json: &str) -> Option<Record> {
    serde_json::from_str(json)
        .inspect_err(|error| tracing::warn!(%error, "authority record cannot be read"))
        .ok()
}

/// Pods and volumes are called as their members are.
fn by_member<V>(views: BTreeMap<String, V>) -> BTreeMap<MemberName, V> {
    views.into_iter().map(|(name, view)| (MemberName(name), view)).collect()
}

fn is_member<K: ResourceExt>(object: &K) -> bool {
    object.labels().get(MEMBER_LABEL) == object.meta().name.as_ref()
}

/// What the wish says of requests by people.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WishView {
    /// The one in force.
    command: Option<Command>,
    /// Id of the last one that was taken up.
    consumed: Option<String>,
}

/// What decisions read of a wish.
pub fn wish_view(wish: &ConfigMap) -> Option<WishView> {
    let json = wish.data.as_ref().and_then(|data| data.get(SPEC_KEY));
    Some(WishView {
        command: json.and_then(|json| serde_json::from_str::<SetSpec>(json).ok()?.command),
        consumed: wish.annotations().get(CONSUMED).cloned(),
    })
}

fn ties<K: ResourceExt>(object: &K) -> Ties {
    Ties {
        uid: object.uid().unwrap_or_default(),
        owner_uid: object.annotations().get(OWNER_UID).cloned().unwrap_or_default(),
        goes_with: object.owner_references().iter().map(|r| r.uid.clone()).collect(),
    }
}

/// What decisions read of a Secret; members' own go with the set in any case.
pub fn secret_view(secret: &PartialObjectMeta<Secret>) -> Option<Ties> {
    (!secret.labels().contains_key(MEMBER_LABEL)).then(|| ties(secret))
}

/// What decisions read of a Lease.
pub fn record_view(lease: &Lease) -> Option<RecordView> {
    Some(RecordView {
        ties: ties(lease),
        record: record_of(lease),
    })
}

/// What decisions read of a member's claim.
pub fn volume_view(claim: &PersistentVolumeClaim) -> Option<VolumeView> {
    if !is_member(claim) {
        return None;
    }
    let requested = claim
        .spec
        .as_ref()
        .and_then(|s| s.resources.as_ref())
        .and_then(|r| r.requests.as_ref())
        .and_then(|r| r.get("storage"))
        .and_then(|q| quantity_bytes(&q.0));
    Some(VolumeView {
        ties: ties(claim),
        deleting: claim.metadata.deletion_timestamp.is_some(),
        requested_bytes: requested.unwrap_or(0),
    })
}

/// What decisions read of a member's Pod.
pub fn pod_view(pod: &Pod) -> Option<PodView> {
    if !is_member(pod) {
        return None;
    }
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.clone().unwrap_or_default();
    let container: Option<ContainerStatus> = status
        .container_statuses
        .iter()
        .flatten()
        .find(|c| c.name == "postgresql")
        .cloned();
    let uid = pod.uid().unwrap_or_default();
    let phase = status.phase.as_deref().unwrap_or("");
    Some(PodView {
        deleting: pod.metadata.deletion_timestamp.is_some(),
        ended: matches!(phase, "Failed" | "Succeeded"),
        ready: conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"),
        waiting: waiting(pod),
        ip: status.pod_ip.clone(),
        node: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
        template: pod.annotations().get(TEMPLATE).cloned().unwrap_or_default(),
        image_id: container.map(|c| c.image_id).filter(|id| id.contains("@sha256:")),
        seen: pod
            .annotations()
            .get(STATUS_ANNOTATION)
            .and_then(|json| seen(json, &uid)),
        uid,
    })
}

impl View for VolumeView {}
impl View for Ties {}
impl View for RecordView {}
impl View for WishView {}
// One report that is late must not look like a member that is gone.
const _: () = assert!(SILENT.as_secs() >= 3 * STATUS_EVERY.as_secs().cast_signed());

impl View for PodView {
    fn follow(&mut self, before: Option<&PodView>) {
        let Some(seen) = &mut self.seen else { return };
        match before.map(|b| b.seen.as_ref()) {
            Some(Some(old)) if old.written == seen.written => seen.heard = old.heard,
            Some(_) => {}
            // Seen at once with the Pod, so perhaps long after it was written. Then its own time has to do.
            None => seen.heard = seen.heard.min(seen.written),
        }
    }

    fn news(&self, before: &PodView) -> News {
        let heard = |view: &PodView| view.seen.as_ref().map(|s| s.heard);
        if let (Some(now), Some(then)) = (heard(self), heard(before))
            && now.duration_since(then) > SILENT
        {
            // It was taken for silent.
            return News::Loud;
        }
        let timeless = |view: &PodView| {
            let mut view = view.clone();
            if let Some(seen) = &mut view.seen {
                (seen.written, seen.heard) = Default::default();
            }
            view
        };
        let (new, old) = (timeless(self), timeless(before));
        if new == old {
            return News::None;
        }
        let bare = |mut view: PodView| {
            if let Some(seen) = &mut view.seen {
                (seen.position, seen.replayed, seen.lag_bytes) = Default::default();
                if let Some(archiving) = &mut seen.archiving {
                    (archiving.last, archiving.waiting) = Default::default();
                }
                // A percent is news: how full a volume is has a condition of its own.
                seen.volume = seen
                    .volume
                    .map(|(free, all)| (free.saturating_mul(100) / all.max(1), all));
            }
            view
        };
        match bare(new) == bare(old) {
            true => News::Quiet,
            false => News::Loud,
        }
    }
}

/// What Kubernetes waits for: scheduling, or the first container that cannot start.
fn waiting(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False")
        .map(|c| {
            format!(
                "not scheduled: {}",
                c.message
                    .as_deref()
                    .or(c.reason.as_deref())
                    .unwrap_or("no reason given")
            )
        });
    let stuck = || {
        status
            .init_container_statuses
            .iter()
            .flatten()
            .chain(status.container_statuses.iter().flatten())
            .find_map(|c| {
                let waiting = c.state.as_ref()?.waiting.as_ref()?;
                let reason = waiting.reason.as_deref().unwrap_or("waiting");
                // The two that every healthy start passes through say nothing to a person.
                (!matches!(reason, "PodInitializing" | "ContainerCreating")).then(|| {
                    format!(
                        "container {}: {reason} {}",
                        c.name,
                        waiting.message.as_deref().unwrap_or("")
                    )
                    .trim_end()
                    .to_owned()
                })
            })
    };
    unscheduled.or_else(stuck)
}

fn seen(json: &str, pod_uid: &str) -> Option<MemberSeen> {
    let status: MemberStatus = serde_json::from_str(json)
        .inspect_err(|error| tracing::warn!(%error, "member status cannot be read"))
        .ok()
        .filter(|s: &MemberStatus| s.pod_uid == pod_uid)?;
    // Nothing can be said of the age of one without a time.
    let written = status.at.parse().ok()?;
    Some(MemberSeen {
        written,
        heard: Timestamp::now(),
        role: status.role,
        state: format!("{:?}", status.state),
        reason: status.reason,
        message: status.message,
        term: status.term,
        dir: status.dir,
        position: status.position,
        replayed: status.replayed,
        lag_bytes: status.lag_bytes,
        generation: status.spec_generation,
        fit: matches!(status.state, MemberState::Serving | MemberState::Streaming),
        pending_restart: status.pending_restart,
        archiving: status.archiving,
        volume: status.volume_free_bytes.zip(status.volume_bytes),
        rejected: status
            .rejected
            .iter()
            .map(|r| format!("{} = {:?}: {}", r.name, r.value, r.why))
            .collect(),
        version: status.engine_version,
    })
}

/// The image with its digest. The first member runs what the user wrote; what the kubelet pulled for it is what all others
/// run, so a tag that moves never gives members different software.
fn resolved(set: &HAReplicaSet, plan: &Plan, pods: &BTreeMap<MemberName, PodView>) -> Option<String> {
    if plan.image.contains("@sha256:") {
        return Some(plan.image.clone());
    }
    let recorded = set.status.as_ref().and_then(|s| s.image.clone());
    if let Some(image) = recorded.filter(|i| i.strip_prefix(&plan.image).is_some_and(|r| r.starts_with("@sha256:"))) {
        return Some(image);
    }
    let digest = pods.values().filter(|p| !p.deleting).find_map(|p| {
        let (_, digest) = p.image_id.as_deref()?.rsplit_once('@')?;
        Some(digest.to_owned())
    })?;
    Some(format!("{}@{digest}", plan.image))
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::failover::{Lsn, Position, Term};
    use holdfast_core::instance::Role;
    use serde_json::json;

    /// A Pod whose agent has written this at that time, as seen just now.
    fn pod(at: Timestamp, state: &str, lsn: u64) -> PodView {
        let status: MemberStatus = serde_json::from_value(json!({
            "wire": 1, "agent": "1", "podUid": "p", "at": at.to_string(), "specGeneration": 1, "role": Role::Replica,
            "state": state, "reason": "", "message": "", "term": 1, "dir": null,
            "position": Position { term: Term(1), lsn: Lsn(lsn) }, "replayed": Lsn(lsn),
        }))
        .unwrap();
        let status = serde_json::to_string(&status).unwrap();
        let pod = json!({"metadata": {
            "name": "db-1", "uid": "p", "labels": {MEMBER_LABEL: "db-1"}, "annotations": {STATUS_ANNOTATION: status}
        }});
        pod_view(&serde_json::from_value(pod).unwrap()).unwrap()
    }

    fn heard(view: &mut PodView) -> &mut Timestamp {
        &mut view.seen.as_mut().expect("a report").heard
    }

    #[test]
    fn a_report_is_as_old_as_its_first_sight_whatever_its_writers_clock_says() {
        let start = Timestamp::now();
        let (past, future) = (start - SILENT * 2, start + SILENT * 2);
        let mut first = pod(past, "Streaming", 1);
        first.follow(None);
        assert_eq!(*heard(&mut first), past, "an operator that starts");
        let mut ahead = pod(future, "Streaming", 1);
        ahead.follow(None);
        assert!(*heard(&mut ahead) < future);
        let mut again = pod(past, "Streaming", 1);
        again.follow(Some(&first));
        assert_eq!(*heard(&mut again), past, "the same, in another version of the Pod");
        let mut next = pod(past + SILENT / 3, "Streaming", 1);
        next.follow(Some(&first));
        assert!(*heard(&mut next) >= start, "a clock that is behind makes nobody silent");
    }

    #[test]
    fn a_report_that_only_comes_is_no_news_unless_it_ends_a_silence() {
        let start = Timestamp::now();
        let at = |seconds: i64, state: &str, lsn: u64| {
            let time = start + jiff::SignedDuration::from_secs(seconds);
            let mut view = pod(time, state, lsn);
            *heard(&mut view) = time;
            view
        };
        let before = at(0, "Streaming", 1);
        assert_eq!(before.news(&before), News::None);
        assert_eq!(at(30, "Streaming", 1).news(&before), News::None);
        assert_eq!(at(30, "Streaming", 2).news(&before), News::Quiet);
        assert_eq!(at(30, "Stopped", 2).news(&before), News::Loud);
        assert_eq!(at(91, "Streaming", 1).news(&before), News::Loud);
    }
}
