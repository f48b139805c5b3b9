//! What was not seen for long is unknown, and said to be.

use holdfast_api::replica_set::{HAReplicaSetStatus, MemberView, Phase as Shown};
use jiff::SignedDuration;

use super::*;

/// So long after everybody's last word.
fn after(mut view: SetView, seconds: i64) -> SetView {
    view.at = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
    view
}

fn status(view: &SetView) -> HAReplicaSetStatus {
    report::report(view, &decide(view), &[], None, view.at)
}

fn unready(view: &mut SetView, n: u16) {
    view.pods.get_mut(&m(n)).unwrap().ready = false;
}

fn shown(member: &MemberView) -> (&str, &str, bool, bool) {
    (
        &member.role,
        &member.state,
        member.lsn.is_some(),
        member.lag_bytes.is_some(),
    )
}

#[test]
fn a_member_that_is_gone_is_unknown_and_its_last_word_is_dated() {
    let mut view = running(3);
    unready(&mut view, 2);
    let fresh = status(&after(view.clone(), 90));
    assert_eq!(shown(&fresh.members[1]), ("Replica", "Streaming", true, true));
    // The leader and the third go on talking.
    let mut view = after(view, 91);
    for n in [1, 3] {
        view.pods.get_mut(&m(n)).unwrap().seen.as_mut().unwrap().heard = view.at;
    }
    let old = status(&view);
    let gone = &old.members[1];
    assert_eq!(shown(gone), ("Unknown", "Unknown", false, false));
    assert_eq!(
        (gone.ready, &gone.version, gone.pending_restart.len()),
        (false, &None, 0)
    );
    assert_eq!(gone.message.as_deref(), Some("not heard of since 1970-01-01T00:00:00Z"));
    assert_eq!(shown(&old.members[2]), ("Replica", "Streaming", true, true));
    assert_eq!((old.phase, old.ready.as_deref()), (Some(Shown::Degraded), Some("2/3")));
    let said = old.message.unwrap();
    assert!(said.contains("db-2: not heard of since 1970-01-01T00:00:00Z"), "{said}");
    // And nothing of it moves while the silence lasts: no write of the status tells only that time goes by.
    view.at += SignedDuration::from_secs(300);
    for n in [1, 3] {
        view.pods.get_mut(&m(n)).unwrap().seen.as_mut().unwrap().heard = view.at;
    }
    assert_eq!(status(&view).members[1], old.members[1]);
}

#[test]
fn what_kubernetes_says_of_a_silent_member_comes_first() {
    let mut view = after(running(3), 200);
    unready(&mut view, 2);
    view.pods.get_mut(&m(2)).unwrap().waiting = Some("container postgresql: CrashLoopBackOff".into());
    let said = status(&view).members[1].message.clone().unwrap();
    assert_eq!(
        said,
        "container postgresql: CrashLoopBackOff; not heard of since 1970-01-01T00:00:00Z"
    );
}

#[test]
fn a_member_that_is_unfit_and_says_so_is_believed() {
    let mut view = after(running(3), 80);
    unready(&mut view, 3);
    let seen = view.pods.get_mut(&m(3)).unwrap().seen.as_mut().unwrap();
    (seen.role, seen.state, seen.fit) = (Role::Preparing, "Cloning".into(), false);
    seen.message = "copies from db-1".into();
    let status = status(&view);
    assert_eq!(shown(&status.members[2]), ("Preparing", "Cloning", true, true));
    assert_eq!(status.members[2].message.as_deref(), Some("copies from db-1"));
}

#[test]
fn a_silent_member_that_the_kubelet_hears_keeps_its_role_but_not_its_position() {
    let view = after(running(3), 91);
    let status = status(&view);
    assert_eq!(shown(&status.members[1]), ("Replica", "Streaming", false, false));
    let said = status.members[1].message.as_deref();
    assert_eq!(said, Some("not heard of since 1970-01-01T00:00:00Z"));
    assert_eq!(
        status.phase,
        Some(Shown::Ready),
        "whoever cannot reach the API server goes on serving"
    );
}

#[test]
fn a_set_of_which_nobody_is_heard_is_unknown_and_not_one_that_elects() {
    let mut view = running(3);
    for n in 1..=3 {
        unready(&mut view, n);
    }
    view.pods.get_mut(&m(1)).unwrap().seen.as_mut().unwrap().reason = "ProofImpossible".into();
    assert_eq!(status(&after(view.clone(), 60)).phase, Some(Shown::Unavailable));
    let mut view = after(view, 91);
    let unseen = status(&view);
    assert_eq!(unseen.phase, Some(Shown::Unknown));
    let serving = unseen.conditions.iter().find(|c| c.type_ == "Serving").unwrap();
    assert_eq!(
        (serving.status.as_str(), serving.reason.as_str()),
        ("Unknown", "NotSeen")
    );
    view.pods.get_mut(&m(2)).unwrap().seen = None;
    assert_eq!(status(&view).phase, Some(Shown::Electing), "one is on its way");
}

#[test]
fn the_next_look_is_when_an_unready_member_has_been_silent_for_too_long() {
    let mut view = after(running(3), 30);
    assert_eq!(view.next_silence(), None, "a healthy set is looked at no more often");
    unready(&mut view, 2);
    let due = view.next_silence().unwrap();
    assert_eq!(due.as_second(), 91);
    view.at = due;
    assert!(view.silent_since(&view.pods[&m(2)]).is_some());
    assert_eq!(view.next_silence(), None, "told once");
}
