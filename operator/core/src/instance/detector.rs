//! Whether the leader is lost, and whether it is this member's turn to say so.

use crate::failover::{DirId, MemberName, Phase, Record, proof};

use super::event::Engine;
use super::machine::Instance;
use super::message::Role;
use super::{Moment, Why};

impl Instance {
    /// When this process began to know anything.
    pub(super) fn started_at(&self) -> Moment {
        self.beat.started.unwrap_or(self.now)
    }

    /// Whether this member hears a healthy leader of the record's term.
    pub(super) fn hears_leader(&self) -> bool {
        let Some(record) = self.record() else { return false };
        if record.phase == Phase::Sealing || self.called > record.term {
            return false;
        }
        if record.leader == self.me {
            return matches!(self.role, Role::Leader | Role::Candidate);
        }
        let led = self.peers.of.get(&record.leader).and_then(|peer| peer.led);
        let heard = led.is_some_and(|(term, at)| term == record.term && self.now.since(at) <= self.timings.detect);
        heard && !self.leader_says_dead(record) && !self.leader_gone(record)
    }

    /// Nobody listens where the leader was heard a moment ago: its agent, and with it its engine, is gone. It says no more than
    /// silence does, only sooner: a network policy may refuse, too.
    fn leader_gone(&self, record: &Record) -> bool {
        let refused = self.peers.of.get(&record.leader).and_then(|peer| peer.refused);
        refused.is_some_and(|at| at >= self.watch_since)
    }

    /// The leader's own agent says that its engine is down: nobody waits for a time-out.
    fn leader_says_dead(&self, record: &Record) -> bool {
        self.peers.of.get(&record.leader).is_some_and(|peer| {
            let since = peer.heard >= self.watch_since && self.now.since(peer.heard) <= self.timings.detect;
            since && !peer.last.healthy && !matches!(peer.last.role, Role::Leader | Role::Candidate)
        })
    }

    /// Opens an election if the leader is lost, and tells if that has been in vain for long, in this order:
    ///
    /// 1. It says itself that its engine is down, its machine refuses connections, or it was not heard healthy for the time of detection.
    /// 2. Only a member that could itself be sealed, or has something to put back, opens one, and only when those heard lately could prove it, or a person
    ///    has given up those that are not there.
    /// 3. While a peer says that it hears the leader, one cut link is the likelier reason (unless the leader itself said so).
    /// 4. Members take turns, so that two seldom open at once; if they do, one write wins.
    pub(super) fn watch_leader(&mut self, record: &Record) -> Option<Why> {
        let dead = self.leader_says_dead(record);
        let led = self
            .peers
            .of
            .get(&record.leader)
            .and_then(|peer| peer.led)
            .filter(|(t, _)| *t == record.term);
        let last = led.map_or(self.watch_since, |(_, at)| at.max(self.watch_since));
        let silent = self.now.since(last) > self.timings.detect || self.leader_gone(record);
        if !dead && !silent {
            self.lost_since = None;
            return None;
        }
        let since = *self.lost_since.get_or_insert(self.now);
        // What was set aside can be put back.
        let could = !self.whole() && !self.disk.aside.is_empty() && matches!(*self.engine, Engine::Down { .. });
        let able = could || (self.whole() && matches!(*self.engine, Engine::Standby(_)));
        if !able || self.shutdown.is_some() {
            return None;
        }
        let accepted = self.accepted();
        let lost = accepted.as_ref().map_or(&record.given_up, |accepted| &accepted.without);
        if !self.could_prove(record, lost) {
            // A leader that comes back soon needs nobody's proof.
            let long = self.now.since(since) > self.timings.lease;
            return long.then(|| self.proof_impossible(record));
        }
        let heard_by = |(name, peer): (&MemberName, &super::peers::Peer)| {
            *name != record.leader && self.live(name) && peer.last.hears_leader && peer.last.term == record.term
        };
        if !dead && self.peers.of.iter().any(heard_by) {
            return None;
        }
        if self.now.since(since) < self.turn(record) {
            return None;
        }
        let opened = match accepted {
            Some(accepted) => self.open_accepting(record, accepted),
            None => self.open(record, self.me.clone(), None),
        };
        opened.then(|| Why::ElectionOpened {
            term: record.term.next(),
            leader: record.leader.clone(),
        })
    }

