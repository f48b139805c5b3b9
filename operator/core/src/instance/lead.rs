//! Leading: promotion, serving, and coming back in place after a crash.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::failover::{DirId, Lsn, MemberName, Phase, Position, Record, Rule, Term, position, rule};

use super::effect::{Effect, HowToStop, StartAs, SyncNames};
use super::event::{Engine, PrimarySeen, Work};
use super::machine::Instance;
use super::message::Role;
use super::mutant::Mutant;
use super::spec::Durability;
use super::walsenders::Views;
use super::{Moment, Why};

/// A primary that runs.
#[derive(Clone, Debug)]
pub(super) struct Lead {
    /// The term that it writes.
    pub term: Term,
    /// Since when it answers.
    pub since: Moment,
    /// The end of its log when it began to answer: nobody is served before the rule's quorum has flushed this far.
    pub point: Lsn,
    /// That has happened, by this rule.
    pub backed: Option<Rule>,
    /// Clients have been let in.
    pub opened: bool,
    /// The gate was closed since: commits whose wait was ended by that have become visible, so the point is taken anew.
    pub again: bool,
    /// The members that subscribers are kept behind, as last asked for.
    pub backing: Option<BTreeSet<MemberName>>,
    /// Standbys that could acknowledge, and when each was last seen to.
    pub able: std::collections::BTreeMap<DirId, Moment>,
}

impl Instance {
    /// The leader's duties, in this order:
    ///
    /// 1. The first member makes the first directory, once.
    /// 2. The rule names a directory: a member that has lost it cannot lead, and lets others elect.
    /// 3. A hand-over in progress goes on.
    /// 4. One work at a time.
    /// 5. By what the engine is: promote a standby that was elected, start what is down, serve as a primary.
    pub(super) fn lead(&mut self, record: &Record) {
        let promoting = record.phase == Phase::Promoting;
        self.role = if promoting { Role::Candidate } else { Role::Leader };
        if record.rule.leader.is_none() && self.bootstraps(record) {
            return;
        }
        if !self.whole() || (!promoting && record.rule.leader != self.disk.dir) {
            return self.give_up(record);
        }
        if self.hand.is_some() {
            return self.hand_over(record);
        }
        if self.busy.is_some() {
            if self.busy != Some(Work::Promote) && !promoting {
                self.role = Role::Stopped;
            }
            return;
        }
        let engine = Arc::clone(&self.engine);
        match &*engine {
            Engine::Down { .. } => self.restart_in_place(record),
            Engine::Standby(_) if promoting => self.promote(record),
            // it was sealed for a term that nobody won; its log is still its own
            Engine::Standby(_) => self.stop(HowToStop::Clean),
            Engine::Starting => self.role = if promoting { Role::Candidate } else { Role::Stopped },
            Engine::Silent => self.heal_silent(),
            Engine::Primary(seen) => self.serve(record, seen),
        }
    }

    /// A leader without its directory, or whose promotion failed, ends its own term.
    pub(super) fn give_up(&mut self, record: &Record) {
        self.role = Role::Preparing;
        if record.rule.leader.is_none() {
            return self.wait(Why::FirstVolumeLost);
        }
        self.wait(self.proof_impossible(record));
        if self.could_prove(record, &record.given_up) {
            if self.damaged() {
                self.say(Why::WorkFailed {
                    what: "reading the control file",
                    why: "it is damaged; another member is to lead".into(),
                });
            }
            self.open(record, self.me.clone(), None);
        }
    }

