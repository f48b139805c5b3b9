//! Faults at random, with the ledger running; a report at the end.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use holdfast_bed::bed::Owner;
use holdfast_e2e::fault::Fault;
use holdfast_e2e::report::{earlier, lines, table};
use holdfast_e2e::trial::Trial;
use holdfast_e2e::{House, Set, trial};
use rand::prelude::*;
use serde::{Deserialize, Serialize};

/// Breaks a replica set at random, and tells whether every promise held.
#[derive(Parser)]
struct Args {
    /// How many faults.
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// Chooses faults and pauses; the same seed makes the same choices.
    #[arg(long)]
    seed: Option<u64>,
    /// Only these faults, in turn instead of at random.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Fault>,
    /// Keeps figures in this folder, and adds to those that are there: many runs may be done in parts.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// The bed.
    #[arg(long, default_value = "chaos")]
    bed: String,
}

/// What all runs of a folder amount to.
#[derive(Default, Deserialize, Serialize)]
struct Kept {
    /// One for each part.
    seeds: Vec<u64>,
    trials: Vec<Trial>,
    /// Runs that broke a promise or did not come to an end.
    failures: usize,
}

impl Kept {
    fn open(dir: &Path) -> Result<Kept> {
        earlier(&dir.join("chaos.json"))
    }

    fn write(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        std::fs::write(dir.join("chaos.json"), serde_json::to_vec_pretty(self)?)?;
        std::fs::write(dir.join("chaos.md"), table(&lines(&self.trials)))?;
        Ok(())
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let seed = args.seed.unwrap_or(clock);
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let house = House::open(&args.bed, Owner::Nobody)?;
    house.namespace("chaos")?;
    let set = Set::apply(&house, "chaos", "db", 3, "")?;
    set.wait_ready(Duration::from_secs(240))?;
    let mut kept = args.keep.as_deref().map(Kept::open).transpose()?.unwrap_or_default();
    kept.seeds.push(seed);
    let before = kept.failures;
    for run in 1..=args.runs {
        let fault = match args.only.len() {
            0 => *Fault::value_variants().choose(&mut rng).context("no faults")?,
            n => *args.only.get((run - 1) % n).context("no faults")?,
        };
        std::thread::sleep(Duration::from_millis(rng.random_range(0..3000)));
        match trial::run(&set, fault) {
            Ok(trial) => {
                println!(
                    "{run:>4} {:<24} outage {:>6.2} s, fit again after {:>5.1} s, {} rows, {} unknown{}",
                    fault.name(),
                    trial.outage_ms / 1000.0,
                    trial.fit_again_ms / 1000.0,
                    trial.acknowledged,
                    trial.unknown,
                    trial
                        .violations
                        .iter()
                        .map(|v| format!("\n     BROKEN: {v}"))
                        .collect::<String>()
                );
                kept.failures += usize::from(!trial.violations.is_empty());
                kept.trials.push(trial);
            }
            Err(error) => {
                println!("{run:>4} {:<24} FAILED: {error:#}", fault.name());
                kept.failures += 1;
                house.dump("chaos");
                house.bed.heal_all()?;
            }
        }
        if let Some(dir) = &args.keep {
            kept.write(dir)?;
        }
    }
    let failures = kept.failures - before;
    println!(
        "\n{}\nseed {seed}, {failures} of {} runs failed",
        table(&lines(&kept.trials)),
        args.runs
    );
    ensure!(failures == 0, "{failures} runs failed");
    Ok(())
}
