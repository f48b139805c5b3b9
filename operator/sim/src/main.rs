//! `holdfast-sim run --histories N --seed S [--mutant NAME]`, `holdfast-sim replay SEED [--mutant NAME] [--whole]`,
//! `holdfast-sim fuzz [--mutant NAME] [--seconds N] [--seed S] [--noises N] [--from FILE]`.

use std::process::ExitCode;
use std::time::Instant;

use holdfast_core::instance::Mutant;
use holdfast_sim::fuzz::{self, Fuzz, breaks};
use holdfast_sim::{Kept, Plan, Runner, shrink::shrink};

/// A plan that shows a deliberate bug is clean without it over so many noises.
const CLEAN: u64 = 200;

fn option<'a>(args: &'a [String], name: &str) -> Option<&'a str> {
    let at = args.iter().position(|arg| arg == name)?;
    args.get(at + 1).map(String::as_str)
}

fn number(args: &[String], name: &str, default: u64) -> u64 {
    option(args, name).and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn mutant(args: &[String]) -> Option<Mutant> {
    let name = option(args, "--mutant")?;
    Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name)
}

fn tell(runner: &mut Runner, plan: &Plan, mutant: Option<Mutant>) {
    println!("faults:");
    for (at, fault) in &plan.faults {
        println!("{at:>7} ms  {fault:?}");
    }
    for line in runner.run(plan, mutant, true).story {
        println!("{line}");
    }
}

fn run(args: &[String]) -> ExitCode {
    let (histories, first) = (number(args, "--histories", 10_000), number(args, "--seed", 1));
    let (seconds, mutant) = (number(args, "--seconds", u64::MAX), mutant(args));
    let begun = Instant::now();
    let mut runner = Runner::default();
    let (mut steps, mut rows, mut openings, mut lasted, mut count) = (0, 0, 0, 0, 0);
    for seed in first..first.saturating_add(histories) {
        if begun.elapsed().as_secs() >= seconds {
            break;
        }
        let plan = Plan::new(seed);
        let outcome = runner.run(&plan, mutant, false);
        count += 1;
        steps += outcome.steps;
        rows += outcome.acknowledged;
        openings += outcome.openings;
        lasted += outcome.lasted;
        if let Some(violation) = outcome.violation {
            println!(
                "seed {seed}: {} at {} ms: {}",
                violation.invariant, violation.at, violation.what
            );
            if !args.iter().any(|arg| arg == "--keep-going") {
                let small = shrink(&mut runner, &plan, mutant);
                tell(&mut runner, &small, mutant);
                println!("replay: holdfast-sim replay {seed}; to keep it, add to operator/sim/seeds/kept.json:");
                println!("{}", serde_json::to_string(&small).unwrap_or_default());
                return ExitCode::FAILURE;
            }
        }
    }
    let took = begun.elapsed().as_secs_f64();
    println!(
        "{count} histories in {took:.1} s ({:.0}/s): {steps} steps of agents, {rows} rows acknowledged, {openings} openings, {} h of virtual time",
        count as f64 / took,
        lasted / 3_600_000
    );
    ExitCode::SUCCESS
}

