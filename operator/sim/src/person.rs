//! The person who accepts that commits are lost, as `kubectl holdfast failover --accept-data-loss` has it; and what the judge
//! makes of that.

use std::collections::BTreeSet;

use holdfast_core::failover::{DirId, Phase, Record};
use holdfast_core::instance::{Command, Why};

use crate::event::Ev;
use crate::model::{Dir, Run, common};
use crate::store::Store;
use crate::world::World;

/// What this person knows and has done.
#[derive(Clone, Debug, Default)]
pub struct Person {
    /// There is one.
    pub looks: bool,
    /// Since when a member says that an election cannot be proved.
    impossible: Option<u64>,
    /// When this person last asked.
    asked: Option<u64>,
    /// Each request, by its id: what was given up, and how much was promised by then.
    requests: Vec<(String, Vec<DirId>, usize)>,
}

/// After a request in vain the next one is made so much later (ms).
const AGAIN: u64 = 5_000;

impl World {
    /// A person looks, in this order:
    ///
    /// 1. A member that is there says that an election cannot be proved, and has said so for some time.
    /// 2. Given up is what the rule names and nobody who is there has.
    /// 3. But not before those who have that are seen to be off: one that is only cut off may go on.
    pub(crate) fn person_looks(&mut self, patience: u64) {
        self.push(300, Ev::Person { patience });
        let there = |m: &usize| {
            let member = &self.members[*m];
            member.agent.is_some() && member.frozen <= self.now && self.api_reachable(*m)
        };
        let views = (0..self.members.len()).filter(there);
        let views: Vec<_> = views
            .filter_map(|m| Some(self.members[m].agent.as_ref()?.view()))
            .collect();
        if !views
            .iter()
            .any(|view| matches!(view.why, Some(Why::ProofImpossible { .. })))
        {
            self.person.impossible = None;
            return;
        }
        let since = *self.person.impossible.get_or_insert(self.now);
        let soon = self.person.asked.is_some_and(|at| self.now - at < AGAIN);
        let held: BTreeSet<DirId> = views.into_iter().filter_map(|view| view.dir).collect();
        let Some(record) = self.store.record() else { return };
        let Some(leader) = &record.rule.leader else { return };
        let rule = record.rule.standbys.iter().chain([leader]);
        let without: BTreeSet<DirId> = rule.filter(|dir| !held.contains(dir)).cloned().collect();
        let off = |dir: &DirId| {
            let mut has = self
                .members
                .iter()
                .filter(|member| member.dir.as_ref().is_some_and(|d| d.id == *dir));
            has.all(|member| member.agent.is_none() && member.engine.run == Run::Down)
        };
        if self.now - since < patience || soon || held.is_empty() || without.is_empty() || !without.iter().all(off) {
            return;
        }
        let without: Vec<DirId> = without.into_iter().collect();
        let id = format!("loss-{}", self.now);
        let seen = Store::version(self.store.versions.len());
        self.note(|| {
            format!(
                "a person gives up {:?}",
                without.iter().map(|d| d.0.as_str()).collect::<Vec<_>>()
            )
        });
        self.person.asked = Some(self.now);
        let promised = self.ledger.promised.len();
        self.person.requests.push((id.clone(), without.clone(), promised));
        self.ask(|spec| spec.command = Some(Command::FailoverAcceptingLoss { id, seen, without }));
    }

    /// Whether a person may yet bring about an election that cannot be proved: some member has data.
    pub(crate) fn person_helps(&self) -> bool {
        let whole = |m: &usize| self.members[*m].whole && !self.members[*m].disk.half;
        let leader = self.store.record().is_some_and(|record| record.rule.leader.is_some());
        self.person.looks && leader && (0..self.wanted).any(|m| whole(&m))
    }

    /// Directories are given up in the record: exactly those of a person's request, and nothing was promised since.
    fn invariant_given_up(&mut self, record: &Record) {
        let requests = self.person.requests.iter().rev();
        let mut exact =
            requests.filter(|(id, without, _)| record.last_command.as_ref() == Some(id) && *without == record.given_up);
        let promised = self.ledger.promised.len();
        if !exact.any(|(_, _, then)| *then == promised) {
            let what = format!(
                "{:?} are given up, which nobody asked for, or not after all of {promised} promised records",
                record.given_up
            );
            self.violated("I1", what);
        }
    }

    /// Somebody leads who was elected without proof: what only the given-up directories had is lost, and nothing else.
    pub(crate) fn accept_loss(&mut self, before: Option<&Record>, record: &Record) {
        let Some(before) = before else { return };
        if !record.given_up.is_empty() && record.given_up != before.given_up {
            self.invariant_given_up(record);
        }
        if before.given_up.is_empty() || record.phase != Phase::Leading {
            return;
        }
        let kept = |dir: &Dir| common(&dir.log[..dir.flushed], &self.ledger.promised);
        let left = |dir: &&Dir| {
            let ruled = before.rule.standbys.contains(&dir.id) || before.rule.leader.as_ref() == Some(&dir.id);
            ruled && !before.given_up.contains(&dir.id)
        };
        let dirs = || self.members.iter().filter_map(|member| member.dir.as_ref());
        let floor = dirs().filter(left).map(kept).max().unwrap_or(0);
        let elected = dirs()
            .chain(&self.ghosts)
            .filter(|dir| record.rule.leader.as_ref() == Some(&dir.id));
        let has = elected.map(kept).max().unwrap_or(0);
        if has < floor {
            let what = format!(
                "{} leads with {has} promised records, a directory not given up has {floor}",
                record.leader
            );
            self.violated("I1", what);
        }
        self.note(|| format!("accepted: of the promised records {has} are left"));
        self.ledger.promised.truncate(has);
    }
}
