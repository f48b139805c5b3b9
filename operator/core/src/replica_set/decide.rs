//! The operator's decision about one replica set.

use crate::failover::{MemberName, Phase, Record};
use crate::instance::{Command, Role};
use crate::plan::Decision;

use super::retention::{Retained, retention};
use super::view::{PodView, SetView, member, not_heard_since};
use super::why::Why;

/// One effect of the operator. Idempotent; deletions carry the UID that was decided on, and the API server refuses them
/// for any other.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Create the Lease with this record, only if there is none.
    CreateRecord { record: Record },
    /// Write this object's UID on the volumes and the record of a former object by this name.
    Adopt { volumes: Vec<MemberName> },
    /// Add an owner reference to what is, or unlocks, data, or remove it: whether it goes with this object.
    Tie {
        object: Retained,
        /// The UID of what it was decided about.
        uid: String,
        goes: bool,
    },
    /// Create the member's claim, if there is none.
    CreateVolume { member: MemberName },
    /// Ask for a larger volume.
    GrowVolume { member: MemberName, bytes: u64 },
    /// Create the member's Pod with this image.
    CreatePod { member: MemberName, image: String },
    /// Delete the Pod with this UID.
    DeletePod { member: MemberName, uid: String },
    /// Put a request into the wish.
    Ask(Command),
}

/// Decides the next steps. The wish (`ConfigMap`), Services, certificates and the like are not decided: they are a pure
/// function of the spec, kept by server-side apply before this.
///
/// Guards, in order:
/// 1. data goes with the object or stays, as the policy says now: the next that comes may be the deletion;
/// 2. deletion in progress → nothing is made;
/// 3. data of a former object → only with `adopt`;
/// 4. no record → make it, once, before any member exists;
/// 5. record unreadable → stay: nobody guesses authority;
/// 6. pods that ended for good, or never ran and are of an old template, are replaced;
/// 7. the first member (the leader) before the others, because they clone it and take its image's digest;
/// 8. missing members;
/// 9. volumes grow;
/// 10. surplus members go, one at a time, only when no rule counts them and they do not lead;
/// 11. changed templates and pending restarts roll, one member at a time, the primary last, only while all are fit.
pub fn decide(view: &SetView) -> Decision<Step, Why> {
    if let Some(decision) = retention(view) {
        return decision;
    }
    if view.deleting {
        return Decision::Stay(Why::Deleting);
    }
    if let Some(decision) = ownership(view) {
        return decision;
    }
    let Some(record) = view.authority() else {
        return Decision::Stay(Why::RecordUnreadable);
    };
    replace_ended(view)
        .or_else(|| make_members(view, record))
        .or_else(|| grow(view))
        .or_else(|| shrink(view, record))
        .or_else(|| roll(view, record))
        .unwrap_or_else(|| settle(view))
}

fn ownership(view: &SetView) -> Option<Decision<Step, Why>> {
    let foreign: Vec<MemberName> = view
        .volumes
        .iter()
        .filter(|(_, v)| v.ties.owner_uid != view.uid)
        .map(|(m, _)| m.clone())
        .collect();
    let foreign_record = view.record.as_ref().is_some_and(|r| r.ties.owner_uid != view.uid);
    if foreign_record || !foreign.is_empty() {
        if !view.plan.adopt {
            return Some(Decision::Stay(Why::VolumesExist { volumes: foreign }));
        }
        let why = Why::VolumesExist {
            volumes: foreign.clone(),
        };
        return Some(Decision::Do {
            steps: vec![Step::Adopt { volumes: foreign }],
            why,
        });
    }
    if view.record.is_none() {
        // The record is made before any volume. Volumes without one mean that it was lost: a new one would let a member
        // initialise or lead by guess.
        if !view.volumes.is_empty() {
            return Some(Decision::Stay(Why::RecordUnreadable));
        }
        let first = member(&view.name, 1);
        let why = Why::MakingRecord { first: first.clone() };
        return Some(Decision::Do {
            steps: vec![Step::CreateRecord {
                record: Record::bootstrap(first),
            }],
            why,
        });
    }
    None
}

