//! Who is fit for each Service. Only the leader says so; no operator is in the path.

use std::collections::BTreeSet;

use crate::failover::{MemberName, Rule, Term};

use super::Moment;
use super::effect::{Effect, Endpoints, SyncNames};
use super::event::PrimarySeen;
use super::machine::Instance;

/// What this member has made its engine and its Services be, so that only changes are asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Served {
    /// The rule that the last promotion was made with, and its term.
    pub first: Option<(Term, Rule)>,
    /// The setting in force, as far as is known.
    pub sync: Option<SyncNames>,
    /// The setting asked for and not in force yet.
    pub asked: Option<SyncNames>,
    /// Clients are let in.
    pub gate: bool,
    /// As last published.
    pub endpoints: Option<Endpoints>,
    /// As last asked for, and in which run of the engine.
    pub slots: Option<(Moment, BTreeSet<MemberName>)>,
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
        let near =
            |r: &&super::ReplicaSeen| r.streaming && seen.flushed.0.saturating_sub(r.replayed.0) <= spec.read_lag_bytes;
        let readers = seen.replicas.iter().filter(near).map(|r| self.member_of(&r.dir));
        let ro: BTreeSet<MemberName> = readers
            .filter(|m| self.live(m) && spec.members.iter().any(|s| s.name == *m))
            .collect();
        // Traffic that came here before the gate first opened stays.
        let coming = self.lead.as_ref().is_some_and(|lead| !lead.opened);
        let announced = self
            .served
            .endpoints
            .as_ref()
            .is_some_and(|e| e.term == seen.term && e.rw.is_some());
        let rw = (self.served.gate || (coming && announced)).then(|| self.me.clone());
        let r = ro.iter().chain(&rw).cloned().collect();
        let endpoints = Endpoints {
            term: seen.term,
            rw,
            ro,
            r,
        };
        // before the gate first opens there is nothing to say: the old leader's entry leads nowhere anyway
        let first = self.served.endpoints.as_ref().is_none_or(|e| e.term != seen.term);
        if (first && endpoints.rw.is_none()) || self.served.endpoints.as_ref() == Some(&endpoints) {
            return;
        }
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

    /// One slot for each other member; members that are gone lose theirs.
    pub(super) fn keep_slots(&mut self) {
        let Some(since) = self.lead.as_ref().map(|lead| lead.since) else {
            return;
        };
        let slots: BTreeSet<MemberName> = self.others().into_iter().collect();
        let wanted = (since, slots);
        if self.served.slots.as_ref() != Some(&wanted) {
            self.out.push(Effect::Slots(wanted.1.clone()));
            self.served.slots = Some(wanted);
        }
    }
}
