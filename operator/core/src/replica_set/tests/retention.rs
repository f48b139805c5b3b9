//! The deletion policy takes effect on what is there already.

use holdfast_api::replica_set::DeletionPolicy;

use super::*;

/// A set of two that runs, with its Secrets; its data goes with the object, or not.
fn set(policy: DeletionPolicy, goes: bool) -> SetView {
    let mut view = running(2);
    view.plan.deletion = policy;
    let ties = |uid: &str| Ties {
        uid: uid.into(),
        goes_with: goes.then(|| "u1".into()).into_iter().collect(),
        ..ties()
    };
    for (member, volume) in &mut view.volumes {
        volume.ties = ties(&format!("claim of {}", member.0));
    }
    view.record.as_mut().unwrap().ties = ties("lease");
    view.secrets = ["db-app", "db-ca"].map(|s| (s.to_owned(), ties(s))).into();
    view
}

fn tie(object: Retained, uid: &str, goes: bool) -> Step {
    let uid = uid.into();
    Step::Tie { object, uid, goes }
}

fn all(goes: bool) -> Vec<Step> {
    vec![
        tie(Retained::Volume(m(1)), "claim of db-1", goes),
        tie(Retained::Volume(m(2)), "claim of db-2", goes),
        tie(Retained::Record, "lease", goes),
        tie(Retained::Secret("db-app".into()), "db-app", goes),
        tie(Retained::Secret("db-ca".into()), "db-ca", goes),
    ]
}

#[test]
fn data_that_is_as_the_policy_says_is_left_alone() {
    for (policy, goes) in [(DeletionPolicy::Retain, false), (DeletionPolicy::Delete, true)] {
        assert_eq!(decide(&set(policy, goes)), Decision::Stay(Why::AsWanted));
    }
}

#[test]
fn a_change_to_retain_unties_everything_before_anything_else_is_done() {
    let mut view = set(DeletionPolicy::Retain, true);
    view.pods.get_mut(&m(2)).unwrap().ended = true;
    assert_eq!(steps(&view), all(false));
    assert_eq!(decide(&view).why(), &Why::DeletionPolicy { data_goes: false });
}

#[test]
fn a_change_to_delete_ties_everything_and_leaves_the_ties_of_others() {
    let mut view = set(DeletionPolicy::Delete, false);
    view.record.as_mut().unwrap().ties.goes_with = vec!["somebody".into()];
    assert_eq!(steps(&view), all(true));
}

#[test]
fn what_alone_is_not_as_the_policy_says_is_put_right() {
    let mut view = set(DeletionPolicy::Retain, false);
    view.volumes.get_mut(&m(2)).unwrap().ties.goes_with = vec!["somebody".into(), "u1".into()];
    assert_eq!(steps(&view), [tie(Retained::Volume(m(2)), "claim of db-2", false)]);
}

#[test]
fn a_volume_of_a_removed_member_follows_the_policy_too() {
    let mut view = set(DeletionPolicy::Delete, true);
    view.plan = plan(1);
    view.plan.deletion = DeletionPolicy::Retain;
    view.pods.remove(&m(2));
    assert_eq!(steps(&view), all(false));
}

#[test]
fn while_the_object_goes_data_can_be_kept_but_not_given_up() {
    let mut view = set(DeletionPolicy::Retain, true);
    view.deleting = true;
    assert_eq!(steps(&view), all(false));
    let mut view = set(DeletionPolicy::Delete, false);
    view.deleting = true;
    assert_eq!(decide(&view), Decision::Stay(Why::Deleting));
}

#[test]
fn data_of_a_former_object_is_tied_when_it_has_been_adopted_and_not_before() {
    let mut view = set(DeletionPolicy::Delete, false);
    view.uid = "u2".into();
    assert!(matches!(decide(&view), Decision::Stay(Why::VolumesExist { .. })));
    view.plan.adopt = true;
    let adopts = [Step::Adopt {
        volumes: vec![m(1), m(2)],
    }];
    assert_eq!(steps(&view), adopts);
    for ties in view.volumes.values_mut().map(|v| &mut v.ties) {
        ties.owner_uid = "u2".into();
    }
    let adopted = steps(&view);
    assert_eq!(
        adopted,
        all(true)[..2],
        "the record and the Secrets are not taken over yet"
    );
}

#[test]
fn a_volume_that_is_going_is_not_held_up() {
    let mut view = set(DeletionPolicy::Retain, false);
    let volume = view.volumes.get_mut(&m(2)).unwrap();
    (volume.deleting, volume.ties.goes_with) = (true, vec!["u1".into()]);
    assert_eq!(decide(&view), Decision::Stay(Why::AsWanted));
}

#[test]
fn a_refused_tie_holds_nothing_else_up() {
    let mut view = set(DeletionPolicy::Retain, true);
    let first = decide(&view);
    assert!(
        matches!(first.why(), Why::DeletionPolicy { data_goes: false }),
        "{first:?}"
    );
    view.ties_refused = true;
    let then = decide(&view);
    assert!(!matches!(then.why(), Why::DeletionPolicy { .. }), "{then:?}");
}