/// Pods that ended for good, and Pods of an old template whose engine never ran (a wrong image, a volume that does not fit):
/// there is nothing in them to be careful about, and waiting for them to become fit would be waiting for ever.
fn replace_ended(view: &SetView) -> Option<Decision<Step, Why>> {
    let hopeless = |p: &PodView| p.template != view.template && p.waiting.is_some() && p.image_id.is_none();
    let (member, pod) = view
        .pods
        .iter()
        .find(|(_, p)| !p.deleting && (p.ended || hopeless(p)))?;
    Some(Decision::Do {
        steps: vec![Step::DeletePod {
            member: member.clone(),
            uid: pod.uid.clone(),
        }],
        why: Why::ReplacingPod { member: member.clone() },
    })
}

fn make_members(view: &SetView, record: &Record) -> Option<Decision<Step, Why>> {
    let image = view.resolved_image.clone().unwrap_or_else(|| view.plan.image.clone());
    let make = |members: Vec<MemberName>| {
        let why = Why::MakingMember {
            member: members.first().cloned().unwrap_or_else(|| record.leader.clone()),
        };
        let steps = members
            .into_iter()
            .flat_map(|m| {
                let volume = (!view.volumes.contains_key(&m)).then(|| Step::CreateVolume { member: m.clone() });
                volume.into_iter().chain([Step::CreatePod {
                    member: m,
                    image: image.clone(),
                }])
            })
            .collect();
        Some(Decision::Do { steps, why })
    };
    // While the first data directory is in the making there is nothing to clone, and the image's digest is not known.
    let bootstrapping = record.rule.leader.is_none() && record.phase == Phase::Promoting;
    if bootstrapping || view.resolved_image.is_none() {
        let first = if bootstrapping {
            record.leader.clone()
        } else {
            existing_or_leader(view, record)
        };
        match view.pods.get(&first) {
            None => return make(vec![first]),
            Some(pod) if view.resolved_image.is_none() => {
                return Some(Decision::Stay(match &pod.waiting {
                    Some(what) => Why::WaitsForFirst {
                        member: first,
                        what: what.clone(),
                    },
                    None => Why::WaitsForImage { member: first },
                }));
            }
            Some(_) => {}
        }
    }
    let missing: Vec<MemberName> = view
        .wanted()
        .into_iter()
        .chain([record.leader.clone()])
        .filter(|m| !view.pods.contains_key(m))
        .collect();
    if missing.is_empty() { None } else { make(dedup(missing)) }
}

fn existing_or_leader(view: &SetView, record: &Record) -> MemberName {
    view.pods
        .keys()
        .next()
        .cloned()
        .unwrap_or_else(|| record.leader.clone())
}

fn dedup(mut members: Vec<MemberName>) -> Vec<MemberName> {
    members.sort();
    members.dedup();
    members
}

fn grow(view: &SetView) -> Option<Decision<Step, Why>> {
    let (member, _) = view
        .volumes
        .iter()
        .find(|(_, v)| !v.deleting && v.requested_bytes > 0 && v.requested_bytes < view.plan.storage_bytes)?;
    Some(Decision::Do {
        steps: vec![Step::GrowVolume {
            member: member.clone(),
            bytes: view.plan.storage_bytes,
        }],
        why: Why::Rolling {
            member: member.clone(),
            because: "its volume grows".into(),
        },
    })
}

/// Scale-down. The wish marks the member as leaving first; the leader narrows the rule and drops the slot; only when the
/// record no longer counts its directory and it does not lead is the Pod deleted. The volume stays for a person.
fn shrink(view: &SetView, record: &Record) -> Option<Decision<Step, Why>> {
    let leaving = view.surplus().into_iter().next()?;
    let pod = view.pods.get(&leaving)?;
    let stay = |waits| {
        Some(Decision::Stay(Why::RemovingMember {
            member: leaving.clone(),
            waits,
        }))
    };
    if pod.deleting {
        return stay("waits for its pod to go");
    }
    if record.leader == leaving {
        let id = format!("leave-{}-{}", leaving, record.term);
        if view.command.as_ref().is_some_and(|c| c.id() == id) {
            return stay("waits for another member to lead");
        }
        return Some(Decision::Do {
            steps: vec![Step::Ask(Command::Switchover { id, to: None })],
            why: Why::RemovingMember {
                member: leaving.clone(),
                waits: "another member takes the lead first",
            },
        });
    }
    let dir = pod.seen.as_ref().and_then(|s| s.dir.as_ref());
    if dir.is_some_and(|d| record.rule.standbys.contains(d) || record.rule.leader.as_ref() == Some(d)) {
        return stay("waits for the primary to count without it");
    }
    if dir.is_none() && record.phase != Phase::Leading {
        return stay("waits for a leader");
    }
    Some(Decision::Do {
        steps: vec![Step::DeletePod {
            member: leaving.clone(),
            uid: pod.uid.clone(),
        }],
        why: Why::RemovingMember {
            member: leaving.clone(),
            waits: "no commit depends on it",
        },
    })
}