    /// Whose return would let the members elect.
    pub(super) fn proof_impossible(&self, record: &Record) -> Why {
        let here = |dir: &DirId| {
            let heard = |(m, peer): (&MemberName, &super::peers::Peer)| {
                let last = &peer.last;
                let mut has = last.dir.iter().chain(&last.gone).chain(&last.beside);
                self.live(m) && has.any(|had| had == dir)
            };
            self.disk.dir.as_ref() == Some(dir) || self.beside().contains(dir) || self.peers.of.iter().any(heard)
        };
        self.unproved(proof::missing(&record.rule, here, &record.given_up))
    }

    /// The same by members. One that is here without the directory has nothing to come back with.
    pub(super) fn unproved(&self, mut missing: proof::Missing) -> Why {
        let comes = |dir: &DirId| {
            let member = self.member_of(dir);
            let has = |peer: &super::peers::Peer| peer.last.dir.as_ref() == Some(dir);
            let lacks = self.live(&member) && !self.peers.of.get(&member).is_some_and(has);
            member != self.me && !lacks
        };
        missing.leader = missing.leader.filter(comes);
        missing.standbys.retain(comes);
        let members = |dirs: &[DirId]| dirs.iter().map(|dir| self.member_of(dir)).collect();
        let enough = missing.standbys.len() >= missing.of_them;
        Why::ProofImpossible {
            leader: missing.leader.as_ref().map(|dir| self.member_of(dir)),
            standbys: if enough { members(&missing.standbys) } else { Vec::new() },
            of_them: missing.of_them,
        }
    }

    /// How long this member lets others go first.
    fn turn(&self, record: &Record) -> u64 {
        let others = self
            .spec
            .iter()
            .flat_map(|spec| &spec.members)
            .filter(|m| m.name != record.leader);
        let place = others.take_while(|m| m.name != self.me).count();
        let jitter = self.seed.checked_rem(self.timings.stagger / 4).unwrap_or(0);
        let place = u64::try_from(place).unwrap_or(0);
        if place == 0 {
            0
        } else {
            self.timings.stagger.saturating_mul(place).saturating_add(jitter)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{dir, follower, follows, hears, leader, writes};
    use super::super::{Effect, Event, Heartbeat, Instance};
    use super::*;

    /// The third member's word.
    fn third(hears_leader: bool) -> Heartbeat {
        Heartbeat {
            dir: Some(dir("d3")),
            hears_leader,
            ..follower()
        }
    }

    fn refused(member: &mut Instance, at: u64) -> Vec<Effect> {
        let by = MemberName("a".into());
        member.step(Moment(at), Event::Refused { by })
    }

    #[test]
    fn a_leader_whose_machine_refuses_connections_is_lost_at_once() {
        let mut b = follows();
        assert!(
            !writes(&hears(&mut b, 40, "c", third(false))),
            "it hears the leader itself"
        );
        let out = refused(&mut b, 50);
        assert!(writes(&out), "no election: {out:?}");
    }

    #[test]
    fn a_refusal_opens_no_election_while_another_member_hears_the_leader() {
        let mut b = follows();
        hears(&mut b, 40, "c", third(true));
        let out = refused(&mut b, 50);
        assert!(!writes(&out), "one link is turned away: {out:?}");
        let says_so = |e: &Effect| matches!(e, Effect::Send { message: super::super::Message::Heartbeat(beat), .. } if !beat.hears_leader);
        assert!(out.iter().any(says_so), "the others are told at once: {out:?}");
        let out = hears(&mut b, 60, "c", third(false));
        assert!(writes(&out), "no election: {out:?}");
    }

    #[test]
    fn a_word_of_the_leader_ends_a_refusal() {
        let mut b = follows();
        hears(&mut b, 40, "c", third(true));
        refused(&mut b, 50);
        hears(&mut b, 60, "a", leader());
        let out = hears(&mut b, 70, "c", third(false));
        assert!(!writes(&out), "the leader is there: {out:?}");
    }

    #[test]
    fn a_refusal_where_nobody_was_heard_for_long_says_nothing() {
        let mut b = follows();
        let mut out = Vec::new();
        // The other one hears the leader for longer than this member does.
        for at in (100..2_400).step_by(100) {
            out = hears(&mut b, at, "c", third(true));
        }
        assert!(!writes(&out));
        refused(&mut b, 2_400);
        assert!(
            b.peers.of.values().all(|peer| peer.refused.is_none()),
            "its address may be another's by now"
        );
    }
}
