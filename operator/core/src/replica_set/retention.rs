//! Whether data goes with the replica set. Kubernetes' garbage collector takes what has an owner reference, so that is where
//! `deletionPolicy` takes effect; it is kept so at any time, because a deletion asks nobody.

use holdfast_api::replica_set::DeletionPolicy;

use crate::failover::MemberName;
use crate::plan::Decision;

use super::decide::Step;
use super::view::SetView;
use super::why::Why;

/// An object that is, or unlocks, data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retained {
    /// The member's claim.
    Volume(MemberName),
    /// The Lease with the authority record.
    Record,
    /// The Secret of this name.
    Secret(String),
}

/// Whose such an object is, and with whom it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ties {
    /// Its own UID.
    pub uid: String,
    /// UID of the HAReplicaSet that it was made for, or that adopted it.
    pub owner_uid: String,
    /// UIDs in its owner references.
    pub goes_with: Vec<String>,
}

/// Puts right what goes and should stay, or stays and should go. What is another object's is left alone. An object that is
/// being deleted may still have its data kept (somebody else's finalizer may hold it for long); that data goes is not decided
/// any more then.
pub(super) fn retention(view: &SetView) -> Option<Decision<Step, Why>> {
    let goes = view.plan.deletion == DeletionPolicy::Delete;
    if (goes && view.deleting) || view.ties_refused {
        return None;
    }
    let volumes = view.volumes.iter().filter(|(_, v)| !v.deleting);
    let all = volumes
        .map(|(member, volume)| (Retained::Volume(member.clone()), &volume.ties))
        .chain(view.record.iter().map(|record| (Retained::Record, &record.ties)))
        .chain(
            view.secrets
                .iter()
                .map(|(name, ties)| (Retained::Secret(name.clone()), ties)),
        );
    let steps: Vec<Step> = all
        .filter(|(_, ties)| ties.owner_uid == view.uid && ties.goes_with.contains(&view.uid) != goes)
        .map(|(object, ties)| Step::Tie {
            object,
            uid: ties.uid.clone(),
            goes,
        })
        .collect();
    let why = Why::DeletionPolicy { data_goes: goes };
    (!steps.is_empty()).then_some(Decision::Do { steps, why })
}