    /// Promotes, in this order: what this directory becomes is durable first (`led`, and where the new term's part of the
    /// log begins), then the engine is promoted; a promotion that failed is another election's matter. Members whose log ends where
    /// this one's does may come meanwhile.
    fn promote(&mut self, record: &Record) {
        self.wait(Why::Promoting { term: record.term });
        if self.served.promotion_failed == Some(record.term) {
            return self.give_up_promotion(record);
        }
        if !self.has_what_was_handed(record) {
            return;
        }
        self.make_slots_early(record);
        if self.disk.led != Some(record.term) {
            let (term, base) = (record.term, self.position());
            return self.persist(|disk| {
                disk.term = disk.term.max(term);
                disk.sealed = None;
                disk.base = base;
                disk.following = Some(term);
                disk.led = Some(term);
            });
        }
        if self.hopes_for_seals(record) {
            return;
        }
        let rule = self.first_rule();
        let sync = self.setting(&rule);
        self.served.sync = None;
        self.served.views = Views::of(&sync);
        self.busy = Some(Work::Promote);
        self.out.push(Effect::Promote {
            term: record.term,
            sync,
        });
        self.served.first = Some((record.term, rule));
    }

    /// Whether the seal of a standby that the rule names, and that is heard, may still come in time for the first rule.
    fn hopes_for_seals(&self, record: &Record) -> bool {
        let mut members = self.spec.iter().flat_map(|s| &s.members);
        let late = members.any(|m| {
            let last = self.peers.of.get(&m.name).map(|peer| &peer.last);
            let named = last
                .and_then(|last| last.dir.as_ref())
                .is_some_and(|dir| record.rule.standbys.contains(dir));
            let wanted = m.name != self.me && !m.leaving && !m.fenced;
            wanted && named && self.live(&m.name) && !self.takes_our_log(&m.name)
        });
        late && self.now.since(self.watch_since) < self.timings.hope
    }

    /// The rule that this member hopes to begin its term with: everybody heard lately will follow. It is set before the
    /// promotion, so that service does not wait for the engine to take up another setting.
    fn first_rule(&self) -> crate::failover::Rule {
        let wish = self.spec.as_ref().map(|s| (s.durability, s.copies));
        let (durability, copies) = wish.unwrap_or((Durability::Quorum, 1));
        let members = self.spec.iter().flat_map(|s| &s.members);
        let staying = members.filter(|m| {
            m.name != self.me && !m.leaving && !m.fenced && self.live(&m.name) && self.takes_our_log(&m.name)
        });
        let own = self.position();
        let history = match &*self.engine {
            Engine::Standby(seen) => seen.history.as_slice(),
            _ => &[],
        };
        // One with a tail of its own must rewind first: until it has, its seal could not be had, and a rule needs its members'.
        let prefix = |at: Position| at.lsn <= own.lsn && position::on_history(at, own.term, history);
        let able = staying
            .filter_map(|m| {
                let last = &self.peers.of.get(&m.name)?.last;
                last.dir.clone().filter(|_| prefix(last.position))
            })
            .collect();
        rule::first(self.disk.dir.clone(), durability, copies, &able)
    }

    fn give_up_promotion(&mut self, record: &Record) {
        self.role = Role::Stopped;
        let accepted = self.accepted();
        let lost = accepted.as_ref().map_or(&record.given_up, |accepted| &accepted.without);
        if !self.could_prove(record, lost) {
            return self.wait(self.proof_impossible(record));
        }
        match accepted {
            Some(accepted) => self.open_accepting(record, accepted),
            None => self.open(record, self.me.clone(), None),
        };
    }

    /// A leader whose engine is down starts it again, its gate closed, while its peers, who have been told, may elect:
    /// whichever comes first is decided by the record. A candidate that went down before its promotion is known to be
    /// complete does not try again under the same term.
    fn restart_in_place(&mut self, record: &Record) {
        let control = self.volume.as_ref().and_then(|volume| volume.control);
        let complete = self.served.promoted == Some(record.term) || control.is_some_and(|c| c.term == record.term);
        if record.phase == Phase::Promoting {
            if !complete {
                return self.give_up_promotion(record);
            }
            return self.start(StartAs::Primary {
                sync: SyncNames::Nobody,
            });
        }
        self.role = Role::Stopped;
        if self.cut_off() {
            return self.wait(Why::Fenced {
                because: "it reaches neither the API server nor enough members".into(),
            });
        }
        let sync = self.setting(&record.rule);
        self.start(StartAs::Primary { sync });
    }

