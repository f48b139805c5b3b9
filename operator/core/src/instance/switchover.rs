//! Handing leadership over: for a switchover, a drain, a restart of the leader.

use std::sync::Arc;

use crate::failover::{Lsn, MemberName, Phase, Record};

use super::effect::{Effect, HowToStop};
use super::event::{Engine, PrimarySeen};
use super::machine::{Duty, Instance, Run};
use super::message::Role;
use super::mutant::Mutant;
use super::spec::Command;
use super::{Moment, Why};

/// A target may be this many bytes behind when a switchover begins: one WAL segment, sent in a moment on any network.
const NEAR: u64 = 16 << 20;
/// A process asked to end stops its engine the hard way after this long, in milliseconds; Kubernetes' default grace is 30 s.
const ENDS_WITHIN: u64 = 20_000;
/// A leader that is asked to end stays this long to answer for the election that it opened, in milliseconds.
const STAYS: u64 = 3_000;

/// A hand-over under way.
#[derive(Clone, Debug)]
pub(super) struct Hand {
    /// The command that asked for it.
    pub id: Option<String>,
    /// Who is to take over.
    pub target: MemberName,
    /// When it began.
    pub since: Moment,
}

/// What is asked of a leader.
enum Asked {
    /// Hand over, to somebody or to the best.
    HandOver {
        id: Option<String>,
        to: Option<MemberName>,
        or_restart: bool,
    },
    Nothing,
}

impl Instance {
    /// Whether a command was carried out already.
    fn done(&self, record: &Record, id: &str) -> bool {
        let known = if self.mutation.is(Mutant::ForgetsCommands) {
            record.last_command.as_deref() == Some(id)
        } else {
            record.has_done(id)
        };
        known || self.disk.last_command.as_deref() == Some(id)
    }

    fn asked(&self, record: &Record) -> Asked {
        if self.shutdown.is_some() {
            return Asked::HandOver {
                id: None,
                to: None,
                or_restart: false,
            };
        }
        match self.spec.as_ref().and_then(|spec| spec.command.clone()) {
            Some(Command::Switchover { id, to }) if !self.done(record, &id) => Asked::HandOver {
                id: Some(id),
                to,
                or_restart: false,
            },
            Some(Command::Restart { id, member }) if member == self.me && !self.done(record, &id) => Asked::HandOver {
                id: Some(id),
                to: None,
                or_restart: true,
            },
            _ if self.my_spec().is_some_and(|m| m.leaving) => Asked::HandOver {
                id: None,
                to: None,
                or_restart: false,
            },
            _ => Asked::Nothing,
        }
    }

    /// The best caught-up standby, or the one asked for if it is caught up.
    fn target(&self, seen: &PrimarySeen, to: Option<&MemberName>) -> Option<MemberName> {
        let able = self.able();
        let near =
            |r: &&super::ReplicaSeen| able.contains(&r.dir) && seen.flushed.0.saturating_sub(r.flushed.0) <= NEAR;
        let candidates = seen
            .replicas
            .iter()
            .filter(near)
            .map(|r| (r.flushed, self.member_of(&r.dir)));
        let fit = candidates.filter(|(_, m)| to.is_none_or(|to| to == m) && *m != self.me);
        fit.max_by_key(|(flushed, m): &(Lsn, MemberName)| (*flushed, std::cmp::Reverse(m.clone())))
            .map(|(_, m)| m)
    }

    /// Begins a hand-over that is asked for, in this order:
    ///
    /// 1. Only when no change of the rule or write of the record is under way.
    /// 2. To lead already is to be done.
    /// 3. To a caught-up standby. Without one, a leader's restart is done in place, and a switchover is refused in the end.
    pub(super) fn start_hand_over(&mut self, record: &Record, seen: &PrimarySeen) {
        if self.change.is_some() || self.register.operation.is_some() || self.hand.is_some() {
            return;
        }
        let Asked::HandOver { id, to, or_restart } = self.asked(record) else {
            self.beat.asked_since = None;
            return;
        };
        if to.as_ref() == Some(&self.me) {
            return self.persist(|disk| disk.last_command = id);
        }
        let since = *self.beat.asked_since.get_or_insert(self.now);
        let Some(target) = self.target(seen, to.as_ref()) else {
            if id.is_none() || self.persisting.is_some() || self.busy.is_some() {
                return;
            }
            if or_restart {
                self.stop(HowToStop::Clean);
                return self.persist(|disk| disk.last_command = id);
            }
            if self.now.since(since) > self.timings.switchover {
                self.refuse("no caught-up standby to hand over to");
                self.persist(|disk| disk.last_command = id);
            }
            return;
        };
        self.beat.asked_since = None;
        self.hand = Some(Hand {
            id,
            target,
            since: self.now,
        });
        self.hand_over(record);
    }

