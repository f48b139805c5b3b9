//! Coming early: standbys whose logs end where the candidate's does come to it while it is still being promoted (ADR 20).

use crate::failover::{DirId, Phase, Position, Record, Rule};

use super::effect::Effect;
use super::event::{Engine, StandbySeen};
use super::machine::Instance;
use super::message::Role;
use super::mutant::Mutant;

/// Whether a candidate makes this directory's slot before it is promoted: the old rule names it, or named nobody.
pub(super) fn comes_early(rule: &Rule, dir: &DirId) -> bool {
    rule.standbys.is_empty() || rule.standbys.contains(dir)
}

impl Instance {
    /// Whether the candidate, by its seal or by what was handed to it, ends its log where this member's ends, and that is where a record ends: the promotion leaves
    /// nothing of a record that is there in part, and PostgreSQL lets a standby that has that part follow all the same.
    pub(super) fn ends_alike(&self, record: &Record, own: Position, seen: &StandbySeen) -> bool {
        if seen.replayed != seen.flushed && !self.mutation.is(Mutant::TakesTorn) {
            return false;
        }
        let seals = self.seals.get(&record.leader).map(|(seal, _)| seal);
        let seal = seals.filter(|seal| seal.term == record.term && !seal.gone);
        let Some(at) = record.handed.or(seal.map(|seal| seal.position)) else {
            return false;
        };
        let behind = at.term == own.term && own.lsn <= at.lsn && self.mutation.is(Mutant::AttachesBehind);
        record.phase == Phase::Promoting && (at == own || behind)
    }

    /// Whether the candidate, not promoted yet, is ready to be followed.
    pub(super) fn offered(&self, record: &Record) -> bool {
        let Some(peer) = self.peers.of.get(&record.leader) else {
            return false;
        };
        let candidate = peer.last.role == Role::Candidate && peer.last.term == record.term;
        let slot = self.disk.dir.as_ref().is_some_and(|dir| comes_early(&record.rule, dir));
        candidate && peer.last.ready && slot && self.live(&record.leader)
    }

    /// A candidate makes the slots of those that may come while it is promoted. Each takes several syncs of the disk: the others' are
    /// made later.
    pub(super) fn make_slots_early(&mut self, record: &Record) {
        let term = record.term;
        if self.served.early.is_some_and(|(of, _)| of == term) || self.served.slotting {
            return;
        }
        self.served.early = Some((term, false));
        self.served.slotting = true;
        let others = self.others().into_iter();
        let first = others.filter(|m| {
            let dir = self.peers.of.get(m).and_then(|peer| peer.last.dir.as_ref());
            dir.is_some_and(|dir| comes_early(&record.rule, dir))
        });
        let first = first.collect();
        self.out.push(Effect::Slots(first));
    }

