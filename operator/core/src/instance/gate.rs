//! The gate: whether clients are let in.

use crate::failover::{DirId, Record, Rule};

use super::Why;
use super::effect::Effect;
use super::event::{PrimarySeen, WorkResult};
use super::machine::{Instance, Run};
use super::mutant::Mutant;
use super::walsenders;

impl Instance {
    /// Opens the gate, in this order:
    ///
    /// 1. The setting in force is one that the record covers.
    /// 2. The rule's quorum has flushed up to the end of the log as of when the engine came up: readers see no commit that
    ///    could be lost.
    /// 3. This member has written the record since its engine came up, and asked for that a moment ago: nobody else was
    ///    elected meanwhile.
    pub(super) fn keep_gate(&mut self, record: &Record, seen: &PrimarySeen) {
        // a gate that is closing still ends commits' waits
        if !self.served.gating.is_empty() && !self.mutation.is(Mutant::GateNotWatched) {
            return;
        }
        let stale = self.stale;
        let Some(lead) = &mut self.lead else { return };
        if lead.again {
            if stale {
                return;
            }
            (lead.again, lead.backed, lead.point) = (false, None, seen.flushed.max(seen.inserted));
        }
        let (since, point, before) = (lead.since, lead.point, lead.backed.clone());
        if self.served.gate || self.served.asked.is_some() {
            return;
        }
        let rule = &record.rule;
        let flushed = |dir: &&DirId| seen.replicas.iter().any(|r| r.dir == **dir && r.flushed >= point);
        let have = rule.standbys.iter().filter(flushed).count();
        let need = usize::from(rule.quorum);
        let backs = have >= need || self.mutation.is(Mutant::NoComeBackGate);
        // By another rule than the record has now (a write of a former process may have arrived since), it proves nothing: that one asks the
        // same of other standbys.
        let before = before.filter(|by| by == rule || self.mutation.is(Mutant::BackedByAnyRule));
        let backed = before.or_else(|| backs.then(|| rule.clone()));
        let is_backed = backed.is_some();
        if let Some(lead) = &mut self.lead {
            lead.backed = backed;
        }
        let confirmed = self.confirmed_at.is_some_and(|at| at >= since);
        if !confirmed && !self.mutation.is(Mutant::NoComeBackGate) {
            self.write(record.clone());
            return;
        }
        if !is_backed {
            return self.wait(Why::WaitsForStandbys { have, need });
        }
        if !self.covered(rule) {
            return;
        }
        // Others may have been electing while it waited: what it wrote before says nothing about now.
        // Where answers take long an election, which needs three of them, does so, too.
        let slow = self.register.took.saturating_mul(2);
        let recent = self.timings.confirm.max(slow).min(self.timings.detect);
        let late = self.confirmed_at.is_some_and(|at| self.now.since(at) > recent);
        if late && !self.mutation.is(Mutant::NoComeBackGate) {
            self.write(record.clone());
            return;
        }
        self.served.gate = true;
        if let Some(lead) = &mut self.lead {
            lead.opened = true;
        }
        self.served.gating.push_back(true);
        self.out.push(Effect::Gate { open: true });
    }

    /// Whether the record covers whatever may release a commit: the setting in force, and those that walsenders may still count
    /// by. (A write of this member's process of before may have changed the record since.)
    fn covered(&self, record: &Rule) -> bool {
        if self.change.is_some() && self.mutation.is(Mutant::OpensWhileChanging) {
            return self.sync_in_force().is_some();
        }
        let setting = self.sync_in_force().and_then(walsenders::enforced);
        let in_force = setting.is_some_and(|least| least.is_none_or(|least| walsenders::covers(record, &least)));
        in_force && self.views_covered_by(record)
    }

    /// Keeps clients out from here on.
    pub(super) fn close_gate(&mut self) {
        if self.served.gate {
            self.served.gate = false;
            self.stale = true;
            if let Some(lead) = &mut self.lead {
                lead.again = !self.mutation.is(Mutant::ReopensAtOnce);
            }
            self.served.gating.push_back(false);
            self.out.push(Effect::Gate { open: false });
            self.retake_point();
        }
    }

    /// A gate call has ended, in this order:
    ///
    /// 1. What it did to an engine that is gone, or being stopped, does not matter.
    /// 2. A gate that was to close and did not may let clients in: the engine is stopped.
    /// 3. A gate that was to open and did not may be open all the same: it is closed first, and opened again after a pause.
    /// 4. What waited for its commit while the gate closed has become visible: that is known from a look after this.
    pub(super) fn on_gate(&mut self, result: &WorkResult) {
        let Some(open) = self.served.gating.pop_front() else {
            return;
        };
        let WorkResult::Failed { why, .. } = result else { return };
        if self.run != Run::Primary || self.busy.is_some() {
            return;
        }
        if !open {
            return self.fence("its gate did not close");
        }
        self.call_failed("letting clients in", why);
        self.close_gate();
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{comes_back, looks, opens, read, reads, writes, written};
    use super::super::{Event, Moment};
    use super::*;

    /// One that has written the record when its engine answered, and has had no standby for a second since.
    fn waits_for_long() -> Instance {
        let mut leader = comes_back();
        looks(&mut leader, 20, false);
        written(&mut leader, 30);
        let out = leader.step(Moment(1_050), Event::Tick);
        assert!(reads(&out), "{out:?}");
        read(&mut leader, 1_060);
        leader
    }

    #[test]
    fn a_gate_opens_by_a_write_of_this_moment_once_the_quorum_has_the_log() {
        let mut leader = comes_back();
        let out = looks(&mut leader, 20, false);
        assert!(writes(&out) && !opens(&out), "{out:?}");
        assert!(!opens(&written(&mut leader, 30)), "nobody has the log yet");
        let out = looks(&mut leader, 40, true);
        assert!(opens(&out) && !writes(&out), "{out:?}");
    }

    #[test]
    fn after_a_wait_the_record_is_written_once_more() {
        let mut leader = waits_for_long();
        let out = looks(&mut leader, 1_100, true);
        assert!(writes(&out) && !opens(&out), "others may have elected: {out:?}");
        assert!(opens(&written(&mut leader, 1_120)));
    }

    #[test]
    fn a_slow_api_server_delays_a_gate_and_does_not_keep_it_shut() {
        let mut leader = waits_for_long();
        let mut now = 1_100;
        let mut out = looks(&mut leader, now, true);
        while !opens(&out) {
            assert!(now < 10_000, "it stays shut: {out:?}");
            now += 700;
            out = match writes(&out) {
                true => written(&mut leader, now),
                false => read(&mut leader, now),
            };
        }
    }
}
