//! The operator's decisions, guard by guard, and the way from nothing to a running set.

mod retention;
mod silence;

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::*;
use crate::archive::Archiving;
use crate::failover::{DirId, MemberName, Phase, Position, Record, Rule, Term};
use crate::instance::{Command, Role};
use crate::plan::Decision;

fn m(n: u16) -> MemberName {
    view::member("db", n)
}

fn dir(n: u16) -> DirId {
    DirId(format!("dir{n}"))
}

fn ties() -> Ties {
    Ties {
        owner_uid: "u1".into(),
        ..Ties::default()
    }
}

fn plan(members: u16) -> Plan {
    let spec = serde_json::from_value(serde_json::json!({
        "engine": {"postgresql": {"image": "postgres:17"}}, "members": members, "storage": {"size": "1Gi"}
    }));
    Plan::check(&spec.unwrap()).unwrap()
}

fn empty(members: u16) -> SetView {
    SetView {
        ties_refused: false,
        at: Timestamp::UNIX_EPOCH,
        name: "db".into(),
        uid: "u1".into(),
        generation: 1,
        deleting: false,
        plan: plan(members),
        resolved_image: None,
        record: None,
        volumes: BTreeMap::new(),
        secrets: BTreeMap::new(),
        pods: BTreeMap::new(),
        template: "t1".into(),
        command: None,
        consumed_request: None,
    }
}

fn pod(n: u16, role: Role) -> PodView {
    PodView {
        uid: format!("pod{n}"),
        deleting: false,
        ended: false,
        ready: true,
        waiting: None,
        ip: Some(format!("10.0.0.{n}")),
        node: None,
        template: "t1".into(),
        image_id: Some("postgres@sha256:1".into()),
        seen: Some(MemberSeen {
            written: Timestamp::UNIX_EPOCH,
            heard: Timestamp::UNIX_EPOCH,
            role,
            state: "Streaming".into(),
            reason: "Following".into(),
            message: String::new(),
            term: Term(1),
            dir: Some(dir(n)),
            position: Position::default(),
            replayed: Default::default(),
            lag_bytes: Some(0),
            generation: 1,
            fit: true,
            pending_restart: Vec::new(),
            rejected: Vec::new(),
            archiving: None,
            volume: None,
            version: None,
        }),
    }
}

/// A set of `members` that runs as wanted, led by its first member.
fn running(members: u16) -> SetView {
    let mut view = empty(members);
    view.resolved_image = Some("postgres:17@sha256:1".into());
    view.record = Some(RecordView {
        ties: ties(),
        record: Some(Record {
            term: Term(1),
            phase: Phase::Leading,
            leader: m(1),
            rule: Rule {
                leader: Some(dir(1)),
                standbys: (2..=members).map(dir).collect(),
                quorum: 1,
            },
            system_identifier: Some(7),
            last_command: None,
            earlier_commands: Vec::new(),
            given_up: Vec::new(),
            asynchronous: false,
            forsaken: Vec::new(),
            handed: None,
        }),
    });
    for n in 1..=members {
        view.pods
            .insert(m(n), pod(n, if n == 1 { Role::Leader } else { Role::Replica }));
        view.volumes.insert(
            m(n),
            VolumeView {
                ties: ties(),
                deleting: false,
                requested_bytes: 1 << 30,
            },
        );
    }
    view
}

fn steps(view: &SetView) -> Vec<Step> {
    decide(view).steps().to_vec()
}

#[test]
fn the_record_comes_before_any_member() {
    assert_eq!(
        steps(&empty(3)),
        [Step::CreateRecord {
            record: Record::bootstrap(m(1))
        }]
    );
}

#[test]
fn the_first_member_is_made_alone_and_the_others_run_its_digest() {
    let mut view = empty(3);
    view.record = Some(RecordView {
        ties: ties(),
        record: Some(Record::bootstrap(m(1))),
    });
    assert_eq!(
        steps(&view),
        [
            Step::CreateVolume { member: m(1) },
            Step::CreatePod {
                member: m(1),
                image: "postgres:17".into()
            }
        ]
    );
    view.volumes.insert(
        m(1),
        VolumeView {
            ties: ties(),
            deleting: false,
            requested_bytes: 1 << 30,
        },
    );
    view.pods.insert(
        m(1),
        PodView {
            image_id: None,
            seen: None,
            ready: false,
            ..pod(1, Role::Preparing)
        },
    );
    assert_eq!(decide(&view), Decision::Stay(Why::WaitsForImage { member: m(1) }));
    view.resolved_image = Some("postgres:17@sha256:1".into());
    let pinned = "postgres:17@sha256:1".to_owned();
    assert_eq!(
        steps(&view),
        [
            Step::CreateVolume { member: m(2) },
            Step::CreatePod {
                member: m(2),
                image: pinned.clone()
            },
            Step::CreateVolume { member: m(3) },
            Step::CreatePod {
                member: m(3),
                image: pinned
            },
        ]
    );
}

