//! Status as a pure function of the view and the decision.

use holdfast_api::replica_set::{HAReplicaSetStatus, MemberView, Phase as Shown};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::archive::Archiving;
use crate::failover::{MemberName, Phase, Record};
use crate::instance::Role;
use crate::plan::{Decision, Reason, Severity};
use crate::status::conditions::{Truth, Wanted, clip, merge};

use super::decide::{Step, serves};
use super::view::{PodView, SetView, not_heard_since};
use super::why::Why;

/// Status of a replica set whose spec could be read.
pub fn report(
    view: &SetView,
    decision: &Decision<Step, Why>,
    old: &[Condition],
    ca_expires: Option<String>,
    now: jiff::Timestamp,
) -> HAReplicaSetStatus {
    let record = view.authority();
    let members = members(view);
    let fit = view
        .wanted()
        .iter()
        .filter(|m| members.iter().any(|v| v.name == m.0 && v.ready))
        .count();
    let serving = record.is_some_and(|r| r.phase == Phase::Leading && view.pods.get(&r.leader).is_some_and(serves));
    let phase = phase(view, decision, record, serving, fit);
    let rejected: Vec<String> = rejected(view);
    let low = low_volumes(view);
    let behind = archives(view);
    let mut message = decision.why().to_string();
    for problem in low.iter().chain(behind.iter().flatten()) {
        message = format!("{message}; {problem}");
    }
    HAReplicaSetStatus {
        observed_generation: Some(view.generation),
        phase: Some(phase),
        message: Some(clip(message, 512)),
        primary: record.filter(|r| r.phase == Phase::Leading).map(|r| r.leader.0.clone()),
        term: record.map(|r| i64::from(r.term.0)),
        ready: Some(format!("{fit}/{}", view.plan.members)),
        rule: record.filter(|r| r.rule.leader.is_some()).map(|r| rule_text(view, r)),
        image: view.resolved_image.clone(),
        system_identifier: record.and_then(|r| r.system_identifier).map(|id| id.to_string()),
        conditions: conditions(
            view,
            decision,
            old,
            serving,
            phase,
            (&rejected, &low, behind.as_deref()),
            now,
        ),
        members,
        rejected_parameters: rejected,
        ca_expires,
    }
}

/// Status of a replica set whose spec cannot be carried out: what was known stays, and the reason is said.
pub fn refused(
    old: &HAReplicaSetStatus,
    generation: i64,
    problems: &[super::plan::Problem],
    now: jiff::Timestamp,
) -> HAReplicaSetStatus {
    let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let why = Why::SpecRefused(text);
    let wanted = [
        Wanted::because("Ready", Truth::False, &why),
        Wanted::because("Reconciling", Truth::False, &why),
        Wanted::because("Stalled", Truth::True, &why),
    ];
    HAReplicaSetStatus {
        observed_generation: Some(generation),
        message: Some(clip(why.to_string(), 512)),
        conditions: merge(&old.conditions, &wanted, Some(generation), now),
        ..old.clone()
    }
}

fn phase(view: &SetView, decision: &Decision<Step, Why>, record: Option<&Record>, serving: bool, fit: usize) -> Shown {
    if view.deleting {
        return Shown::Deleting;
    }
    let Some(record) = record else {
        return if view.record.is_some() {
            Shown::Unavailable
        } else {
            Shown::Creating
        };
    };
    if record.rule.leader.is_none() && record.phase != Phase::Leading {
        return Shown::Creating;
    }
    if !serving {
        let heard: Vec<&PodView> = view.pods.values().filter(|p| view.silent_since(p).is_none()).collect();
        let needs_help = heard
            .iter()
            .filter_map(|p| p.seen.as_ref())
            .any(|s| s.reason == "ProofImpossible" || s.reason == "FirstVolumeLost");
        let seen = !heard.is_empty() || view.pods.values().any(|p| p.ready) || view.pods.is_empty();
        return match (needs_help, seen) {
            (true, _) => Shown::Unavailable,
            (false, true) => Shown::Electing,
            (false, false) => Shown::Unknown,
        };
    }
    match decision.why() {
        Why::Rolling { .. } | Why::RollingWaits { .. } | Why::RemovingMember { .. } => Shown::Updating,
        _ if fit == usize::from(view.plan.members) => Shown::Ready,
        _ => Shown::Degraded,
    }
}

fn members(view: &SetView) -> Vec<MemberView> {
    let mut names: Vec<MemberName> = view.wanted();
    names.extend(view.surplus());
    names.iter().map(|m| member_view(view, m)).collect()
}

fn member_view(view: &SetView, name: &MemberName) -> MemberView {
    let Some(pod) = view.pods.get(name) else {
        return MemberView {
            name: name.0.clone(),
            role: "Unknown".into(),
            state: "Absent".into(),
            message: Some("no pod".into()),
            ..MemberView::default()
        };
    };
    let silent = view.silent_since(pod).map(not_heard_since);
    // A silent member is not believed, unless the kubelet hears it: then it does what it did. A member that is only unfit (it
    // clones, say) is not ready either, but says so.
    let Some(seen) = pod.seen.as_ref().filter(|_| pod.ready || silent.is_none()) else {
        let said = silent.unwrap_or_else(|| "has not reported yet".into());
        return MemberView {
            name: name.0.clone(),
            role: "Unknown".into(),
            state: "Unknown".into(),
            message: Some(
                pod.waiting
                    .clone()
                    .map_or(said.clone(), |w| clip(format!("{w}; {said}"), 256)),
            ),
            node: pod.node.clone(),
            image: pod.image_id.clone(),
            ..MemberView::default()
        };
    };
    // Nor is what an unready member says of its role in a term that is over.
    let current = pod.ready || view.authority().is_none_or(|r| r.term <= seen.term);
    let position = silent.is_none().then_some(seen);
    MemberView {
        name: name.0.clone(),
        role: if current {
            role(seen.role).into()
        } else {
            "Unknown".into()
        },
        state: seen.state.clone(),
        message: Some(clip(silent.unwrap_or_else(|| seen.message.clone()), 256)),
        node: pod.node.clone(),
        lsn: position.map(|s| s.position.lsn.to_string()),
        lag_bytes: position.and_then(|s| s.lag_bytes).and_then(|b| i64::try_from(b).ok()),
        image: pod.image_id.clone(),
        version: seen.version.clone(),
        ready: pod.ready && seen.fit,
        pending_restart: seen.pending_restart.clone(),
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "Primary",
        Role::Candidate => "Candidate",
        Role::Replica => "Replica",
        Role::Sealed => "Sealed",
        Role::Preparing => "Preparing",
        Role::Stopped => "Stopped",
    }
}

