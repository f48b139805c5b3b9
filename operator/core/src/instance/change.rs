//! Changing the rule, in any direction, without a moment at which the record promises more than the engine does.
//!
//! Law: a rule stands alone in the record only once q members of its S have flushed past the point at which PostgreSQL had
//! taken it up. Until then the record holds the wider of both.

use crate::failover::{Lsn, Record, Rule, rule};

use super::Why;
use super::effect::{Effect, SyncNames};
use super::event::{PrimarySeen, Work, WorkResult};
use super::machine::{Instance, Run};
use super::mutant::Mutant;

/// How far a change has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The record is being widened.
    Widen,
    /// The engine takes the setting up, and walsenders that may still count by an older one are ended.
    Set,
    /// Waits for a look at the engine from after that.
    Point,
    /// Waits for the flush past the point; then the record is narrowed.
    Flush(Lsn),
}

/// A change of the rule under way.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// The rule to be.
    pub to: Rule,
    /// The rule in the record before it was widened.
    pub from: Rule,
    /// How far it has come.
    pub stage: Stage,
}

impl Instance {
    /// Keeps the rule as desired, in this order:
    ///
    /// 1. While a write is under way, or one without an answer may still arrive, the record is not known: nothing changes.
    /// 2. Whether elections may do without proof is written first, by the wish.
    /// 3. A change under way whose aim is no longer desired is begun anew from the record as it stands, which covers
    ///    every setting that may be in force.
    /// 4. The record as desired, and no change under way: the engine's setting is made to be the record's, and nothing else.
    /// 5. Nothing in force yet, or, while nobody is served, anything but the record's own rule: first that, so that service is
    ///    not delayed.
    /// 6. Otherwise the change goes on by its next stage.
    pub(super) fn keep_rule(&mut self, record: &Record, seen: &PrimarySeen) {
        if !self.settled() && !self.mutation.is(Mutant::TrustsUnsettledRecord) {
            if self.register.ghost {
                self.write(record.clone());
            }
            return;
        }
        if record.asynchronous != self.wants_async() {
            self.write(Record {
                asynchronous: self.wants_async(),
                ..record.clone()
            });
            return;
        }
        let Some(spec) = &self.spec else { return };
        let (durability, copies) = (spec.durability, spec.copies);
        let settled = self.change.as_ref().is_none_or(|change| change.to == record.rule);
        if settled && rule::is_desired(&record.rule, durability, copies, self.able_dirs()) {
            self.change = None;
            return self.keep_setting(&record.rule, seen);
        }
        let desired = rule::desired(&record.rule, durability, copies, &self.able());
        let other = !self.in_force(&record.rule) || !self.views_covered_by(&record.rule);
        let unset = self.sync_in_force().is_none() || (!self.served.gate && other);
        if unset && self.change.is_none() {
            return self.keep_setting(&record.rule, seen);
        }
        self.wait(Why::RuleChanging);
        if self.served.asked.is_some() {
            return;
        }
        if self.change.as_ref().map(|change| &change.to) != Some(&desired) {
            self.change = Some(Change {
                to: desired,
                from: record.rule.clone(),
                stage: Stage::Widen,
            });
        }
        let Some(change) = self.change.clone() else { return };
        match change.stage {
            Stage::Widen => self.widen(record, &change),
            Stage::Set if !self.in_force(&change.to) => self.set_sync(self.setting(&change.to)),
            Stage::Set if self.only_views_of(&change.to, seen) => self.stage(Stage::Point),
            Stage::Set => {}
            // The point must be from after the change, and after a gate that closes: what was said before is too old.
            Stage::Point if self.stale || !self.served.gating.is_empty() => {}
            Stage::Point => self.stage(Stage::Flush(seen.flushed.max(seen.inserted))),
            Stage::Flush(point) => self.narrow(record, seen, &change.to, point),
        }
    }

    /// Makes this rule's setting be in force, and walsenders count by nothing that the rule does not cover.
    fn keep_setting(&mut self, rule: &Rule, seen: &PrimarySeen) {
        if self.in_force(rule) {
            self.only_views_of(rule, seen);
        } else {
            self.set_sync(self.setting(rule));
        }
    }

    /// The setting that enforces a rule, by the wish.
    pub(super) fn setting(&self, rule: &Rule) -> SyncNames {
        let (durability, copies) = self.wish();
        rule::setting(rule, durability, copies)
    }

    fn wish(&self) -> (super::Durability, u16) {
        let wish = self.spec.as_ref().map(|spec| (spec.durability, spec.copies));
        wish.unwrap_or((super::Durability::Quorum, 1))
    }

    fn in_force(&self, rule: &Rule) -> bool {
        let (durability, copies) = self.wish();
        self.sync_in_force()
            .is_some_and(|sync| rule::is_setting(sync, rule, durability, copies))
    }

    fn stage(&mut self, stage: Stage) {
        if let Some(change) = &mut self.change {
            change.stage = stage;
        }
    }

    /// The gate closes: commits that waited under the setting to be become visible without its quorum, past any point taken before.
    pub(super) fn retake_point(&mut self) {
        if let Some(Change { stage, .. }) = &mut self.change
            && matches!(stage, Stage::Flush(_))
            && !self.mutation.is(Mutant::KeepsPoint)
        {
            *stage = Stage::Point;
        }
    }

    fn widen(&mut self, record: &Record, change: &Change) {
        let mut wide = rule::widen(&record.rule, &change.to);
        if self.mutation.is(Mutant::NarrowsAtOnce) {
            wide = change.to.clone();
        }
        if self.mutation.is(Mutant::SetsBeforeWidening) && !self.in_force(&change.to) {
            return self.set_sync(self.setting(&change.to));
        }
        if wide == record.rule {
            return self.stage(Stage::Set);
        }
        self.write(Record {
            rule: wide,
            ..record.clone()
        });
    }

    fn narrow(&mut self, record: &Record, seen: &PrimarySeen, to: &Rule, point: Lsn) {
        let past = |r: &&super::ReplicaSeen| to.standbys.contains(&r.dir) && r.counts && r.flushed >= point;
        let have = seen.replicas.iter().filter(past).count();
        let need = usize::from(to.quorum);
        if have < need && !self.mutation.is(Mutant::NarrowsBeforeFlush) {
            return self.wait(Why::WaitsForStandbys { have, need });
        }
        self.write(Record {
            rule: to.clone(),
            ..record.clone()
        });
    }

    /// Makes the engine's setting be this one.
    pub(super) fn set_sync(&mut self, sync: SyncNames) {
        if self.served.asked.is_none() && self.served.sync.as_ref() != Some(&sync) {
            self.served.asked = Some(sync.clone());
            self.served.views.add(&sync);
            self.out.push(Effect::SetSync(sync));
        }
    }

    /// A setting is in force, or walsenders are gone.
    pub(super) fn on_changed(&mut self, work: Work, result: &WorkResult) {
        let ok = matches!(result, WorkResult::Ok { .. });
        if let (WorkResult::Failed { why, .. }, Run::Primary) = (result, &self.run) {
            self.call_failed("changing who acknowledges", why);
        }
        match work {
            Work::SetSync => {
                let asked = self.served.asked.take();
                if ok && asked.is_some() {
                    self.served.sync = asked;
                } else if asked.is_some() {
                    // which one is in force is not known: ask again
                    self.served.sync = None;
                }
            }
            Work::EndWalsenders => self.walsenders_ended(ok),
            _ => {}
        }
    }
}