    /// A running primary of its term, in this order:
    ///
    /// 1. One that writes another term than the record's is stopped.
    /// 2. While promoting: the record becomes `Leading` once enough standbys have flushed past the promotion point.
    /// 3. While leading: the rule is kept or changed, subscribers are kept behind it, then the gate, the traffic and the slots
    ///    are kept.
    fn serve(&mut self, record: &Record, seen: &PrimarySeen) {
        if seen.term != record.term {
            self.fence("its engine writes another term");
            return;
        }
        self.note_lead(seen);
        self.note_able(seen);
        self.keep_slots(seen);
        if record.phase == Phase::Promoting {
            return self.finish_promotion(record, seen);
        }
        self.role = Role::Leader;
        self.wait(Why::Leading { term: record.term });
        self.keep_rule(record, seen);
        self.keep_subscribers(record, seen);
        self.keep_gate(record, seen);
        self.keep_endpoints(seen);
        self.renew(record);
        self.drop_needless(record);
        self.start_hand_over(record, seen);
    }

    fn note_lead(&mut self, seen: &PrimarySeen) {
        if self.lead.as_ref().is_none_or(|lead| lead.term != seen.term) {
            // Whom it was promoted with has as long to come as one that is lost has to come back.
            let first = self.served.first.as_ref().filter(|(term, _)| *term == seen.term);
            let hoped = first.iter().flat_map(|(_, rule)| &rule.standbys);
            self.lead = Some(Lead {
                term: seen.term,
                since: self.now,
                point: seen.flushed,
                backed: None,
                opened: false,
                again: false,
                backing: None,
                able: hoped.map(|dir| (dir.clone(), self.now)).collect(),
            });
        }
    }

    /// Remembers which standbys could acknowledge: streaming, their member heard lately as one that follows this term, and
    /// not on its way out.
    pub(super) fn note_able(&mut self, seen: &PrimarySeen) {
        let Some(mut lead) = self.lead.take() else { return };
        let (now, lost) = (self.now, self.timings.standby_lost);
        let able = |replica: &&super::ReplicaSeen| {
            let member = self.known_member(&replica.dir);
            replica.streaming && member.is_some_and(|member| self.could_acknowledge(member, &replica.dir))
        };
        for replica in seen.replicas.iter().filter(able) {
            match lead.able.get_mut(&replica.dir) {
                Some(at) => *at = now,
                None => _ = lead.able.insert(replica.dir.clone(), now),
            }
        }
        lead.able.retain(|_, at| now.since(*at) <= lost);
        self.lead = Some(lead);
    }

    fn could_acknowledge(&self, member: &MemberName, dir: &DirId) -> bool {
        let mut members = self.spec.iter().flat_map(|s| &s.members);
        let wanted = members.any(|m| m.name == *member && !m.leaving && !m.fenced);
        let peer = self.peers.of.get(member);
        let here = peer.is_some_and(|peer| peer.last.dir.as_ref() == Some(dir)) && self.live(member);
        wanted && here && self.takes_our_log(member)
    }

    /// Whether a member has written down that it takes log of this term only: it follows it, or is sealed for it.
    fn takes_our_log(&self, member: &MemberName) -> bool {
        let Some(term) = self.disk.led else { return false };
        let follows = self.peers.of.get(member).and_then(|peer| peer.last.following) == Some(term);
        let sealed = self.seals.get(member).is_some_and(|(seal, _)| seal.term == term);
        follows || sealed || self.mutation.is(Mutant::CountsStrays)
    }

    /// The standbys that could acknowledge lately.
    pub(super) fn able(&self) -> BTreeSet<DirId> {
        self.able_dirs().cloned().collect()
    }