    /// A hand-over, in this order:
    ///
    /// 1. Clients out, then a clean stop: the standbys receive all of the log, the shutdown checkpoint included.
    /// 2. Then the target is named the next term's leader, if it has where this log ends. One that was not heard lately, or does not know
    ///    of such a hand-over, is only preferred in an election; this member's seal proves that.
    /// 3. A stop that takes too long is called off: the engine is killed and started again in place.
    pub(super) fn hand_over(&mut self, record: &Record) {
        let Some(hand) = self.hand.clone() else { return };
        let late = self.now.since(hand.since) > self.timings.switchover;
        if self.busy.is_some() {
            if late && self.served.fencing.is_none() {
                self.fence("a clean stop took too long");
            }
            return;
        }
        match &*self.engine {
            Engine::Down { .. } if self.clean_end.is_none() => {
                self.hand = None;
                self.refuse("the engine did not stop cleanly");
                self.persist(|disk| disk.last_command = hand.id.or(disk.last_command.take()));
            }
            Engine::Down { .. } if late => self.hand = None,
            Engine::Down { .. } => {
                let takes = |m: &MemberName| self.peers.of.get(m).is_some_and(|peer| peer.last.takes_over);
                match self
                    .clean_end
                    .filter(|_| self.live(&hand.target) && takes(&hand.target))
                {
                    Some(end) => self.name(record, hand, end),
                    None => _ = self.open(record, hand.target, hand.id),
                }
            }
            _ => self.stop(HowToStop::Clean),
        }
    }

    fn refuse(&mut self, why: &str) {
        self.say(Why::WorkFailed {
            what: "switchover",
            why: why.to_owned(),
        });
    }

    /// Whether this member, stopped cleanly for a hand-over, leaves the election to its target for a while.
    pub(super) fn leaves_election_to_target(&self) -> bool {
        let Some(record) = self.record() else { return false };
        let mine = record.rule.leader == self.disk.dir && record.leader != self.me && self.clean_end.is_some();
        let patient = self.now.since(self.watch_since) < self.timings.yield_to_target;
        let target = self.seals.get(&record.leader).map(|(seal, _)| seal);
        // It was to take over, and could not.
        let lacks = target.is_some_and(|seal| seal.term == record.term && Some(seal.position) < self.clean_end);
        record.phase == Phase::Sealing
            && mine
            && !lacks
            && (self.shutdown.is_some() || (patient && self.live(&record.leader)))
    }

    /// A replica's restart by command: written down, then stopped; it is started again as always.
    pub(super) fn restart_if_asked(&mut self, record: &Record) -> bool {
        let asked = match self.spec.as_ref().and_then(|spec| spec.command.as_ref()) {
            Some(Command::Restart { id, member }) if *member == self.me && !self.done(record, id) => id.clone(),
            _ => return false,
        };
        if self.run == Run::Down || self.busy.is_some() || self.persisting.is_some() {
            return false;
        }
        self.stop(HowToStop::Clean);
        self.persist(|disk| disk.last_command = Some(asked));
        true
    }

    /// A process that is asked to end, in this order. `true`: nothing else is to be done now.
    ///
    /// 1. A leader hands over first, if it can.
    /// 2. One that has handed over stays a moment to answer for the election.
    /// 3. The engine is stopped cleanly, or by force when that takes too long.
    /// 4. Then the process ends.
    pub(super) fn ending(&mut self) -> bool {
        let Some(since) = self.shutdown else { return false };
        self.wait(Why::ShuttingDown);
        let late = self.now.since(since) > ENDS_WITHIN;
        let down = matches!(*self.engine, Engine::Down { .. }) && self.run == Run::Down && self.busy.is_none();
        if let (Some(record), false, None) = (self.record_shared(), late, &self.persisting) {
            let duty = self.duty(&record);
            if duty == Duty::Lead && record.phase == Phase::Leading {
                let engine = Arc::clone(&self.engine);
                if let (Engine::Primary(seen), None, None) = (&*engine, &self.hand, self.busy) {
                    self.note_able(seen);
                    self.start_hand_over(&record, seen);
                }
                if self.hand.is_some() {
                    self.hand_over(&record);
                    return true;
                }
            }
            let stays = self.now.since(self.watch_since) < STAYS && self.clean_end.is_some() && down;
            match duty {
                Duty::Seal(term) if stays => {
                    self.seal(term, &record);
                    return true;
                }
                // Its successor may not have all of the log, and has somebody elected then.
                Duty::Follow if stays && self.has_handed(&record) => return true,
                _ => {}
            }
        }
        if down {
            if self.persisting.is_none() {
                self.exited = true;
                self.out.push(Effect::Exit);
            }
        } else if late {
            self.fence("asked to end");
        } else {
            self.stop(HowToStop::Clean);
        }
        if self.role == Role::Leader {
            self.role = Role::Stopped;
        }
        true
    }
}
