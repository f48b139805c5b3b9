//! Handing over: the leader that stopped cleanly names its successor, and that takes over if it has all of the log (ADR 22).

use std::sync::Arc;

use crate::failover::{MemberName, Phase, Position, Record, Term};

use super::event::{Engine, StandbySeen};
use super::machine::{Instance, Run};
use super::mutant::Mutant;
use super::peers::Peer;
use super::register::Operation;
use super::switchover::Hand;

impl Instance {
    /// Names the target the leader of the next term: what an election would do in two writes of the record and a seal. The old term is dead
    /// from that write on, and its leader was stopped before.
    pub(super) fn name(&mut self, record: &Record, hand: Hand, end: Position) {
        let named = Record {
            term: record.term.next(),
            phase: Phase::Promoting,
            leader: hand.target,
            handed: Some(end),
            ..record.clone().having_done(hand.id)
        };
        if named.term > record.term {
            self.write(named);
        }
    }

    /// Whether its own write, which names the leader of this term, waits for its answer: the one named may have heard of it sooner.
    pub(super) fn is_naming(&self, term: Term) -> bool {
        let next = match &self.register.operation {
            Some(Operation::Write(next, _)) => Some((next.term, next.handed.is_some())),
            _ => None,
        };
        self.hand.is_some() && next == Some((term, true))
    }

    /// Whether this candidate has what was handed over to it, in this order:
    ///
    /// 1. One that was elected has proved that.
    /// 2. It takes log from nobody first, so that nothing can be added.
    /// 3. Its log ends where its predecessor's does. Else somebody has to be elected: the predecessor knows more.
    pub(super) fn has_what_was_handed(&mut self, record: &Record) -> bool {
        let Some(end) = record.handed else { return true };
        if self.disk.led == Some(record.term) {
            return true;
        }
        let engine = Arc::clone(&self.engine);
        let Engine::Standby(seen) = &*engine else { return false };
        let certain = self.following == 0 && !seen.receiving && self.run == Run::Standby { upstream: None };
        if !certain && !self.mutation.is(Mutant::SealsWhileReceiving) {
            if matches!(&self.run, Run::Standby { upstream: Some(_) }) && !self.tail_comes(record, seen) {
                self.set_upstream(None);
                self.make_slots_early(record);
            }
            return false;
        }
        if self.position() == end || self.mutation.is(Mutant::TakesWhatItHas) {
            return true;
        }
        self.open(record, self.me.clone(), None);
        false
    }

    /// Whether this is the leader that has handed over, to one that does not lead yet.
    pub(super) fn has_handed(&self, record: &Record) -> bool {
        record.handed.is_some() && record.phase == Phase::Promoting && record.rule.leader == self.disk.dir
    }

    /// Whether a leader that has handed over leaves it to others to back the new one: they are here already, and to start takes the
    /// machine's time just when clients wait.
    pub(super) fn others_back(&self, record: &Record) -> bool {
        let mine = self.has_handed(record);
        let soon = self.now.since(self.watch_since) < self.timings.reseal;
        if !mine || !soon {
            return false;
        }
        let backs = |(member, peer): (&MemberName, &Peer)| {
            let named = peer
                .last
                .dir
                .as_ref()
                .is_some_and(|dir| record.rule.standbys.contains(dir));
            *member != record.leader && named && self.live(member)
        };
        let have = self.peers.of.iter().filter(|peer| backs(*peer)).count();
        let need = self.spec.as_ref().map_or(0, |spec| spec.copies.saturating_sub(1));
        have >= usize::from(need)
    }

