//! Stopping this member's own engine, because it may be a leader no more.

use super::Why;
use super::effect::HowToStop;
use super::event::Work;
use super::machine::{Instance, Run};
use super::message::Role;
use super::mutant::Mutant;

impl Instance {
    /// Stops the engine at once: immediate shutdown, then SIGKILL by a deadline. Asked again if it has not stopped by then.
    pub(super) fn fence(&mut self, because: &str) {
        self.role = Role::Stopped;
        let again = self.timings.kill_after.saturating_mul(2);
        if self.served.fencing.is_some_and(|at| self.now.since(at) < again) {
            return;
        }
        self.wait(Why::Fenced {
            because: because.to_owned(),
        });
        self.served.fencing = Some(self.now);
        self.stop(HowToStop::Fence {
            kill_after_ms: self.timings.kill_after,
        });
    }

    /// Whether this member has reached, for the fence time, neither the record nor members enough that none can be elected
    /// without its hearing of it: a majority; in `Async`, where a member needs nobody's seal but its own, every other one. That
    /// is so from the wish on, and for as long as the record may say so.
    pub(super) fn cut_off(&self) -> bool {
        let time = self.timings.fence;
        let api = self.register.contact.is_some_and(|at| self.now.since(at) <= time);
        !api && !self.company_within(time)
    }

    /// Whether members enough were heard within `ms` that the record is not needed.
    fn company_within(&self, ms: u64) -> bool {
        let alone = self.wants_async() || self.register.asynchronous;
        if alone && !self.mutation.is(Mutant::AsyncTrustsMajority) {
            self.everybody_within(ms)
        } else {
            self.majority_within(ms)
        }
    }

    /// Whether only the record keeps this leader from its fence: then it is read well before that is due.
    pub(super) fn needs_the_record(&self) -> bool {
        self.run == Run::Primary && !self.company_within(self.timings.detect)
    }

    /// Whether a majority of members has not been heard lately: the record is then read more often.
    pub(super) fn isolated(&self) -> bool {
        !self.majority_within(self.timings.detect)
    }

    /// Fences a leader, in this order:
    ///
    /// 1. Only one whose engine runs as a primary, or is starting to.
    /// 2. One that reaches the record goes on: it will learn there if its term is over.
    /// 3. One that reaches members enough goes on: no election could pass them by.
    pub(super) fn fence_if_due(&mut self) -> bool {
        if self.run != Run::Primary || self.served.fencing.is_some() {
            return self.run == Run::Primary && self.served.fencing.is_some() && self.fence_again();
        }
        let long = self
            .lead
            .as_ref()
            .is_some_and(|lead| self.now.since(lead.since) > self.timings.fence);
        // A clean stop that hangs is no better than serving on.
        let long = long || self.busy == Some(Work::Stop);
        if !long || !self.cut_off() || self.mutation.is(Mutant::NoFence) {
            return false;
        }
        self.fence("it reaches neither the API server nor enough members");
        true
    }

    fn fence_again(&mut self) -> bool {
        self.fence("it is being stopped");
        true
    }

    /// A member fenced by a person is kept down.
    pub(super) fn fenced_by_hand(&mut self) -> bool {
        if !self.my_spec().is_some_and(|m| m.fenced) {
            return false;
        }
        self.wait(Why::FencedByHand);
        self.role = Role::Stopped;
        self.hand = None;
        if self.run != Run::Down {
            self.fence("a person has fenced it");
            self.wait(Why::FencedByHand);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{comes_back, follower, looks, record};
    use super::super::{CasOutcome, Durability, Effect, Event, Message, Moment, RecordSeen, Version};
    use crate::failover::MemberName;

    /// Everybody but one member is there, and the API server answers.
    #[test]
    fn an_async_leader_that_reaches_the_record_is_not_fenced_while_a_member_is_away() {
        let mut leader = comes_back();
        let mut spec = leader.spec.clone().unwrap();
        (spec.durability, spec.generation) = (Durability::Async, 2);
        leader.step(Moment(15), Event::Spec(spec));
        let mut known = record();
        let mut out = looks(&mut leader, 20, true);
        let mut answer: Option<(u64, Event)> = None;
        for now in (30..60_000).step_by(10) {
            let mut event = match now % 500 {
                0 => {
                    let (from, message) = (MemberName("b".into()), Message::Heartbeat(follower()));
                    Event::Message { from, message }
                }
                _ => Event::Tick,
            };
            for effect in out {
                let version = Version(now.to_string());
                match effect {
                    Effect::Stop(how) => panic!("before {now}: {how:?}"),
                    Effect::ReadRecord => {
                        let record = known.clone();
                        answer = Some((now + 40, Event::Record(RecordSeen::Found { record, version })));
                    }
                    Effect::WriteRecord { record, .. } => {
                        known = record;
                        answer = Some((now + 40, Event::Cas(CasOutcome::Written { version })));
                    }
                    _ => {}
                }
            }
            if let Some((_, answer)) = answer.take_if(|(at, _)| *at <= now) {
                event = answer;
            }
            out = leader.step(Moment(now), event);
        }
        assert!(known.asynchronous, "the wish is in the record");
    }
}
