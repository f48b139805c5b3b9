//! Varies kept plans: what once led to a failure, or close to one, with other times, lengths, faults and noises.
//!
//! Fresh seeds spread over all that can happen; kept plans are where something did, and their neighbourhood is worth a look.

use holdfast_core::instance::Mutant;
use serde::Deserialize;

use crate::history::Runner;
use crate::ledger::Violation;
use crate::plan::{FAULTY, Fault, Kept, Plan};
use crate::rng::Rng;

/// A fault is moved no later than this, in milliseconds: a few kept plans go on for longer than a seed's.
const LATEST: u64 = FAULTY + 4_000;
/// A fault is made no longer than this, in milliseconds. No seed gives half as much.
const LONGEST: u64 = 60_000;
/// A fault is moved by so many milliseconds, on average.
const MOVED: u64 = 150;
/// How often the plan to vary is one of the favourites, in a thousand.
const FAVOURED: u64 = 800;

/// The plans of `seeds/kept.json`: each failed once.
pub fn kept() -> serde_json::Result<Vec<Kept>> {
    serde_json::from_str(include_str!("../seeds/kept.json"))
}

/// The plans of `seeds/mutants.json`: each shows a deliberate bug.
pub fn kept_for_mutants() -> serde_json::Result<Vec<Kept>> {
    serde_json::from_str(include_str!("../seeds/mutants.json"))
}

/// The plans in this text: lists as in `seeds/`, and single ones as other commands print them, one after another.
pub fn plans(text: &str) -> serde_json::Result<Vec<Plan>> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Told {
        List(Vec<Kept>),
        Kept(Kept),
        Plan(Plan),
    }
    let mut plans = Vec::new();
    for told in serde_json::Deserializer::from_str(text).into_iter::<Told>() {
        match told? {
            Told::List(all) => plans.extend(all.into_iter().map(|kept| kept.plan)),
            Told::Kept(kept) => plans.push(kept.plan),
            Told::Plan(plan) => plans.push(plan),
        }
    }
    Ok(plans)
}

/// Varied plans without end; none if there is nothing to vary. Equal seeds and plans give equal variations.
#[derive(Clone, Debug)]
pub struct Fuzz {
    rng: Rng,
    /// What is mostly varied.
    favourites: Vec<Plan>,
    /// What is varied now and then, and whose faults are lent to other plans.
    others: Vec<Plan>,
}

impl Fuzz {
    /// Varies the favourites for the most part and the others now and then, whose faults it also lends.
    pub fn new(seed: u64, favourites: Vec<Plan>, others: Vec<Plan>) -> Fuzz {
        Fuzz {
            rng: Rng::new(seed ^ 0x00F0_22ED_91A7),
            favourites,
            others,
        }
    }

    fn varied(&mut self, plan: &Plan) -> Plan {
        let mut plan = plan.clone();
        for (at, fault) in &mut plan.faults {
            if self.rng.chance(500) {
                *at = moved(&mut self.rng, *at);
            }
            for length in fault.lengths() {
                if self.rng.chance(400) {
                    *length = scaled(&mut self.rng, *length);
                }
            }
        }
        match self.rng.below(100) {
            0..=14 if plan.faults.len() > 1 => {
                let dropped = self.rng.index(plan.faults.len());
                plan.faults.remove(dropped);
            }
            15..=34 => {
                let lent = one(&mut self.rng, &self.others).and_then(|other| one(&mut self.rng, &other.faults));
                plan.faults.extend(lent.cloned());
            }
            _ => {}
        }
        // A plan may have lost the fault that gives it more members, and what is lent may ask for more.
        let members = most(&plan);
        plan.faults.retain(|(_, fault)| fits(fault, members));
        plan.faults.sort_by_key(|(at, _)| *at);
        plan.seed = self.rng.below(1 << 30);
        plan
    }
}

impl Iterator for Fuzz {
    type Item = Plan;

    fn next(&mut self) -> Option<Plan> {
        let favoured = self.others.is_empty() || self.rng.chance(FAVOURED);
        let from = match favoured && !self.favourites.is_empty() {
            true => &self.favourites,
            false => &self.others,
        };
        let plan = one(&mut self.rng, from)?.clone();
        Some(self.varied(&plan))
    }
}

/// The first of so many noises, from the plan's own on, with which it breaks a promise; and which promise.
pub fn breaks(runner: &mut Runner, plan: &Plan, mutant: Option<Mutant>, noises: u64) -> Option<(Plan, Violation)> {
    (plan.seed..plan.seed.saturating_add(noises)).find_map(|seed| {
        let plan = Plan { seed, ..plan.clone() };
        let violation = runner.run(&plan, mutant, false).violation?;
        Some((plan, violation))
    })
}