fn rule_text(view: &SetView, record: &Record) -> String {
    let named: Vec<String> = record
        .rule
        .standbys
        .iter()
        .map(|dir| {
            view.pods
                .iter()
                .find(|(_, p)| p.seen.as_ref().and_then(|s| s.dir.as_ref()) == Some(dir))
                .map_or_else(|| dir.0.clone(), |(m, _)| m.0.clone())
        })
        .collect();
    if record.rule.quorum == 0 {
        return "the primary alone".into();
    }
    format!("the primary and any {} of {}", record.rule.quorum, named.join(", "))
}

fn rejected(view: &SetView) -> Vec<String> {
    let mut all: Vec<String> = view
        .pods
        .values()
        .filter_map(|p| p.seen.as_ref())
        .flat_map(|s| s.rejected.iter().cloned())
        .collect();
    all.sort();
    all.dedup();
    all.truncate(32);
    all
}

fn conditions(
    view: &SetView,
    decision: &Decision<Step, Why>,
    old: &[Condition],
    serving: bool,
    phase: Shown,
    (rejected, low, behind): (&[String], &[String], Option<&[String]>),
    now: jiff::Timestamp,
) -> Vec<Condition> {
    let spoken = view.pods.values().any(|p| p.seen.is_some());
    let why = decision.why();
    let ready = phase == Shown::Ready;
    let stalled = why.severity() == Severity::Warning || phase == Shown::Unavailable;
    let mut wanted = vec![
        Wanted::because("Ready", ready, why),
        Wanted::because("Reconciling", !ready && !stalled, why),
        Wanted::because("Stalled", stalled, why),
    ];
    let (truth, reason, message) = match serving {
        true => (Truth::True, "PrimaryServes", "the primary accepts writes"),
        // They may serve all the same: only nobody hears of it.
        false if phase == Shown::Unknown => (Truth::Unknown, "NotSeen", "no member is heard of"),
        false if view.authority().is_none() => (Truth::Unknown, "NoPrimary", "no primary accepts writes"),
        false => (Truth::False, "NoPrimary", "no primary accepts writes"),
    };
    wanted.push(Wanted {
        kind: "Serving",
        truth,
        reason,
        message: message.into(),
    });
    wanted.push(list(
        "ParametersApplied",
        ["Applied", "Refused"],
        "all parameters are in force",
        rejected,
        spoken,
    ));
    wanted.push(list(
        "StorageAvailable",
        ["Available", "VolumeFull"],
        "every volume has room",
        low,
        spoken,
    ));
    if let Some(behind) = behind {
        wanted.push(list(
            "Archiving",
            ["Archiving", "ArchiveFails"],
            "every member's log reaches the archive",
            behind,
            view.pods.values().any(|p| archiving(p).is_some()),
        ));
    }
    merge(old, &wanted, Some(view.generation), now)
}

/// A condition that is true while nothing is listed against it, and unknown until a member has spoken.
fn list(kind: &'static str, [good, bad]: [&'static str; 2], fine: &str, problems: &[String], spoken: bool) -> Wanted {
    let (truth, reason, message) = match (problems.is_empty(), spoken) {
        (false, _) => (Truth::False, bad, problems.join("; ")),
        (true, true) => (Truth::True, good, fine.to_owned()),
        (true, false) => (Truth::Unknown, "NotSeen", "no member has reported yet".to_owned()),
    };
    Wanted {
        kind,
        truth,
        reason,
        message: clip(message, 1024),
    }
}

/// Members whose log does not reach the archive, in words; `None` where there is no archive.
fn archives(view: &SetView) -> Option<Vec<String>> {
    let claim = view.plan.archive.as_ref()?;
    let failing = view
        .pods
        .iter()
        .filter_map(|(member, pod)| archiving(pod)?.problem(member, claim));
    Some(failing.collect())
}

fn archiving(pod: &PodView) -> Option<&Archiving> {
    pod.seen.as_ref()?.archiving.as_ref()
}

/// Two segments of PostgreSQL's log: with less than that a member may not be able to go on writing it.
const LEAST_FREE: u64 = 32 << 20;

/// Volumes with less than a twentieth or [`LEAST_FREE`] left, in words.
fn low_volumes(view: &SetView) -> Vec<String> {
    let low = view.pods.iter().filter_map(|(member, pod)| {
        let (free, all) = pod.seen.as_ref()?.volume?;
        (free < LEAST_FREE.max(all / 20)).then(|| {
            format!(
                "the volume of {member} is full: {} MiB of {} MiB are left; grow spec.storage.size, or remove data",
                free >> 20,
                all >> 20
            )
        })
    });
    low.collect()
}
