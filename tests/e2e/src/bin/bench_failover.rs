//! Holdfast beside Patroni: the same bed, the same clients, the same faults, one after the other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use holdfast_bed::bed::Owner;
use holdfast_e2e::fault::Fault;
use holdfast_e2e::patroni::{Patroni, Tuning};
use holdfast_e2e::plot::{Row, svg};
use holdfast_e2e::report::{earlier, lines, table};
use holdfast_e2e::trial::{CLIENTS, Trial, run_with};
use holdfast_e2e::{House, Set, System};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Which {
    Holdfast,
    Patroni,
    PatroniTuned,
}

/// Measures what clients see of a fault, under Holdfast and under Patroni.
#[derive(Parser)]
struct Args {
    /// How often each fault is tried.
    #[arg(long, default_value_t = 30)]
    runs: usize,
    /// The systems, one after the other.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Which::Holdfast, Which::Patroni, Which::PatroniTuned])]
    systems: Vec<Which>,
    /// The faults.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Fault::Engine, Fault::Silent, Fault::Switchover, Fault::ReplicaSilent])]
    faults: Vec<Fault>,
    /// Writers at work.
    #[arg(long, default_value_t = CLIENTS)]
    clients: u32,
    /// Figures go here. Those of systems that are not measured now stay in it, so that one may come after the other.
    #[arg(long, default_value = "target/bench/failover.json")]
    json: PathBuf,
    /// The bed.
    #[arg(long, default_value = "bench")]
    bed: String,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let house = House::open(&args.bed, Owner::Nobody)?;
    let mut all: BTreeMap<String, Vec<Trial>> = earlier(&args.json)?;
    for which in &args.systems {
        let name = which.to_possible_value().context("a name")?.get_name().to_owned();
        let trials = match which {
            Which::Holdfast => {
                house.namespace("bench")?;
                let set = Set::apply(&house, "bench", "db", 3, "")?;
                set.wait_ready(Duration::from_secs(240))?;
                measure(&name, &set, &args)
            }
            Which::Patroni => measure(&name, &Patroni::apply(&house, "bench", Tuning::Default)?, &args),
            Which::PatroniTuned => measure(&name, &Patroni::apply(&house, "bench", Tuning::Tuned)?, &args),
        };
        println!("\n{name}\n\n{}", table(&lines(&trials)));
        all.insert(name, trials);
        if let Some(dir) = args.json.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(&args.json, serde_json::to_vec_pretty(&all)?)?;
        std::fs::write(args.json.with_extension("svg"), picture(&all, &args.faults))?;
    }
    Ok(())
}

/// One row for each fault and system.
fn picture(all: &BTreeMap<String, Vec<Trial>>, faults: &[Fault]) -> String {
    let mut rows: Vec<Row> = Vec::new();
    for fault in faults {
        for (system, trials) in all {
            let outages = trials.iter().filter(|t| t.fault == *fault).map(|t| t.outage_ms);
            rows.push((format!("{}, {system}", fault.name()), outages.collect()));
        }
    }
    svg("Time without an acknowledged write, one dot for each run", &rows)
}

fn measure(name: &str, system: &dyn System, args: &Args) -> Vec<Trial> {
    let mut trials = Vec::new();
    for number in 1..=args.runs {
        for fault in &args.faults {
            match run_with(system, *fault, args.clients) {
                Ok(trial) => {
                    println!(
                        "{name} {number:>3} {:<16} outage {:>6.2} s{}",
                        fault.name(),
                        trial.outage_ms / 1000.0,
                        if trial.violations.is_empty() { "" } else { "  BROKEN" }
                    );
                    trials.push(trial);
                }
                Err(error) => {
                    println!("{name} {number:>3} {:<16} FAILED: {error:#}", fault.name());
                    let _ = system.house().bed.heal_all();
                }
            }
        }
    }
    trials
}
