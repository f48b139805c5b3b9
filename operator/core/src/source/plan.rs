//! From what Git wants and what is in force: what to create, change, put back and delete, and in which order.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_api::git_source::Prune;
use itertools::{EitherOrBoth, Itertools};

use super::{Digest, ObjectKey, Why, order, prune};
use crate::plan::Decision;

/// Everything that the plan depends on.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The commit that `wanted` was read from.
    pub revision: &'a str,
    /// What Git wants.
    pub wanted: &'a BTreeMap<&'a ObjectKey, Digest>,
    /// What this source has applied, with the digest as it was applied (`None`: not known to this process).
    pub held: &'a BTreeMap<&'a ObjectKey, Option<Digest>>,
    /// Of these, objects that have gone from Git and were kept; they are not counted as gone again.
    pub orphans: &'a BTreeSet<ObjectKey>,
    /// Objects seen to have drifted.
    pub drifted: &'a BTreeSet<ObjectKey>,
    /// Objects paused by annotation, in Git or live.
    pub paused: &'a BTreeSet<ObjectKey>,
    /// `spec.prune`.
    pub prune: &'a Prune,
}

/// One step of a change set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Have the server try all of these without storing anything. Any refusal ends the change set here.
    Try(Vec<ObjectKey>),
    /// Write these into the inventory, before they exist: an object that is not in it could never be pruned.
    Record(Vec<ObjectKey>),
    /// Apply these, in any order among themselves.
    Apply(Vec<ObjectKey>),
    /// Delete these, in any order among themselves.
    Prune(Vec<ObjectKey>),
    /// Take these out of the inventory.
    Forget(Vec<ObjectKey>),
    /// Mark these in the inventory as gone from Git but kept.
    Keep(Vec<ObjectKey>),
}

/// Plans one change set. Deciding again after its success is `Stay`.
pub fn decide(view: &View<'_>) -> Decision<Step, Why> {
    let (mut gone, mut changed, mut new) = (Vec::new(), Vec::new(), Vec::new());
    // Side by side: a look-up for each of very many objects would be most of the work of a commit that changes one.
    for pair in view.wanted.iter().merge_join_by(view.held, |(a, _), (b, _)| a.cmp(b)) {
        match pair {
            EitherOrBoth::Left((key, _)) => {
                new.push((*key).clone());
                if !view.paused.contains(*key) {
                    changed.push((*key).clone());
                }
            }
            EitherOrBoth::Both((key, digest), (_, held)) => {
                if view.orphans.contains(*key) {
                    new.push((*key).clone());
                }
                let differs = *held != Some(*digest) || view.drifted.contains(*key);
                if differs && !view.paused.contains(*key) {
                    changed.push((*key).clone());
                }
            }
            EitherOrBoth::Right((key, _)) => {
                if !view.orphans.contains(*key) {
                    gone.push((*key).clone());
                }
            }
        }
    }
    let in_force = view.held.len().saturating_sub(view.orphans.len());
    let doomed = match prune::judge(&gone, in_force, view.prune) {
        Ok(doomed) => doomed,
        Err(why) => return Decision::Stay(why),
    };
    let kept: Vec<ObjectKey> = gone.iter().filter(|key| !doomed.contains(key)).cloned().collect();
    if changed.is_empty() && gone.is_empty() && new.is_empty() {
        return Decision::Stay(Why::NothingNew {
            revision: view.revision.to_owned(),
        });
    }
    let mut steps = Vec::new();
    if !changed.is_empty() {
        steps.push(Step::Try(changed.clone()));
    }
    if !new.is_empty() {
        steps.push(Step::Record(new));
    }
    steps.extend(order::waves(changed).into_iter().map(Step::Apply));
    if !doomed.is_empty() {
        steps.extend(order::waves(doomed.clone()).into_iter().rev().map(Step::Prune));
        steps.push(Step::Forget(doomed));
    }
    if !kept.is_empty() {
        steps.push(Step::Keep(kept));
    }
    Decision::Do {
        steps,
        why: Why::Applying {
            revision: view.revision.to_owned(),
        },
    }
}
