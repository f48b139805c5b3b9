//! Who is fit for each Service. Only the leader says so; no operator is in the path.

use std::collections::{BTreeSet, VecDeque};

use crate::failover::{MemberName, Rule, Term};

use super::Moment;
use super::effect::{Effect, Endpoints, SyncNames};
use super::event::{PrimarySeen, WorkResult};
use super::machine::Instance;
use super::walsenders::Views;

/// What this member has made its engine and its Services be, so that only changes are asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Served {
    /// The rule that the last promotion was made with, and its term.
    pub first: Option<(Term, Rule)>,
    /// The setting in force, as far as is known.
    pub sync: Option<SyncNames>,
    /// The setting asked for and not in force yet.
    pub asked: Option<SyncNames>,
    /// What walsenders may count by.
    pub views: Views,
    /// Clients are let in.
    pub gate: bool,
    /// Gate calls under way, in order: opening, or closing.
    pub gating: VecDeque<bool>,
    /// The term before whose promotion slots were asked for, and whether they are there.
    pub early: Option<(Term, bool)>,
    /// As last published.
    pub endpoints: Option<Endpoints>,
    /// As last asked for, in which run of the engine, and when.
    pub slots: Option<(Moment, BTreeSet<MemberName>, Moment)>,
    /// That is under way.
    pub slotting: bool,
    /// The last term whose promotion this process saw complete, or fail.
    pub promoted: Option<Term>,
    pub promotion_failed: Option<Term>,
    /// When a fence was begun that has not ended.
    pub fencing: Option<Moment>,
}

impl Instance {
    /// Publishes what changed. `-rw` is this member while its gate is open; `-ro` are replicas that are heard, stream, and
    /// have replayed to within `read_lag_bytes`; `-r` is both.
    pub(super) fn keep_endpoints(&mut self, seen: &PrimarySeen) {
        let Some(spec) = &self.spec else { return };
        // before the gate first opens there is nothing to say: the old leader's entry leads nowhere anyway
        let before = self.served.endpoints.as_ref().filter(|e| e.term == seen.term);
        if before.is_none() && !self.served.gate {
            return;
        }
        let near =
            |r: &&super::ReplicaSeen| r.streaming && seen.flushed.0.saturating_sub(r.replayed.0) <= spec.read_lag_bytes;
        let readers = seen
            .replicas
            .iter()
            .filter(near)
            .filter_map(|r| self.known_member(&r.dir));
        let mut ro: Vec<&MemberName> = readers
            .filter(|m| self.live(m) && spec.members.iter().any(|s| s.name == **m))
            .collect();
        ro.sort_unstable();
        ro.dedup();
        // Traffic that came here before the gate first opened stays.
        let coming = self.lead.as_ref().is_some_and(|lead| !lead.opened);
        let announced = before.is_some_and(|e| e.rw.is_some());
        let serves = self.served.gate || (coming && announced);
        if before.is_some_and(|e| e.rw.is_some() == serves && e.ro.iter().eq(ro.iter().copied())) {
            return;
        }
        let ro: BTreeSet<MemberName> = ro.into_iter().cloned().collect();
        let rw = serves.then(|| self.me.clone());
        let r = ro.iter().chain(&rw).cloned().collect();
        let endpoints = Endpoints {
            term: seen.term,
            rw,
            ro,
            r,
        };
        self.served.endpoints = Some(endpoints.clone());
        self.out.push(Effect::Publish(endpoints));
    }

    /// Moves the traffic to this member once it is promoted, before it may serve: proxies take that up in their own time,
    /// which then is not an outage. Until the gate opens clients are refused here, as they would be everywhere; not sooner,
    /// because their attempts would cost a promotion its time. Readers stay with those who will follow.
    pub(super) fn announce(&mut self, term: Term) {
        if self.served.endpoints.as_ref().is_some_and(|e| e.term == term) {
            return;
        }
        let first = self.served.first.iter().filter(|(of, _)| *of == term);
        let standbys = first.flat_map(|(_, rule)| &rule.standbys);
        let ro: BTreeSet<MemberName> = standbys.map(|dir| self.member_of(dir)).collect();
        let r = ro.iter().chain([&self.me]).cloned().collect();
        let endpoints = Endpoints {
            term,
            rw: Some(self.me.clone()),
            ro,
            r,
        };
        self.served.endpoints = Some(endpoints.clone());
        self.out.push(Effect::Publish(endpoints));
    }