    /// Whether this candidate may be followed before it is promoted: it has slots, and its log ends with a whole record, where its seal
    /// says. Of a record that is there in part the promotion leaves nothing; but whoever came before would have told that it is flushed,
    /// and its walsender remembers that for a moment on the new timeline.
    pub(super) fn ready(&self) -> bool {
        let Some(record) = self.record() else { return false };
        let term = record.term;
        let candidate = self.role == Role::Candidate && self.served.early == Some((term, true));
        let seal = self.seals.get(&self.me).map(|(seal, _)| seal.position.lsn);
        let seal = record.handed.map(|end| end.lsn).or(seal);
        let torn = |seen: &StandbySeen| seen.replayed != seen.flushed && !self.mutation.is(Mutant::TakesTorn);
        let whole = |seen: &StandbySeen| !torn(seen) && !seen.receiving && seal == Some(seen.flushed);
        candidate && matches!(&*self.engine, Engine::Standby(seen) if whole(seen))
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{POINT, dir, done, follower, follows, hears, persists, says, standby};
    use super::super::{Event, Heartbeat, Message, Moment, SealAnswer, Work};
    use super::*;
    use crate::failover::{Lsn, MemberName, Term};

    /// "c" is sealed for term 2.
    fn seals(member: &mut Instance, at: u64, ends: Lsn) {
        let position = Position {
            term: Term(1),
            lsn: ends,
        };
        let seal = SealAnswer {
            term: Term(2),
            dir: dir("d3"),
            position,
            gone: false,
            led: None,
            beside: Vec::new(),
        };
        let (from, message) = (MemberName("c".into()), Message::Sealed(seal));
        member.step(Moment(at), Event::Message { from, message });
    }

    /// "b", sealed for term 2 at `POINT`; "c" is sealed where it is said, and was elected.
    fn elected(ends: Lsn) -> (Instance, Vec<Effect>) {
        let mut b = follows();
        says(&mut b, 40, Phase::Sealing, "c");
        done(&mut b, 50, Work::Follow);
        let out = b.step(Moment(60), standby(POINT, false));
        assert!(
            persists(&out).is_some_and(|disk| disk.sealed == Some(Term(2))),
            "{out:?}"
        );
        done(&mut b, 70, Work::Persist);
        seals(&mut b, 80, ends);
        let out = says(&mut b, 90, Phase::Promoting, "c");
        (b, out)
    }

    fn attaches(out: &[Effect]) -> bool {
        out.iter().any(|effect| matches!(effect, Effect::Follow(Some(_))))
    }

    /// The candidate's word, before its engine writes the new term.
    fn candidate(ready: bool) -> Heartbeat {
        Heartbeat {
            term: Term(2),
            role: Role::Candidate,
            dir: Some(dir("d3")),
            following: Some(Term(2)),
            ready,
            address: Some("10.0.0.3".into()),
            ..follower()
        }
    }

    #[test]
    fn a_member_whose_log_ends_where_the_candidates_does_attaches_before_the_promotion_but_not_before_there_is_a_slot()
    {
        let (mut b, out) = elected(POINT);
        let disk = persists(&out).expect("what it follows is written down");
        assert_eq!((disk.following, disk.sealed), (Some(Term(2)), None));
        assert!(!attaches(&out), "not before that is on disk: {out:?}");
        assert!(!attaches(&hears(&mut b, 95, "c", candidate(false))));
        assert!(!attaches(&done(&mut b, 100, Work::Persist)), "no slot is there");
        assert!(attaches(&hears(&mut b, 110, "c", candidate(true))));
    }

    #[test]
    fn a_member_whose_log_ends_in_the_midst_of_a_record_waits_for_the_promotion() {
        let mut b = follows();
        let torn = |receiving| {
            let at = |flushed, replayed| {
                let Event::Engine(Engine::Standby(seen)) = standby(flushed, receiving) else {
                    unreachable!()
                };
                Event::Engine(Engine::Standby(StandbySeen { replayed, ..seen }))
            };
            at(POINT, Lsn(POINT.0 - 1))
        };
        says(&mut b, 40, Phase::Sealing, "c");
        done(&mut b, 50, Work::Follow);
        b.step(Moment(60), torn(false));
        done(&mut b, 70, Work::Persist);
        seals(&mut b, 80, POINT);
        let out = says(&mut b, 90, Phase::Promoting, "c");
        assert!(
            persists(&out).is_none(),
            "of that record the promotion leaves nothing: {out:?}"
        );
        let out = hears(&mut b, 95, "c", candidate(true));
        assert!(persists(&out).is_none() && !attaches(&out), "{out:?}");
    }

    #[test]
    fn a_member_that_lacks_some_of_the_candidates_log_waits_for_the_promotion() {
        let (mut b, out) = elected(Lsn(POINT.0 + 1));
        assert!(persists(&out).is_none(), "{out:?}");
        let out = hears(&mut b, 110, "c", candidate(true));
        assert!(
            persists(&out).is_none() && !attaches(&out),
            "it could not tell whose records it takes: {out:?}"
        );
        let promoted = Heartbeat {
            position: Position {
                term: Term(2),
                lsn: Lsn(POINT.0 + 2),
            },
            history: vec![(Term(1), Lsn(POINT.0 + 1))],
            ..candidate(false)
        };
        let out = hears(&mut b, 120, "c", promoted);
        assert!(
            persists(&out).is_some_and(|disk| disk.following == Some(Term(2))),
            "{out:?}"
        );
        assert!(attaches(&done(&mut b, 130, Work::Persist)));
    }
}
