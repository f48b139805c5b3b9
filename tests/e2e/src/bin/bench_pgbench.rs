//! `make bench-pgbench`: transactions per second and latency of a quorum-commit set under Holdfast, beside plain PostgreSQL with the same
//! settings and the same quorum on the same bed.
//!
//! Only one of the two is up at a time, so that neither pays for the other; they take turns, so that both see the machine's moods.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use holdfast_bed::bed::Owner;
use holdfast_bed::net::Host;
use holdfast_e2e::house::{POSTGRES, run, say};
use holdfast_e2e::{House, Set, System, plain};
use serde::Serialize;
use serde_json::json;

#[derive(Parser)]
#[command(about = "Transactions per second and latency under Holdfast, beside plain PostgreSQL.")]
struct Cli {
    /// Turns of each.
    #[arg(long, default_value_t = 4)]
    turns: usize,
    /// Measurements in a turn.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Length of one measurement (s).
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Clients of pgbench.
    #[arg(long, default_value_t = 8)]
    clients: u32,
    /// pgbench's scale: 100,000 accounts, some 15 MB, each.
    #[arg(long, default_value_t = 5)]
    scale: u32,
    /// The bed; it stays up.
    #[arg(long, default_value = "bench")]
    bed: String,
    /// Where the figures go as JSON; the table is printed.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Where pgbench goes.
struct Target {
    address: String,
    user: String,
    password: String,
    database: String,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Run {
    tps: f64,
    p50_ms: f64,
    p99_ms: f64,
}

const NAMESPACE: &str = "pgbench";

fn main() -> Result<()> {
    let cli = Cli::parse();
    let house = House::open(&cli.bed, Owner::Nobody)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut settings = String::new();
    for turn in 1..=cli.turns {
        say(&format!("turn {turn} of {}: Holdfast", cli.turns));
        house.namespace(NAMESPACE)?;
        let set = holdfast(&house)?;
        if settings.is_empty() {
            settings = set.access()?.query(plain::SETTINGS)?;
            say(&format!("settings of both:\n{settings}"));
        }
        let target = Target {
            address: set.service("rw")?,
            user: set.secret("user")?,
            password: set.secret("password")?,
            database: set.secret("dbname")?,
        };
        measure(&house, &cli, &target, &mut ours)?;
        gone(&house)?;
        say(&format!("turn {turn} of {}: plain PostgreSQL", cli.turns));
        let target = Target {
            address: plain::apply(&house, NAMESPACE, &settings)?,
            user: "postgres".into(),
            password: plain::PASSWORD.into(),
            database: "postgres".into(),
        };
        measure(&house, &cli, &target, &mut theirs)?;
        gone(&house)?;
    }
    println!("| System | TPS, median | TPS, spread | latency p50 | latency p99 |\n|---|---|---|---|---|");
    for (name, runs) in [("Holdfast", &ours), ("plain PostgreSQL", &theirs)] {
        let of = |pick: fn(&Run) -> f64| {
            let mut all: Vec<f64> = runs.iter().map(pick).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let tps = of(|r| r.tps);
        println!(
            "| {name} | {:.0} | {:.0} to {:.0} | {:.2} ms | {:.2} ms |",
            median(&tps),
            tps.first().copied().unwrap_or_default(),
            tps.last().copied().unwrap_or_default(),
            median(&of(|r| r.p50_ms)),
            median(&of(|r| r.p99_ms)),
        );
    }
    if let Some(file) = &cli.json {
        let figures = json!({"holdfast": ours, "plain": theirs, "settings": settings});
        fs::write(file, serde_json::to_string_pretty(&figures)? + "\n")?;
    }
    Ok(())
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// A set of three with room for pgbench's log.
fn holdfast(house: &House) -> Result<Set<'_>> {
    house.apply(&format!(
        "{{apiVersion: holdfast.dev/v1alpha1, kind: HAReplicaSet, metadata: {{name: db, namespace: {NAMESPACE}}}, spec: {{members: 3, \
         engine: {{postgresql: {{image: '{POSTGRES}'}}}}, storage: {{size: 2Gi}}, resources: {{requests: {{cpu: 200m, memory: 128Mi}}}}}}}}"
    ))?;
    let set = Set::named(house, NAMESPACE, "db");
    set.wait_ready(Duration::from_secs(300))?;
    Ok(set)
}

fn gone(house: &House) -> Result<()> {
    house
        .kubectl(&["delete", "namespace", NAMESPACE, "--timeout=180s"])
        .map(drop)
}

fn measure(house: &House, cli: &Cli, target: &Target, into: &mut Vec<Run>) -> Result<()> {
    let scale = cli.scale.to_string();
    pgbench(house, target, &["-i", "-q", "-s", &scale])?;
    let (seconds, clients) = (cli.seconds.to_string(), cli.clients.to_string());
    // Caches and the first checkpoint are nobody's merit.
    pgbench(house, target, &["-T", "10", "-c", &clients, "-j", "2"])?;
    for _ in 0..cli.runs {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("log");
        let log = log.to_str().context("a path that is text")?;
        let args = ["-T", &seconds, "-c", &clients, "-j", "2", "-l", "--log-prefix", log];
        pgbench(house, target, &args)?;
        let run = read(folder.path(), cli.seconds)?;
        eprintln!(
            "  {:.0} transactions/s, p50 {:.2} ms, p99 {:.2} ms",
            run.tps, run.p50_ms, run.p99_ms
        );
        into.push(run);
    }
    Ok(())
}

fn pgbench(house: &House, target: &Target, args: &[&str]) -> Result<()> {
    let words = [
        &["pgbench", "-h", &target.address, "-U", &target.user],
        args,
        &[target.database.as_str()],
    ]
    .concat();
    let mut command = house.bed.command_on(Host::Client, &words)?;
    command.env("PGPASSWORD", &target.password).env("PGSSLMODE", "require");
    run(&mut command).map(drop)
}

/// pgbench's log: one line for each transaction, with its latency in microseconds in the third place.
fn read(folder: &std::path::Path, seconds: u64) -> Result<Run> {
    let mut latencies: Vec<f64> = Vec::new();
    for file in fs::read_dir(folder)?.flatten() {
        for line in fs::read_to_string(file.path())?.lines() {
            let micros: f64 = line.split(' ').nth(2).context("a line of pgbench's log")?.parse()?;
            latencies.push(micros / 1000.0);
        }
    }
    ensure!(!latencies.is_empty(), "pgbench logged nothing");
    latencies.sort_by(f64::total_cmp);
    let at = |share: usize| {
        let index = (latencies.len() - 1) * share / 100;
        latencies.get(index).copied().unwrap_or_default()
    };
    Ok(Run {
        tps: latencies.len() as f64 / seconds as f64,
        p50_ms: at(50),
        p99_ms: at(99),
    })
}
