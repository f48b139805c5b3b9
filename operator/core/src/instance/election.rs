//! Opening an election, and being elected.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::failover::{DirId, Election, MemberName, Phase, Record, Rule, Seal, Term, position, proof};

use super::Moment;
use super::machine::Instance;
use super::message::Role;
use super::mutant::Mutant;
use super::spec::{Command, Durability};

/// A loss that a person accepts.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    /// The request.
    id: String,
    /// The directories given up.
    pub without: Vec<DirId>,
}

impl Instance {
    /// Opens an election: the next term, the rule kept. From the moment of the write the old term is dead.
    pub(super) fn open(&mut self, record: &Record, prefer: MemberName, command: Option<String>) -> bool {
        let next = Record {
            term: record.term.next(),
            phase: Phase::Sealing,
            leader: prefer,
            handed: None,
            ..record.clone().having_done(command)
        };
        next.term > record.term && self.write(next)
    }

    /// The same, for a person who accepts that what only some directories hold is lost.
    pub(super) fn open_accepting(&mut self, record: &Record, accepted: Accepted) -> bool {
        let record = Record {
            given_up: accepted.without,
            ..record.clone()
        };
        self.open(&record, self.me.clone(), Some(accepted.id))
    }

    /// The loss that a person accepts, if the record is still as that person saw it: nobody has led since, or lives on
    /// unknown to that person.
    pub(super) fn accepted(&self) -> Option<Accepted> {
        let (record, version) = self.register.known.as_ref()?;
        match self.spec.as_ref()?.command.as_ref()? {
            Command::FailoverAcceptingLoss { id, seen, without }
                if seen == version
                    || (self.mutation.is(Mutant::AcceptsAnyVersion) && record.last_command.as_ref() != Some(id)) =>
            {
                Some(Accepted {
                    id: id.clone(),
                    without: without.clone(),
                })
            }
            _ => None,
        }
    }

    /// In an election that cannot be proved: what a person has given up is written down in the record. Whoever is elected
    /// then proves by that, whether it has heard the person or not.
    fn accept_loss(&mut self, record: &Record) {
        if let Some(accepted) = self.accepted() {
            self.write(Record {
                given_up: accepted.without,
                ..record.clone().having_done(Some(accepted.id))
            });
        }
    }

    /// Takes the election if it is this member's to take, in this order:
    ///
    /// 1. No proof, no election; say whose return would prove.
    /// 2. Where a person has accepted a loss, the proof may need nobody: who is there and has a directory seals first.
    /// 3. A live member that is further ahead, or preferred among equals, goes first.
    /// 4. The conditional write decides.
    pub(super) fn elect(&mut self, record: &Record) {
        let term = record.term;
        let mut seals = self.seals_of(term);
        let lost = self.counted_out(record, &mut seals);
        let rule = self.rule_to_prove(&record.rule);
        let beside = self.seals_beside(term);
        let election = Election {
            rule: &rule,
            seals: &seals,
            beside: &beside,
            prefer: &record.leader,
            lost: &lost,
        };
        let live = |m: &MemberName| {
            let heard = self
                .seals
                .get(m)
                .is_some_and(|(seal, at)| !seal.gone && self.now.since(*at) <= self.timings.live);
            heard && !self.mutation.is(Mutant::ElectsBehind)
        };
        let proved = election.proves_for(&self.me)
            || (self.mutation.is(Mutant::ElectsBehind) && proof::proves(&rule, seals.values(), &lost))
            || (self.mutation.is(Mutant::LsnOnly) && election.proves_for(&self.me))
            || self.async_allows(record);
        if !proved {
            // seals are still on their way
            if self.now.since(self.watch_since) < self.timings.reseal {
                return;
            }
            let missing = election.missing();
            self.wait(self.unproved(missing));
            return self.accept_loss(record);
        }
        if !record.given_up.is_empty() && self.waits_for_everybody(term) {
            return;
        }
        if !election.ranks_first(&self.me, live) || self.leaves_election_to_target() {
            return;
        }
        let rule = if self.mutation.is(Mutant::ForgetsOldRule) {
            Rule {
                leader: self.disk.dir.clone(),
                ..Rule::default()
            }
        } else {
            record.rule.clone()
        };
        let elected = Record {
            phase: Phase::Promoting,
            leader: self.me.clone(),
            rule,
            ..record.clone()
        };
        // While that is on its way: the disk takes as long.
        if self.write(elected) {
            self.make_slots_early(record);
        }
    }

    /// Whether the seal of a member that is heard, and has a directory, may still come. One that cannot seal holds nobody up for long.
    fn waits_for_everybody(&self, term: Term) -> bool {
        let waited = self.now.since(self.watch_since);
        let sealed = |m: &MemberName| self.seals.get(m).is_some_and(|(seal, _)| seal.term == term);
        let mut heard = self
            .peers
            .of
            .iter()
            .filter(|(m, peer)| self.live(m) && peer.last.dir.is_some());
        let late = heard.any(|(m, _)| !sealed(m));
        waited < self.timings.reseal || (late && waited < self.timings.live.saturating_mul(2))
    }

    /// Whether the last leader was heard shortly before `at`.
    fn fresh(&self, at: Moment) -> bool {
        let slack = self.timings.detect.saturating_mul(2);
        self.peers.farthest.is_some() && at.since(self.peers.farthest_at) <= slack
    }

