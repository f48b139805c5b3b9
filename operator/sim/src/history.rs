//! One history, from beginning to end.

use std::collections::HashMap;

use holdfast_core::failover::{MemberName, Phase, proof::seals_needed, rule};
use holdfast_core::instance::{Durability, Mutant};

use crate::event::Ev;
use crate::ledger::Violation;
use crate::model::{Member, Run};
use crate::plan::Plan;
use crate::world::World;

/// After the last fault has ended, a leader serves and every member follows it within this time (ms). The longest pauses of
/// the heal ladder, a lease, a Pod's patience and a clone fit in.
pub const BOUND: u64 = 120_000;

/// How a history ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was broken, if anything.
    pub violation: Option<Violation>,
    /// Steps of agents.
    pub steps: u64,
    /// Rows acknowledged.
    pub acknowledged: u64,
    /// Times that a leader began to serve.
    pub openings: u64,
    /// Virtual milliseconds.
    pub lasted: u64,
    /// The story, if asked for.
    pub story: Vec<String>,
}

/// Runs histories; keeps sets that run, so that most histories need not begin with initdb.
#[derive(Default)]
pub struct Runner {
    running: HashMap<(usize, u8, u16, bool), World>,
}

impl Runner {
    /// Runs one history.
    pub fn run(&mut self, plan: &Plan, mutant: Option<Mutant>, story: bool) -> Outcome {
        let mut world = self.begin(plan, mutant);
        if story {
            world.story = Some(vec![format!(
                "seed {}: {} members, {:?}, {} copies",
                plan.seed, plan.members, plan.durability, plan.copies
            )]);
        }
        let start = world.now;
        world.set_up();
        for n in 0..plan.faults.len() {
            let at = plan.faults[n].0;
            world.push(at, Ev::Strike { n });
        }
        world.push(plan.ends() + 300, Ev::Check);
        while world.turn() {}
        Outcome {
            violation: world.ledger.violation.clone(),
            steps: world.steps,
            acknowledged: world.ledger.acknowledged,
            openings: world.ledger.openings,
            lasted: world.now - start,
            story: world.story.take().unwrap_or_default(),
        }
    }

    /// A world to begin with: empty volumes, or a set that runs already.
    fn begin(&mut self, plan: &Plan, mutant: Option<Mutant>) -> World {
        if plan.from_nothing {
            return World::new(plan.clone(), mutant);
        }
        let durability = match plan.durability {
            Durability::Quorum => 0,
            Durability::Preferred => 1,
            Durability::Async => 2,
        };
        // this bug is in force from the first clone on, or never
        let named = mutant.filter(|mutant| *mutant == Mutant::IdentityIsPod);
        let key = (plan.members, durability, plan.copies, named.is_some());
        let running = self.running.entry(key).or_insert_with(|| {
            let mut world = World::new(
                // Nothing of this very plan: other plans begin with this world, too.
                Plan {
                    seed: 1,
                    keeps: 0,
                    torn: false,
                    faults: Vec::new(),
                    ..plan.clone()
                },
                named,
            );
            world.settle();
            world
        });
        let mut world = running.clone();
        world.rng = crate::rng::Rng::new(plan.seed);
        world.plan = plan.clone();
        for member in &mut world.members {
            if let Some(dir) = &mut member.dir {
                dir.sized = plan.torn;
            }
        }
        world.corrupt(mutant);
        world
    }
}

impl World {
    /// Puts a deliberate bug in force in a set that runs.
    fn corrupt(&mut self, mutant: Option<Mutant>) {
        self.mutant = mutant;
        #[cfg(feature = "mutants")]
        for member in &mut self.members {
            member.agent = member.agent.take().map(|agent| Box::new(agent.with_mutant(mutant)));
        }
    }

    /// What a plan asks for beyond a set that runs: clocks that run apart, and members that are not there yet.
    fn set_up(&mut self) {
        let most = self
            .plan
            .faults
            .iter()
            .map(|(_, fault)| fault.grows())
            .max()
            .unwrap_or(0);
        while self.members.len() < most {
            let mut member = Member::new(MemberName(format!("m{}", self.members.len())));
            member.present = false;
            self.members.push(member);
        }
        let n = self.members.len();
        self.weather.api_cut.resize(n, 0);
        self.weather.cut.resize(n, Vec::new());
        self.weather.reject.resize(n, Vec::new());
        self.weather.linked.resize(n, Vec::new());
        self.weather.linked.iter_mut().for_each(|row| row.resize(n, false));
        for row in self.weather.cut.iter_mut().chain(&mut self.weather.reject) {
            row.resize(n, 0);
        }
        for m in 0..n {
            let (drift, now) = (self.plan.drift, self.now);
            let member = &mut self.members[m];
            // what its clock shows does not change
            let before = member.clock(now).0;
            member.rate = 1_000 - drift + self.rng.below(2 * drift + 1);
            member.leapt = 0;
            member.leapt = before.saturating_sub(member.clock(now).0);
        }
    }