    /// The same, to look at, in order.
    pub(super) fn able_dirs(&self) -> impl ExactSizeIterator<Item = &DirId> {
        self.lead.as_ref().map(|lead| lead.able.keys()).unwrap_or_default()
    }

    /// Whether what a standby has flushed is told by a walsender that counts by the setting: one that came before the promotion tells of
    /// the old timeline until the standby has gone over.
    fn gone_over(&self, seen: &PrimarySeen, replica: &super::ReplicaSeen) -> bool {
        // What the engine was promoted with, and not what is in force: for a moment that is not known.
        let first = self.served.first.as_ref().filter(|(term, _)| *term == seen.term);
        let named = first.is_some_and(|(_, rule)| rule.standbys.contains(&replica.dir));
        !named || replica.counts
    }

    fn finish_promotion(&mut self, record: &Record, seen: &PrimarySeen) {
        self.wait(Why::Promoting { term: record.term });
        if self.served.sync.is_none() && self.served.asked.is_none() {
            self.served.sync = Some(seen.sync.clone());
        }
        self.announce(record.term);
        let (Some(lead), Some(spec), Some(dir)) = (&self.lead, &self.spec, self.disk.dir.clone()) else {
            return;
        };
        let skips = self.mutation.is(Mutant::LeadsAtOnce);
        let flushed = seen
            .replicas
            .iter()
            .filter(|r| (r.flushed >= lead.point && self.gone_over(seen, r)) || skips)
            .map(|r| r.dir.clone());
        let flushed: BTreeSet<DirId> = flushed.collect();
        let able: BTreeSet<DirId> = self.able().intersection(&flushed).cloned().collect();
        let need = match spec.durability {
            Durability::Async => 0,
            _ => usize::from(spec.copies.saturating_sub(1)),
        };
        // Waiting longer would be in vain: a member with a tail of its own cannot follow before the record is `Leading`.
        let patient = self.now.since(lead.since) < self.timings.gather;
        if able.len() < need && patient {
            return self.wait(Why::WaitsForStandbys { have: able.len(), need });
        }
        let now = rule::first(Some(dir), spec.durability, spec.copies, &able);
        // Walsenders may release commits by what the engine was promoted with: the rule covers that, too. Mostly it is that.
        let rule = match &self.served.first {
            Some((term, hoped)) if *term == record.term => {
                let have = able.intersection(&hoped.standbys).count();
                let holds = have >= usize::from(hoped.quorum) && usize::from(hoped.quorum) >= need;
                if holds { hoped.clone() } else { rule::widen(hoped, &now) }
            }
            _ => now,
        };
        let have = able.intersection(&rule.standbys).count();
        if let Some(lead) = self.lead.as_mut().filter(|_| have >= usize::from(rule.quorum)) {
            lead.backed = Some(rule.clone());
        }
        self.write(Record {
            phase: Phase::Leading,
            rule,
            asynchronous: self.wants_async(),
            given_up: Vec::new(),
            handed: None,
            forsaken: match record.given_up.is_empty() {
                true => record.forsaken.clone(),
                false => record.given_up.clone(),
            },
            ..record.clone()
        });
    }

    /// Writes the record again now and then: for people, and to learn that this term is still in force.
    fn renew(&mut self, record: &Record) {
        let last = self.register.written.max(self.lead.as_ref().map(|lead| lead.since));
        if last.is_some_and(|at| self.now.since(at) >= self.timings.renew) {
            self.write(record.clone());
        }
    }

    /// Mutation only: a leader that has learnt of a newer term serves on.
    pub(super) fn goes_on(&mut self, record: &Record) {
        self.role = Role::Leader;
        let engine = Arc::clone(&self.engine);
        if let (Engine::Primary(seen), Some(_)) = (&*engine, &self.lead) {
            self.note_able(seen);
            self.keep_endpoints(seen);
        }
        self.wait(Why::Leading { term: record.term });
    }
}