#[test]
fn what_runs_as_wanted_is_left_alone() {
    assert_eq!(decide(&running(3)), Decision::Stay(Why::AsWanted));
}

#[test]
fn data_of_a_former_object_is_never_touched_unasked() {
    let mut view = running(3);
    view.uid = "u2".into();
    assert!(matches!(decide(&view), Decision::Stay(Why::VolumesExist { .. })));
    view.plan.adopt = true;
    assert_eq!(
        steps(&view),
        [Step::Adopt {
            volumes: vec![m(1), m(2), m(3)]
        }]
    );
}

#[test]
fn the_word_to_adopt_changes_nothing_for_a_set_whose_data_is_its_own() {
    let mut view = running(3);
    let wanted = wish::wish(&view, None);
    for adopt in [true, false] {
        view.plan.adopt = adopt;
        assert_eq!(decide(&view), Decision::Stay(Why::AsWanted));
        assert_eq!(wish::wish(&view, None), wanted);
    }
    view.plan.adopt = true;
    view.record = None;
    assert_eq!(
        decide(&view),
        Decision::Stay(Why::RecordUnreadable),
        "nor does it make up a record"
    );
}

#[test]
fn a_lost_or_unreadable_record_is_never_made_up() {
    let mut view = running(3);
    view.record = None;
    assert_eq!(decide(&view), Decision::Stay(Why::RecordUnreadable));
    view.record = Some(RecordView {
        ties: ties(),
        record: None,
    });
    assert_eq!(decide(&view), Decision::Stay(Why::RecordUnreadable));
}

#[test]
fn a_missing_pod_is_made_anew_on_its_volume() {
    let mut view = running(3);
    view.pods.remove(&m(2));
    assert_eq!(
        steps(&view),
        [Step::CreatePod {
            member: m(2),
            image: "postgres:17@sha256:1".into()
        }]
    );
}

#[test]
fn an_ended_pod_is_replaced_by_uid() {
    let mut view = running(3);
    view.pods.get_mut(&m(3)).unwrap().ended = true;
    assert_eq!(
        steps(&view),
        [Step::DeletePod {
            member: m(3),
            uid: "pod3".into()
        }]
    );
}

#[test]
fn scale_down_waits_until_no_commit_depends_on_the_member() {
    let mut view = running(3);
    view.plan = plan(2);
    assert!(matches!(decide(&view), Decision::Stay(Why::RemovingMember { .. })));
    let wanted = wish::wish(&view, None);
    assert!(
        wanted.members.iter().any(|s| s.name == m(3) && s.leaving),
        "the wish says so first"
    );
    let record = view.record.as_mut().and_then(|r| r.record.as_mut()).unwrap();
    record.rule.standbys.remove(&dir(3));
    assert_eq!(
        steps(&view),
        [Step::DeletePod {
            member: m(3),
            uid: "pod3".into()
        }]
    );
}

#[test]
fn a_leaving_leader_hands_over_first() {
    let mut view = running(3);
    view.plan = plan(2);
    view.record.as_mut().and_then(|r| r.record.as_mut()).unwrap().leader = m(3);
    let ask = steps(&view);
    assert!(
        matches!(ask.as_slice(), [Step::Ask(Command::Switchover { to: None, .. })]),
        "{ask:?}"
    );
    if let [Step::Ask(command)] = ask.as_slice() {
        view.command = Some(command.clone());
    }
    assert!(
        matches!(decide(&view), Decision::Stay(Why::RemovingMember { .. })),
        "asked once"
    );
}

#[test]
fn a_new_template_rolls_one_member_at_a_time_the_primary_last() {
    let mut view = running(3);
    view.template = "t2".into();
    assert_eq!(
        steps(&view),
        [Step::DeletePod {
            member: m(2),
            uid: "pod2".into()
        }]
    );
    view.pods.get_mut(&m(2)).unwrap().template = "t2".into();
    view.pods.get_mut(&m(2)).unwrap().ready = false;
    assert_eq!(decide(&view), Decision::Stay(Why::RollingWaits { member: m(2) }));
    view.pods.get_mut(&m(2)).unwrap().ready = true;
    view.pods.get_mut(&m(3)).unwrap().template = "t2".into();
    assert_eq!(
        steps(&view),
        [Step::DeletePod {
            member: m(1),
            uid: "pod1".into()
        }],
        "the primary comes last"
    );
}