/// One member at a time, replicas first, the primary last. Nothing starts unless every wanted member is fit.
fn roll(view: &SetView, record: &Record) -> Option<Decision<Step, Why>> {
    let mut order = view.wanted();
    order.sort_by_key(|m| *m == record.leader);
    let (target, because) = order.iter().find_map(|m| {
        let pod = view.pods.get(m)?;
        renewal(view, pod).map(|because| (m.clone(), because))
    })?;
    let unfit = order
        .iter()
        .find(|m| !view.pods.get(*m).is_some_and(|p| p.ready && !p.deleting && seen_fit(p)));
    if let Some(unfit) = unfit {
        // A pod that cannot become fit because of its own old template must not block its renewal.
        let stuck = *unfit == target
            && view
                .pods
                .get(unfit)
                .is_some_and(|p| p.template != view.template && !p.deleting);
        if !stuck {
            return Some(Decision::Stay(Why::RollingWaits { member: unfit.clone() }));
        }
    }
    let pod = view.pods.get(&target)?;
    let step = if pod.template != view.template {
        Step::DeletePod {
            member: target.clone(),
            uid: pod.uid.clone(),
        }
    } else {
        let id = format!("restart-{}-{}-{}", view.generation, target, pod.uid);
        if view.command.as_ref().is_some_and(|c| c.id() == id) {
            return Some(Decision::Stay(Why::RollingWaits { member: target }));
        }
        Step::Ask(Command::Restart {
            id,
            member: target.clone(),
        })
    };
    Some(Decision::Do {
        steps: vec![step],
        why: Why::Rolling {
            member: target,
            because,
        },
    })
}

fn renewal(view: &SetView, pod: &PodView) -> Option<String> {
    if pod.template != view.template {
        return Some("its Pod's template changed".into());
    }
    let pending = &pod.seen.as_ref()?.pending_restart;
    if pending.is_empty() {
        None
    } else {
        Some(format!("{} takes effect at a restart", pending.join(", ")))
    }
}

fn seen_fit(pod: &PodView) -> bool {
    pod.seen.as_ref().is_some_and(|s| s.fit)
}

fn settle(view: &SetView) -> Decision<Step, Why> {
    let wanted = view.wanted();
    let fit = wanted
        .iter()
        .filter(|m| view.pods.get(*m).is_some_and(|p| p.ready && seen_fit(p)))
        .count();
    if fit == wanted.len() {
        return Decision::Stay(Why::AsWanted);
    }
    let what = wanted
        .iter()
        .find_map(|m| {
            let pod = view.pods.get(m)?;
            if pod.ready && seen_fit(pod) {
                return None;
            }
            let says = match (&pod.waiting, view.silent_since(pod), &pod.seen) {
                (Some(w), ..) => w.clone(),
                (None, Some(since), _) => not_heard_since(since),
                (None, None, Some(s)) => s.message.clone(),
                (None, None, None) => "has not reported yet".into(),
            };
            Some(format!("{m}: {says}"))
        })
        .unwrap_or_default();
    Decision::Stay(Why::WaitsForMembers {
        fit,
        of: wanted.len(),
        what,
    })
}

/// Whether a member serves as the primary, by its own word.
pub fn serves(pod: &PodView) -> bool {
    pod.ready && pod.seen.as_ref().is_some_and(|s| s.role == Role::Leader && s.fit)
}