    /// The directories that a person has given up. (A deliberate bug counts them as sealed.)
    fn counted_out(&self, record: &Record, seals: &mut BTreeMap<MemberName, Seal>) -> Vec<DirId> {
        if !self.mutation.is(Mutant::GivenUpCounts) {
            return record.given_up.clone();
        }
        for dir in &record.given_up {
            seals.entry(self.member_of(dir)).or_insert_with(|| Seal {
                dir: dir.clone(),
                position: Default::default(),
                led: Some(record.term),
            });
        }
        Vec::new()
    }

    fn rule_to_prove<'a>(&self, rule: &'a Rule) -> Cow<'a, Rule> {
        let mut rule = Cow::Borrowed(rule);
        if self.mutation.is(Mutant::ProofOffByOne) {
            let rule = rule.to_mut();
            rule.quorum = rule.quorum.saturating_add(1);
        }
        if self.mutation.is(Mutant::StrangersCount) {
            let rule = rule.to_mut();
            let size = rule.standbys.len();
            let strangers = self.seals.values().map(|(seal, _)| seal.dir.clone());
            let counted: Vec<DirId> = strangers
                .filter(|dir| !rule.standbys.contains(dir))
                .take(size)
                .collect();
            for dir in counted {
                rule.standbys.pop_last();
                rule.standbys.insert(dir);
            }
        }
        rule
    }

    /// `Async` has no quorum that could prove. A member may be elected, in this order:
    ///
    /// 1. Only while the leader took `Async` for its wish, by the record, and it is this member's as well, and the rule in force
    ///    acknowledged alone.
    /// 2. Only once the old leader is known dead: it has been heard in this term as one whose engine is no primary any more
    ///    (not as one that is still stopping it), or nothing was heard of it for the time of its lease.
    /// 3. Only within `maximum_lag_bytes` of where it was last heard to be, which must have been shortly before the election
    ///    was opened. Not heard means not known. So the loss is bound by that, and by what the old leader wrote between its
    ///    last heartbeat and the end of its term: the time of detection or, cut off from the record too, of the fence.
    pub(super) fn async_allows(&self, record: &Record) -> bool {
        let Some(spec) = &self.spec else { return false };
        let Some(old) = &record.rule.leader else { return false };
        if !self.may_lose(record) {
            return false;
        }
        let leader = self.member_of(old);
        let peer = self.peers.of.get(&leader);
        let no_primary = |role| matches!(role, Role::Sealed | Role::Replica | Role::Preparing);
        let refused = |p: &super::peers::Peer| p.refused.is_some() && self.mutation.is(Mutant::AsyncByRefusal);
        let knows = peer.is_some_and(|p| (p.last.term >= record.term && no_primary(p.last.role)) || refused(p));
        let silent = self
            .now
            .since(peer.map_or(self.watch_since, |p| p.heard).max(self.started_at()))
            > self.timings.lease;
        if !(knows || silent || self.mutation.is(Mutant::AsyncWithoutLease)) {
            return false;
        }
        let Some((term, far)) = self.peers.farthest.filter(|_| self.fresh(self.watch_since)) else {
            return false;
        };
        // Positions of different terms cannot be subtracted: a tail of its own is not what the leader wrote.
        let own = self.position();
        let history = peer.map_or(&[][..], |p| p.last.history.as_slice());
        if own.term != term && !position::on_history(own, term, history) {
            return false;
        }
        // What it says when it leads no more is its word, too; if it is there, it can be elected with all of its log.
        let says = peer.filter(|p| p.last.dir.as_ref() == Some(old) && p.last.position.term == term);
        let far = says.map_or(far, |p| far.max(p.last.position.lsn));
        let behind = far.0.saturating_sub(own.lsn.0);
        behind <= spec.maximum_lag_bytes || self.mutation.is(Mutant::AsyncWithoutBound)
    }

    /// Whether the members heard lately could prove an election: if not, to open one would only end a term.
    pub(super) fn could_prove(&self, record: &Record, lost: &[DirId]) -> bool {
        let mine = self.disk.dir.iter();
        let peers = || self.peers.of.iter().filter(|(m, _)| self.live(m));
        // A leader that is there but down starts again in place sooner than it could be elected by its own directory alone.
        let theirs = peers()
            .filter(|(m, _)| **m != record.leader)
            .filter_map(|(_, p)| p.last.dir.as_ref());
        // A directory that is no more led nothing that it could prove.
        let gone = peers().flat_map(|(_, p)| p.last.gone.iter().chain(&p.last.beside));
        let gone = gone.chain(self.beside_dirs()).map(|dir| (dir, false));
        let seals = mine.chain(theirs).map(|dir| (dir, true)).chain(gone);
        let own_async = self.may_lose(record) && record.rule.leader.is_some();
        own_async || proof::proven_by(&self.rule_to_prove(&record.rule), seals, lost)
    }

    /// Whether this member's wish is `Async`.
    pub(super) fn wants_async(&self) -> bool {
        self.spec.as_ref().is_some_and(|s| s.durability == Durability::Async)
    }

    /// Whether an election may do without proof.
    fn may_lose(&self, record: &Record) -> bool {
        let by_wish = self.mutation.is(Mutant::AsyncByWish) && record.rule.quorum == 0;
        self.wants_async() && (record.acknowledges_alone() || by_wish)
    }
}