#[test]
fn a_member_that_its_old_template_keeps_down_is_renewed_all_the_same() {
    let mut view = running(3);
    view.template = "t2".into();
    view.pods.get_mut(&m(2)).unwrap().ready = false;
    assert_eq!(
        steps(&view),
        [Step::DeletePod {
            member: m(2),
            uid: "pod2".into()
        }]
    );
    view.pods.get_mut(&m(2)).unwrap().template = "t2".into();
    assert_eq!(
        decide(&view),
        Decision::Stay(Why::RollingWaits { member: m(2) }),
        "one away is enough"
    );
}

#[test]
fn a_pending_restart_is_asked_for_once() {
    let mut view = running(3);
    for pod in view.pods.values_mut() {
        pod.seen.as_mut().unwrap().pending_restart = vec!["shared_buffers".into()];
    }
    let ask = steps(&view);
    let [Step::Ask(command)] = ask.as_slice() else {
        panic!("{ask:?}")
    };
    assert!(matches!(command, Command::Restart { member, .. } if *member == m(2)));
    view.command = Some(command.clone());
    assert_eq!(decide(&view), Decision::Stay(Why::RollingWaits { member: m(2) }));
}

#[test]
fn nothing_is_made_for_an_object_that_goes() {
    let mut view = empty(3);
    view.deleting = true;
    assert_eq!(decide(&view), Decision::Stay(Why::Deleting));
}

#[test]
fn status_says_what_was_seen_and_unknown_for_what_was_not() {
    let mut view = running(3);
    view.pods.get_mut(&m(3)).unwrap().seen = None;
    view.pods.get_mut(&m(3)).unwrap().ready = false;
    let decision = decide(&view);
    let status = report::report(&view, &decision, &[], None, jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(status.phase, Some(holdfast_api::replica_set::Phase::Degraded));
    assert_eq!(status.ready.as_deref(), Some("2/3"));
    assert_eq!(status.members[2].role, "Unknown");
    assert_eq!(status.primary.as_deref(), Some("db-1"));
}

#[test]
fn a_member_that_cannot_archive_is_named_with_what_to_look_at() {
    let mut view = running(3);
    let condition = |view: &SetView| {
        let status = report::report(view, &decide(view), &[], None, jiff::Timestamp::UNIX_EPOCH);
        let condition = status.conditions.into_iter().find(|c| c.type_ == "Archiving");
        condition.map(|c| (c.status, c.reason, c.message))
    };
    assert_eq!(condition(&view), None, "nobody asked for an archive");
    view.plan.archive = Some("wal".into());
    assert_eq!(condition(&view).unwrap().0, "Unknown");
    let mut say = |n: u16, failing: Option<&str>| {
        view.pods.get_mut(&m(n)).unwrap().seen.as_mut().unwrap().archiving = Some(Archiving {
            failing: failing.map(ToOwned::to_owned),
            last: Some("2026-01-01T00:00:00Z".into()),
            waiting: 3,
        });
        condition(&view).unwrap()
    };
    assert_eq!(say(1, None).0, "True");
    let (truth, reason, message) = say(2, Some("0000000100000000000000A3"));
    assert_eq!((truth.as_str(), reason.as_str()), ("False", "ArchiveFails"));
    for part in [
        "db-2",
        "0000000100000000000000A3",
        "wal",
        "3 files",
        "2026-01-01",
        "log of Pod db-2",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(say(2, None).0, "True");
}

#[test]
fn a_wrong_image_is_mended_by_naming_the_right_one() {
    let mut view = empty(3);
    view.record = Some(RecordView {
        ties: ties(),
        record: Some(Record::bootstrap(m(1))),
    });
    let stuck = PodView {
        image_id: None,
        seen: None,
        ready: false,
        waiting: Some("ErrImagePull".into()),
        ..pod(1, Role::Preparing)
    };
    view.pods.insert(m(1), stuck);
    assert!(matches!(decide(&view), Decision::Stay(Why::WaitsForFirst { .. })));
    view.template = "t2".into();
    assert_eq!(
        steps(&view),
        [Step::DeletePod {
            member: m(1),
            uid: "pod1".into()
        }]
    );
}