    /// Runs until everybody follows one leader.
    fn settle(&mut self) {
        let limit = self.now + 60_000;
        while self.now < limit && !(self.now > 1_000 && self.settled()) && self.turn() {}
        self.steps = 0;
    }

    /// A leader serves, the rule is as desired, and everybody else streams from it.
    pub fn settled(&self) -> bool {
        let (Some(record), Some(spec)) = (self.store.record(), self.specs.last()) else {
            return false;
        };
        if record.phase != Phase::Leading {
            return false;
        }
        let Some(leader) = self.index(&record.leader) else {
            return false;
        };
        let streams = |m: usize| {
            let engine = &self.members[m].engine;
            let whole = self.members[m].whole && !self.members[m].disk.half;
            m == leader
                || (engine.run == Run::Standby && engine.receiver.is_some() && engine.diverged.is_none() && whole)
        };
        let everyone = (0..self.wanted).all(streams);
        let able = (0..self.wanted)
            .filter(|m| *m != leader && !self.members[*m].leaving)
            .filter_map(|m| self.members[m].dir.as_ref().map(|dir| dir.id.clone()))
            .collect();
        let desired = rule::desired(&record.rule, spec.durability, spec.copies, &able);
        everyone
            && !self.operating
            && self.members[leader].serves()
            && record.rule == desired
            && self.now - self.ledger.last < 400
            && self.conns.iter().all(|conn| conn.streaming)
    }

    /// I4: once faults have ended, everything heals within the bound.
    pub(crate) fn check(&mut self) {
        self.ambushes.clear();
        self.traps.clear();
        if self.settled() {
            self.done = true;
            return;
        }
        if self.now > self.heal_start() + BOUND {
            if self.could_heal() || self.person_helps() {
                let record = format!("{:?}", self.store.record());
                self.violated(
                    "I4",
                    format!("{BOUND} ms after the last fault nothing has settled: {record}"),
                );
                self.describe();
            }
            self.done = true;
            return;
        }
        self.push(150, Ev::Check);
    }

    fn heal_start(&mut self) -> u64 {
        if self.heals_at == u64::MAX {
            self.heals_at = self.now;
        }
        self.heals_at
    }

    /// Whether an election could be proved from the directories that no fault has taken: one that the members themselves
    /// gave up counts as there. Judged by the rule of the last leader that served.
    fn could_heal(&self) -> bool {
        if !self.lost_volume {
            return true;
        }
        let Some(record) = self
            .store
            .versions
            .iter()
            .rev()
            .find(|record| record.phase == Phase::Leading)
        else {
            return false;
        };
        // One that was scaled away gives no seal until a person scales back; status names it.
        let away = |dir: &holdfast_core::failover::DirId| {
            let gone = self.members.iter().skip(self.wanted);
            gone.filter_map(|m| m.dir.as_ref()).any(|d| d.id == *dir)
        };
        let left = |dir: &holdfast_core::failover::DirId| !self.lost.contains(dir) && !away(dir);
        let members = record.rule.standbys.iter().filter(|dir| left(dir)).count();
        record.rule.leader.as_ref().is_some_and(left) || members >= seals_needed(&record.rule)
    }

    fn describe(&mut self) {
        for m in 0..self.members.len() {
            let member = &self.members[m];
            let text = format!(
                "m{m}: engine {:?} gate {} upstream {:?} receiver {:?} diverged {:?} dir {:?} disk {:?} view {:?}",
                member.engine.run,
                member.engine.gate,
                member.engine.upstream.as_ref().map(|u| &u.member.0),
                member.engine.receiver,
                member.engine.diverged,
                member
                    .dir
                    .as_ref()
                    .map(|d| (&d.id.0, d.flushed, d.log.len(), d.timeline, &d.history, d.consistent)),
                member.disk,
                member.agent.as_ref().map(|a| a.view())
            );
            self.note(|| text);
        }
    }
}