/// Looks for every deliberate bug, or for one; tells which seed showed it, and with `--keep` the shrunk plan.
fn hunt(args: &[String]) -> ExitCode {
    let (most, first) = (number(args, "--histories", 30_000), number(args, "--seed", 1));
    let one = mutant(args);
    let (mut missed, mut sought) = (0, 0);
    for mutant in Mutant::ALL.into_iter().filter(|m| one.is_none_or(|one| one == *m)) {
        sought += 1;
        let begun = Instant::now();
        let mut runner = Runner::default();
        let found = (first..first.saturating_add(most)).find_map(|seed| {
            let plan = Plan::new(seed);
            let violation = runner.run(&plan, Some(mutant), false).violation?;
            Some((plan, violation))
        });
        let took = begun.elapsed().as_secs_f64();
        let Some((plan, violation)) = found else {
            missed += 1;
            println!("{mutant:?}: NOT FOUND in {most} histories ({took:.1} s)");
            continue;
        };
        let what: String = violation.what.chars().take(110).collect();
        println!(
            "{mutant:?}: seed {}, {took:.1} s: {}: {what}",
            plan.seed, violation.invariant
        );
        if args.iter().any(|arg| arg == "--keep") {
            let plan = shrink(&mut runner, &plan, Some(mutant));
            let kept = Kept {
                why: format!("{mutant:?}"),
                plan,
            };
            println!("{}", serde_json::to_string(&kept).unwrap_or_default());
        }
    }
    println!("{} of {sought} found", sought - missed);
    if missed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs one plan with many noises.
fn attempt(args: &[String]) -> ExitCode {
    let Some(plan) = args.get(1).and_then(|json| serde_json::from_str::<Plan>(json).ok()) else {
        println!("not a plan");
        return ExitCode::FAILURE;
    };
    let (mutant, noises) = (mutant(args), number(args, "--noises", 1_000));
    let mut runner = Runner::default();
    if args.iter().any(|arg| arg == "--story") {
        tell(&mut runner, &plan, mutant);
        return ExitCode::SUCCESS;
    }
    let Some((plan, violation)) = breaks(&mut runner, &plan, mutant, noises) else {
        println!("clean in {noises} noises");
        return ExitCode::SUCCESS;
    };
    println!("seed {}: {}: {}", plan.seed, violation.invariant, violation.what);
    let small = shrink(&mut runner, &plan, mutant);
    tell(&mut runner, &small, mutant);
    println!("{}", serde_json::to_string(&small).unwrap_or_default());
    ExitCode::FAILURE
}

/// Varies kept plans, and looks for a broken promise; with a deliberate bug, for a plan that shows it.
fn vary(args: &[String]) -> ExitCode {
    let mutant = mutant(args);
    if mutant.is_some() && !cfg!(feature = "mutants") {
        println!("this was built without deliberate bugs: cargo run -p holdfast-sim --features mutants");
        return ExitCode::FAILURE;
    }
    let (favourites, others) = match to_vary(option(args, "--from"), mutant) {
        Ok(plans) => plans,
        Err(what) => {
            println!("{what}");
            return ExitCode::FAILURE;
        }
    };
    let (seconds, noises) = (number(args, "--seconds", 60), number(args, "--noises", 40));
    let begun = Instant::now();
    let mut runner = Runner::default();
    let mut count = 0_u64;
    for plan in Fuzz::new(number(args, "--seed", 1), favourites, others) {
        if begun.elapsed().as_secs() >= seconds {
            break;
        }
        count += 1;
        let Some((plan, violation)) = breaks(&mut runner, &plan, mutant, noises) else {
            continue;
        };
        let plan = shrink(&mut runner, &plan, mutant);
        let Some(mutant) = mutant else {
            broken(&mut runner, &plan);
            return ExitCode::FAILURE;
        };
        if let Some((plan, _)) = breaks(&mut runner, &plan, None, CLEAN) {
            println!("found on the way to {mutant:?}, and wrong without it, too:");
            let plan = shrink(&mut runner, &plan, None);
            broken(&mut runner, &plan);
            return ExitCode::FAILURE;
        }
        println!(
            "{mutant:?}: varied plan {count}: {}: {}; clean without the bug in {CLEAN} noises; to keep it, add to operator/sim/seeds/mutants.json:",
            violation.invariant, violation.what
        );
        let why = format!("{mutant:?}");
        println!("{}", serde_json::to_string(&Kept { why, plan }).unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    let took = begun.elapsed().as_secs_f64();
    match mutant {
        None => {
            println!("{count} varied plans, each with {noises} noises, are clean ({took:.1} s)");
            ExitCode::SUCCESS
        }
        Some(mutant) => {
            println!("{mutant:?}: NOT FOUND in {count} varied plans, each with {noises} noises ({took:.1} s)");
            ExitCode::FAILURE
        }
    }
}

/// What is mostly varied, and what now and then: the plans of a file, or those that show the bug; and all kept ones.
fn to_vary(file: Option<&str>, mutant: Option<Mutant>) -> Result<(Vec<Plan>, Vec<Plan>), String> {
    let of = |kept: Vec<Kept>| kept.into_iter().map(|kept| kept.plan).collect::<Vec<Plan>>();
    let kept = fuzz::kept().map_err(|e| format!("seeds/kept.json: {e}"))?;
    let shown = fuzz::kept_for_mutants().map_err(|e| format!("seeds/mutants.json: {e}"))?;
    let favourites = match (file, mutant) {
        (Some(file), _) => {
            let text = std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
            let plans = fuzz::plans(&text).map_err(|e| format!("{file} holds no plans as JSON: {e}"))?;
            if plans.is_empty() {
                return Err(format!("{file} holds no plan"));
            }
            plans
        }
        (None, Some(mutant)) => {
            let why = format!("{mutant:?}");
            of(shown.into_iter().filter(|kept| kept.why == why).collect())
        }
        (None, None) => of(kept.iter().cloned().chain(shown).collect()),
    };
    Ok((favourites, of(kept)))
}

/// Tells of a broken promise, and how to see it again.
fn broken(runner: &mut Runner, plan: &Plan) {
    let violation = runner.run(plan, None, false).violation;
    let why = violation.map_or_else(String::new, |found| format!("{}: {}", found.invariant, found.what));
    println!("{why}");
    tell(runner, plan, None);
    let json = serde_json::to_string(plan).unwrap_or_default();
    println!("replay: holdfast-sim try '{json}' --story");
    println!("to keep it, add to operator/sim/seeds/kept.json:");
    let plan = plan.clone();
    println!("{}", serde_json::to_string(&Kept { why, plan }).unwrap_or_default());
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(name) = option(&args, "--mutant").filter(|_| mutant(&args).is_none()) {
        println!("no deliberate bug is called {name}; `Mutant` in operator/core/src/instance has them all");
        return ExitCode::FAILURE;
    }
    match args.first().map(String::as_str) {
        Some("run") => run(&args),
        Some("mutants") => hunt(&args),
        Some("replay") => {
            let seed = args.get(1).and_then(|text| text.parse().ok()).unwrap_or(1);
            let mut runner = Runner::default();
            let mut plan = Plan::new(seed);
            if !args.iter().any(|arg| arg == "--whole") {
                plan = shrink(&mut runner, &plan, mutant(&args));
            }
            tell(&mut runner, &plan, mutant(&args));
            ExitCode::SUCCESS
        }
        Some("try") => attempt(&args),
        Some("fuzz") => vary(&args),
        _ => {
            println!("holdfast-sim try PLAN [--mutant NAME] [--noises N | --story]   (a plan as JSON)");
            println!("holdfast-sim run [--histories N] [--seed S] [--seconds S] [--mutant NAME] [--keep-going]");
            println!(
                "holdfast-sim mutants [--histories N] [--seed S] [--mutant NAME] [--keep]   (built with --features mutants)"
            );
            println!("holdfast-sim replay SEED [--mutant NAME] [--whole]");
            println!(
                "holdfast-sim fuzz [--mutant NAME] [--seconds N] [--seed S] [--noises N] [--from FILE]   (varies kept plans; FILE: other ones, as in operator/sim/seeds)"
            );
            ExitCode::FAILURE
        }
    }
}
