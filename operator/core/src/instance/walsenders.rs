//! What the engine's walsenders may count by.
//!
//! A walsender takes a changed setting up in its own time, releases commits by the number and the set of its own view, and
//! shows neither. So every setting that was in force since the engine started, or since its walsenders were last ended, may
//! still release a commit; the record must cover all of them whenever anybody is served.

use std::collections::BTreeSet;

use crate::failover::{DirId, Rule, rule};

use super::effect::{Effect, SyncNames};
use super::event::PrimarySeen;
use super::machine::Instance;
use super::mutant::Mutant;

/// The settings that walsenders may count by, as one rule that covers them all.
#[derive(Clone, Debug, Default)]
pub(super) struct Views {
    /// `None`: whoever counts releases nothing.
    any: Option<Rule>,
    /// Those since walsenders began to be ended, while they are.
    ending: Option<Option<Rule>>,
}

/// The weakest rule by which commits are released while a setting is in force: `None` if which one that is is not known,
/// `Some(None)` if none is released.
pub(super) fn enforced(sync: &SyncNames) -> Option<Option<Rule>> {
    match sync {
        SyncNames::Nobody => Some(None),
        SyncNames::Alone => Some(Some(Rule::default())),
        // what an engine is seen with that is changing its setting
        SyncNames::Any { quorum: 0, .. } => None,
        SyncNames::Any { .. } => Some(view(sync)),
    }
}

/// The rule by which a walsender releases commits that has this setting for its view. Where a leader acknowledges alone no
/// walsender does: a session that commits does not even wait.
fn view(sync: &SyncNames) -> Option<Rule> {
    match sync {
        SyncNames::Nobody | SyncNames::Alone => None,
        SyncNames::Any { quorum, standbys } => Some(Rule {
            leader: None,
            standbys: standbys.clone(),
            quorum: *quorum,
        }),
    }
}

/// Whether a commit released by one rule is one that another rule's proof finds. With the leader alone, every commit is.
pub(super) fn covers(by: &Rule, one: &Rule) -> bool {
    // what both widen to is then `by` itself
    by.quorum == 0 || (by.quorum <= one.quorum && one.standbys.is_subset(&by.standbys))
}

fn join(known: &mut Option<Rule>, sync: &SyncNames) {
    if let Some(new) = view(sync) {
        *known = Some(
            known
                .as_ref()
                .map_or_else(|| new.clone(), |known| rule::widen(known, &new)),
        );
    }
}

impl Views {
    /// Those of an engine that is being started or promoted with this setting.
    pub(super) fn of(sync: &SyncNames) -> Views {
        Views {
            any: view(sync),
            ending: None,
        }
    }

    /// The engine is asked to take this setting up as well: from here on some may count by it, whether that succeeds or not.
    pub(super) fn add(&mut self, sync: &SyncNames) {
        join(&mut self.any, sync);
        if let Some(ending) = &mut self.ending {
            join(ending, sync);
        }
    }

    /// Whether a commit that any of them releases is one that this rule's proof finds.
    pub(super) fn covered_by(&self, by: &Rule) -> bool {
        self.any.as_ref().is_none_or(|views| covers(by, views))
    }
}

impl Instance {
    /// Whether the record's rule covers whatever may release a commit.
    pub(super) fn views_covered_by(&self, by: &Rule) -> bool {
        let forgets = self.change.is_none() && self.mutation.is(Mutant::ForgetsViews);
        forgets || self.mutation.is(Mutant::LeavesWalsenders) || self.served.views.covered_by(by)
    }

    /// Rids the engine, which has this rule's setting in force, of walsenders that may count by another one that the rule
    /// does not cover. In this order:
    ///
    /// 1. A rule that covers every view (more members than any, no more of them asked for; or the leader alone) needs nothing.
    /// 2. Otherwise all are ended, those of members that stay too: one that stays may still count a member that left, or ask
    ///    for fewer. All are those of every directory known, not of those last seen connected: one that connected since the
    ///    last look is among them.
    ///
    /// Whether that is so now.
    pub(super) fn only_views_of(&mut self, to: &Rule, seen: &PrimarySeen) -> bool {
        if self.views_covered_by(to) {
            return true;
        }
        if self.served.views.ending.is_some() {
            return false;
        }
        let shown: BTreeSet<DirId> = seen.replicas.iter().map(|replica| replica.dir.clone()).collect();
        let viewed = self.served.views.any.iter().flat_map(|rule| &rule.standbys);
        let known = viewed.chain(&to.standbys).chain(self.peers.dirs.keys());
        let mut old: BTreeSet<DirId> = shown.iter().chain(known).cloned().collect();
        if self.mutation.is(Mutant::EndsOnlySeen) {
            old = shown;
        } else if self.mutation.is(Mutant::EndsOnlyLeavers) {
            old.retain(|dir| !to.standbys.contains(dir));
        }
        self.served.views.ending = Some(self.sync_in_force().and_then(view));
        self.out.push(Effect::EndWalsenders(old));
        false
    }

    /// Walsenders are gone, or it is not known which: then they will be ended again.
    pub(super) fn walsenders_ended(&mut self, ok: bool) {
        if let Some(since) = self.served.views.ending.take()
            && ok
        {
            self.served.views.any = since;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(quorum: u16, names: &[&str]) -> SyncNames {
        SyncNames::Any {
            quorum,
            standbys: names.iter().map(|name| DirId((*name).into())).collect(),
        }
    }

    fn rule(quorum: u16, names: &[&str]) -> Rule {
        Rule {
            leader: Some(DirId("l".into())),
            standbys: names.iter().map(|name| DirId((*name).into())).collect(),
            quorum,
        }
    }

    #[test]
    fn a_stricter_rule_does_not_cover_what_the_engine_was_started_with() {
        let mut views = Views::of(&any(1, &["a", "b"]));
        views.add(&any(2, &["a", "b"]));
        assert!(!views.covered_by(&rule(2, &["a", "b"])));
        assert!(views.covered_by(&rule(1, &["a", "b"])));
        assert!(views.covered_by(&rule(1, &["a", "b", "c"])));
        assert!(!views.covered_by(&rule(1, &["a"])));
    }

    #[test]
    fn the_leader_alone_covers_every_view_and_gives_walsenders_none() {
        let views = Views::of(&any(1, &["a"]));
        assert!(views.covered_by(&rule(0, &[])));
        assert!(Views::of(&SyncNames::Alone).covered_by(&rule(1, &["a"])));
        assert!(Views::of(&SyncNames::Nobody).covered_by(&rule(1, &["a"])));
    }

    #[test]
    fn a_setting_in_force_is_covered_by_a_rule_that_asks_for_no_more() {
        let covered =
            |sync: &SyncNames, by: &Rule| enforced(sync).is_some_and(|it| it.is_none_or(|it| covers(by, &it)));
        assert!(!covered(&SyncNames::Alone, &rule(1, &["a"])));
        assert!(covered(&SyncNames::Alone, &rule(0, &["a"])));
        assert!(covered(&SyncNames::Nobody, &rule(1, &["a"])));
        assert!(covered(&any(2, &["a", "b"]), &rule(1, &["a", "b"])));
        assert!(!covered(&any(0, &[]), &rule(0, &[])), "it is not known");
    }
}