    /// Whether the last of a stopped leader's log may still be on its way: its walsenders send it after it is told where that ends.
    pub(super) fn tail_comes(&self, record: &Record, seen: &StandbySeen) -> bool {
        let end = record.handed.filter(|_| record.phase == Phase::Promoting);
        let lacks = end.is_some_and(|end| seen.flushed < end.lsn);
        lacks && seen.receiving && self.now.since(self.watch_since) < self.timings.reseal
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{
        POINT, comes_back, dir, follower, follows, hears, looks, persists, record, standby, written,
    };
    use super::super::{
        Command, Effect, Event, Heartbeat, HowToStop, Moment, RecordSeen, Role, SetSpec, Version, VolumeSeen, Work,
        WorkResult,
    };
    use super::*;
    use crate::failover::Lsn;

    /// "b" is named by "a", whose log ends there, and takes log from nobody then; its own ends at `POINT`.
    fn named(ends: Lsn) -> Vec<Effect> {
        let mut b = follows();
        let lsn = ends;
        let record = Record {
            term: Term(2),
            phase: Phase::Promoting,
            leader: MemberName("b".into()),
            handed: Some(Position { term: Term(1), lsn }),
            ..record()
        };
        let version = Version("2".into());
        let out = b.step(Moment(40), Event::Record(RecordSeen::Found { record, version }));
        assert!(persists(&out).is_none(), "log may still come: {out:?}");
        let out = b.step(Moment(50), standby(POINT, true));
        assert!(persists(&out).is_none(), "log may still come: {out:?}");
        b.step(Moment(70), standby(POINT, false))
    }

    #[test]
    fn one_that_has_all_of_its_predecessors_log_leads_by_its_word() {
        let out = named(POINT);
        assert_eq!(persists(&out).and_then(|disk| disk.led), Some(Term(2)), "{out:?}");
    }

    #[test]
    fn one_that_lacks_some_of_it_has_somebody_elected() {
        for ends in [POINT.0 + 1, POINT.0 - 1] {
            let out = named(Lsn(ends));
            assert!(persists(&out).is_none(), "{out:?}");
            let opened = out.iter().find_map(|effect| match effect {
                Effect::WriteRecord { record, .. } => Some(record),
                _ => None,
            });
            let opened = opened.expect("an election");
            assert_eq!(
                (opened.term, opened.phase, opened.handed),
                (Term(3), Phase::Sealing, None)
            );
        }
    }

    fn told(member: &mut Instance, at: u64, work: Work, volume: Option<VolumeSeen>) -> Vec<Effect> {
        let result = WorkResult::Ok { volume };
        member.step(Moment(at), Event::Done { work, result })
    }

    fn starts(out: &[Effect]) -> bool {
        out.iter().any(|effect| matches!(effect, Effect::Start(_)))
    }

    /// "a", which leads and whom a person asks to hand over to "b", has stopped.
    fn stopped() -> (Instance, Vec<Effect>) {
        let mut a = comes_back();
        for (at, name, own) in [(15, "b", "d2"), (16, "c", "d3")] {
            let own = Some(dir(own));
            hears(&mut a, at, name, Heartbeat { dir: own, ..follower() });
        }
        looks(&mut a, 20, true);
        written(&mut a, 30);
        let id = "one".to_owned();
        let to = Some(MemberName("b".into()));
        let command = Some(Command::Switchover { id, to });
        let generation = 2;
        let spec = a.spec.clone().unwrap();
        let spec = SetSpec {
            generation,
            command,
            ..spec
        };
        let out = a.step(Moment(50), Event::Spec(spec));
        let stop = Effect::Stop(HowToStop::Clean);
        assert!(out.contains(&stop), "{out:?}");
        let volume = VolumeSeen {
            clean: true,
            control: Some(END),
            ..a.volume.clone().unwrap()
        };
        let out = told(&mut a, 70, Work::Stop, Some(volume));
        (a, out)
    }

    const END: Position = Position {
        term: Term(1),
        lsn: Lsn(120),
    };

    #[test]
    fn a_leader_that_has_stopped_names_its_successor_and_where_its_log_ends() {
        let (mut a, out) = stopped();
        let named = out.iter().find_map(|effect| match effect {
            Effect::WriteRecord { record, .. } => Some(record.clone()),
            _ => None,
        });
        let named = named.expect("its write of the record");
        assert_eq!(
            (named.term, named.phase, named.handed),
            (Term(2), Phase::Promoting, Some(END))
        );
        assert_eq!(
            (named.leader, named.last_command),
            (MemberName("b".into()), Some("one".into()))
        );
        // Its successor has heard of it sooner than it has its answer.
        let candidate = Heartbeat {
            term: Term(2),
            role: Role::Candidate,
            ..follower()
        };
        let out = hears(&mut a, 80, "b", candidate);
        assert!(
            !starts(&out) && persists(&out).is_none(),
            "nobody is being elected: {out:?}"
        );
        assert!(!starts(&written(&mut a, 90)), "\"c\" backs the new leader");
        let out = a.step(Moment(700), Event::Tick);
        assert!(starts(&out), "not for ever: {out:?}");
    }

    #[test]
    fn one_that_is_asked_to_end_stays_until_its_successor_leads() {
        let (mut a, _) = stopped();
        let exits = |out: &[Effect]| out.iter().any(|effect| matches!(effect, Effect::Exit));
        let mut out = a.step(Moment(75), Event::Shutdown);
        out.extend(written(&mut a, 90));
        out.extend(a.step(Moment(200), Event::Tick));
        assert!(!exits(&out), "its successor may lack something: {out:?}");
        let (record, _) = a.register.known.clone().unwrap();
        let record = Record {
            phase: Phase::Leading,
            handed: None,
            ..(*record).clone()
        };
        let version = Version("91".into());
        let out = a.step(Moment(300), Event::RecordHint(RecordSeen::Found { record, version }));
        assert!(exits(&out), "{out:?}");
    }
}
