//! Opening an election, and being elected.

use crate::failover::{DirId, Election, MemberName, Phase, Record, Rule, Seal, position, proof};

use super::machine::Instance;
use super::message::Role;
use super::mutant::Mutant;
use super::spec::{Command, Durability};
use super::{Moment, Why};

impl Instance {
    /// Opens an election: the next term, the rule kept. From the moment of the write the old term is dead.
    pub(super) fn open(&mut self, record: &Record, prefer: MemberName, command: Option<String>) -> bool {
        let next = Record {
            term: record.term.next(),
            phase: Phase::Sealing,
            leader: prefer,
            rule: record.rule.clone(),
            system_identifier: record.system_identifier,
            last_command: command.or_else(|| record.last_command.clone()),
        };
        next.term > record.term && self.write(next)
    }

    /// Takes the election if it is this member's to take, in this order:
    ///
    /// 1. No proof, no election; say whose return would prove.
    /// 2. A live member that is further ahead, or preferred among equals, goes first.
    /// 3. The conditional write decides.
    pub(super) fn elect(&mut self, record: &Record) {
        let term = record.term;
        let seals = self.seals_of(term);
        let (lost, command) = self.given_up(record);
        let rule = self.rule_to_prove(&record.rule);
        let election = Election {
            rule: &rule,
            seals: &seals,
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
            let needs = missing.iter().map(|dir| self.member_of(dir)).collect();
            return self.wait(Why::ProofImpossible { needs });
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
            term,
            phase: Phase::Promoting,
            leader: self.me.clone(),
            rule,
            system_identifier: record.system_identifier,
            last_command: command.or_else(|| record.last_command.clone()),
        };
        self.write(elected);
    }

    /// Whether the last leader was heard shortly before `at`.
    fn fresh(&self, at: Moment) -> bool {
        let slack = self.timings.detect.saturating_mul(2);
        self.peers.farthest.is_some() && at.since(self.peers.farthest_at) <= slack
    }

    /// The directories that a person has given up by a command not carried out yet.
    pub(super) fn given_up(&self, record: &Record) -> (Vec<DirId>, Option<String>) {
        match self.spec.as_ref().and_then(|spec| spec.command.as_ref()) {
            Some(Command::FailoverAcceptingLoss { id, without }) if record.last_command.as_ref() != Some(id) => {
                (without.clone(), Some(id.clone()))
            }
            _ => (Vec::new(), None),
        }
    }

    fn rule_to_prove(&self, rule: &Rule) -> Rule {
        let mut rule = rule.clone();
        if self.mutation.is(Mutant::ProofOffByOne) {
            rule.quorum = rule.quorum.saturating_add(1);
        }
        if self.mutation.is(Mutant::StrangersCount) {
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
    /// 1. Only while the wish is `Async` and the rule in force acknowledged alone.
    /// 2. Only once the old leader is known dead: it has been heard in this term as one whose engine is no primary any more
    ///    (not as one that is still stopping it), or nothing was heard of it for the time of its lease.
    /// 3. Only within `maximum_lag_bytes` of where it was last heard to be, which must have been shortly before the election
    ///    was opened. Not heard means not known. So the loss is bound by that, and by what the old leader wrote between its
    ///    last heartbeat and the end of its term: the time of detection or, cut off from the record too, of the fence.
    pub(super) fn async_allows(&self, record: &Record) -> bool {
        let Some(spec) = &self.spec else { return false };
        let Some(old) = &record.rule.leader else { return false };
        if spec.durability != Durability::Async || record.rule.quorum != 0 {
            return false;
        }
        let leader = self.member_of(old);
        let peer = self.peers.of.get(&leader);
        let no_primary = |role| matches!(role, Role::Sealed | Role::Replica | Role::Preparing);
        let knows = peer.is_some_and(|p| p.last.term >= record.term && no_primary(p.last.role));
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
        let behind = far.0.saturating_sub(own.lsn.0);
        behind <= spec.maximum_lag_bytes || self.mutation.is(Mutant::AsyncWithoutBound)
    }

    /// Whether the members heard lately could prove an election: if not, to open one would only end a term.
    pub(super) fn could_prove(&self, record: &Record) -> bool {
        let (lost, _) = self.given_up(record);
        let mine = self.disk.dir.iter().cloned();
        // A leader that is there but down starts again in place sooner than it could be elected by its own directory alone.
        let theirs = self
            .peers
            .of
            .iter()
            .filter(|(m, _)| self.live(m) && **m != record.leader)
            .filter_map(|(_, p)| p.last.dir.clone());
        let of = |dir, led| Seal {
            dir,
            position: Default::default(),
            led,
        };
        // A directory that is no more led nothing that it could prove.
        let gone = self.peers.of.iter().filter(|(m, _)| self.live(m)).filter_map(|(_, p)| {
            let dir = p.last.gone.clone()?;
            Some(of(dir, None))
        });
        let there = mine.chain(theirs).map(|dir| of(dir, Some(record.term)));
        let seals: Vec<Seal> = there.chain(gone).collect();
        let own_async =
            self.spec.as_ref().is_some_and(|s| s.durability == Durability::Async) && record.rule.quorum == 0;
        proof::proves(&self.rule_to_prove(&record.rule), &seals, &lost) || (own_async && record.rule.leader.is_some())
    }
}