fn one<'a, T>(rng: &mut Rng, all: &'a [T]) -> Option<&'a T> {
    all.get(rng.index(all.len()))
}

/// Sooner or later by an exponential: mostly a little, now and then a lot.
fn moved(rng: &mut Rng, at: u64) -> u64 {
    // drawn millisecond by millisecond: a logarithm would not be the same on every platform
    let mut by = 0;
    while by < LATEST && rng.below(MOVED + 1) != 0 {
        by += 1;
    }
    match rng.chance(500) {
        true => (at + by).min(LATEST),
        false => at.saturating_sub(by),
    }
}

/// Half as long to nearly twice, and a few milliseconds off, so that short lengths change, too.
fn scaled(rng: &mut Rng, length: u64) -> u64 {
    let scaled = length.saturating_mul(rng.range(500, 1_800)) / 1_000;
    (scaled + rng.below(11)).saturating_sub(5).min(LONGEST)
}

/// How many members there ever are.
fn most(plan: &Plan) -> usize {
    let grown = plan.faults.iter().map(|(_, fault)| fault.grows());
    grown.fold(plan.members, usize::max)
}

/// Whether a fault speaks of members that exist and of copies that they can hold.
fn fits(fault: &Fault, members: usize) -> bool {
    match fault {
        Fault::Ambush { fault, .. } | Fault::RuleTrap { fault, .. } => fits(fault, members),
        Fault::Copies { copies } => usize::from(*copies) <= members,
        _ => fault.members().into_iter().all(|member| member < members),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fuzz(seed: u64) -> Fuzz {
        let plans = |kept: Vec<Kept>| kept.into_iter().map(|kept| kept.plan).collect();
        Fuzz::new(seed, plans(kept_for_mutants().unwrap()), plans(kept().unwrap()))
    }

    #[test]
    fn one_seed_is_one_row_of_plans() {
        let some = |seed| fuzz(seed).take(200).collect::<Vec<Plan>>();
        assert_eq!(some(1), some(1));
        assert_ne!(some(1), some(2));
    }

    #[test]
    fn varied_plans_are_plans() {
        for plan in fuzz(7).take(5_000) {
            let members = most(&plan);
            assert!(plan.faults.is_sorted_by_key(|(at, _)| *at), "{plan:?}");
            for (at, fault) in &plan.faults {
                assert!(*at <= LATEST, "{plan:?}");
                assert!(fault.lasts() <= 2 * LONGEST, "{plan:?}");
                assert!(fits(fault, members), "{plan:?}");
            }
        }
    }

    #[test]
    fn times_lengths_and_faults_vary() {
        let faults = vec![
            (1_000, Fault::KillAgent { member: 0, down: 400 }),
            (2_000, Fault::KillEngine { member: 1 }),
        ];
        let plan = |members, faults| Plan {
            members,
            faults,
            ..Plan::new(1)
        };
        let far = vec![(500, Fault::KillEngine { member: 4 }), (500, Fault::OldWish)];
        let all: Vec<Plan> = Fuzz::new(3, vec![plan(3, faults)], vec![plan(5, far)])
            .filter(|plan| plan.members == 3)
            .take(1_000)
            .collect();
        let has = |what: &dyn Fn(&(u64, Fault)) -> bool| all.iter().any(|plan| plan.faults.iter().any(what));
        assert!(has(&|(at, _)| *at < 950) && has(&|(at, _)| *at > 2_300), "moved");
        assert!(has(
            &|(_, fault)| matches!(fault, Fault::KillAgent { down, .. } if *down < 250)
        ));
        assert!(has(
            &|(_, fault)| matches!(fault, Fault::KillAgent { down, .. } if *down > 650)
        ));
        assert!(all.iter().any(|plan| plan.faults.len() == 1), "dropped");
        assert!(has(&|(_, fault)| *fault == Fault::OldWish), "lent");
        assert!(
            !has(&|(_, fault)| fault.members().contains(&4)),
            "lent to a member that is not there"
        );
    }

    #[test]
    fn nothing_to_vary_is_the_end() {
        assert_eq!(Fuzz::new(1, Vec::new(), Vec::new()).next(), None);
    }

    #[test]
    fn plans_are_read_as_they_are_kept_and_as_they_are_printed() {
        let plan = Plan::new(5);
        let one = serde_json::to_string(&plan).unwrap();
        let kept = format!("{{\"why\": \"so\", \"plan\": {one}}}");
        assert_eq!(plans(&format!("[{kept}]\n{kept}\n{one}\n")).unwrap(), vec![plan; 3]);
        assert!(plans("[{\"why\": 1}]").is_err());
        assert!(plans("not JSON").is_err());
    }
}