    /// One slot for each other member; members that are gone lose theirs. Asked for again in this order:
    ///
    /// 1. After a start, and when members change.
    /// 2. Now and then while a member is not connected: its slot may have failed to be made, or have lost its log.
    pub(super) fn keep_slots(&mut self, seen: &PrimarySeen) {
        let Some(since) = self.lead.as_ref().map(|lead| lead.since) else {
            return;
        };
        let members = || self.spec.iter().flat_map(|spec| &spec.members).map(|m| &m.name);
        let others = || members().filter(|name| **name != self.me);
        let same = self.served.slots.as_ref().is_some_and(|(run, slots, at)| {
            let all = slots.len() <= seen.replicas.len();
            let recent = self.now.since(*at) < self.timings.reslot;
            *run == since && (all || recent) && slots.len() == others().count() && others().all(|m| slots.contains(m))
        });
        if !same && !self.served.slotting {
            self.served.slotting = true;
            let slots: BTreeSet<MemberName> = others().cloned().collect();
            self.out.push(Effect::Slots(slots.clone()));
            self.served.slots = Some((since, slots, self.now));
        }
    }

    pub(super) fn slotted(&mut self, result: &WorkResult) {
        self.served.slotting = false;
        self.served.early = match (self.served.early, result) {
            (Some((term, _)), WorkResult::Ok { .. }) => Some((term, true)),
            _ => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{POINT, comes_back, done, follower, hears, looks, opens, written};
    use super::super::{Engine, Event, Heartbeat, ReplicaSeen, SetSpec, Work};
    use super::*;
    use crate::failover::{DirId, Lsn};

    const BOUND: u64 = 1000;

    /// Who is behind `-ro` and `-r` of a leader whose standby "b" has replayed so much, and streams or not.
    fn readers(replayed: Lsn, streaming: bool) -> (BTreeSet<MemberName>, BTreeSet<MemberName>) {
        let mut leader = comes_back();
        let spec = leader.spec.clone().unwrap();
        let spec = SetSpec {
            read_lag_bytes: BOUND,
            ..spec
        };
        leader.step(Moment(12), Event::Spec(spec));
        for (at, name, own) in [(15, "b", "d2"), (16, "c", "d3")] {
            let dir = Some(DirId(own.into()));
            hears(&mut leader, at, name, Heartbeat { dir, ..follower() });
        }
        looks(&mut leader, 20, false);
        written(&mut leader, 30);
        let mut out = looks(&mut leader, 40, true);
        assert!(opens(&out), "{out:?}");
        out.extend(done(&mut leader, 45, Work::Gate));
        let Engine::Primary(mut seen) = (*leader.engine).clone() else {
            panic!("it leads");
        };
        let flushed = Lsn(POINT.0 + 5000);
        seen.flushed = flushed;
        let replica = |own: &str, replayed, streaming| ReplicaSeen {
            dir: DirId(own.into()),
            streaming,
            flushed,
            replayed,
            counts: true,
        };
        seen.replicas = vec![replica("d2", replayed, streaming), replica("d3", flushed, true)];
        out.extend(leader.step(Moment(50), Event::Engine(Engine::Primary(seen))));
        let published = out.iter().rev().find_map(|effect| match effect {
            Effect::Publish(endpoints) => Some((endpoints.ro.clone(), endpoints.r.clone())),
            _ => None,
        });
        published.unwrap_or_else(|| panic!("nothing is published: {out:?}"))
    }

    #[test]
    fn a_replica_beyond_the_bound_of_lag_gets_no_readers() {
        let names = |all: &[&str]| all.iter().map(|m| MemberName((*m).into())).collect::<BTreeSet<_>>();
        let at_the_bound = Lsn(POINT.0 + 5000 - BOUND);
        assert_eq!(
            readers(at_the_bound, true),
            (names(&["b", "c"]), names(&["a", "b", "c"]))
        );
        let beyond = Lsn(at_the_bound.0 - 1);
        assert_eq!(readers(beyond, true), (names(&["c"]), names(&["a", "c"])));
        assert_eq!(readers(at_the_bound, false), (names(&["c"]), names(&["a", "c"])));
    }
}
