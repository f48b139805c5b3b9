//! `make bench-pgbench`: transactions per second and latency of a quorum-commit set under Holdfast, beside plain PostgreSQL with the same
//! settings and the same quorum on the same bed.
//!
//! Both are up, and take short turns under load: the machine's moods last longer than a pair of turns, so the difference within pairs
//! tells more than that of the medians. What Holdfast's agents use is paid by both; `make bench-steady` measures that.

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
    #[arg(long, default_value_t = 330)]
    pairs: usize,
    /// Length of one turn (s). Many short ones tell more than few long ones.
    #[arg(long, default_value_t = 4)]
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
const PLAIN: &str = "pgbench-plain";

fn main() -> Result<()> {
    let cli = Cli::parse();
    let house = House::open(&cli.bed, Owner::Nobody)?;
    house.namespace(NAMESPACE)?;
    let set = holdfast(&house)?;
    let settings = set.access()?.query(plain::SETTINGS)?;
    say(&format!("settings of both:\n{settings}"));
    let managed = Target {
        address: set.service("rw")?,
        user: set.secret("user")?,
        password: set.secret("password")?,
        database: set.secret("dbname")?,
    };
    let alone = Target {
        address: plain::apply(&house, PLAIN, &settings)?,
        user: "postgres".into(),
        password: plain::PASSWORD.into(),
        database: "postgres".into(),
    };
    for target in [&managed, &alone] {
        fill(&house, &cli, target)?;
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for pair in 0..cli.pairs {
        // Who goes first has what the other's checkpoint left behind.
        let mut turns = [(&managed, &mut ours), (&alone, &mut theirs)];
        if pair % 2 == 1 {
            turns.reverse();
        }
        for (target, runs) in turns {
            runs.push(measure(&house, &cli, target)?);
        }
        if let (Some(a), Some(b)) = (ours.last(), theirs.last()) {
            eprintln!(
                "{:>4}  Holdfast {:.0}, plain {:.0} transactions/s",
                pair + 1,
                a.tps,
                b.tps
            );
        }
    }
    for namespace in [NAMESPACE, PLAIN] {
        house.kubectl(&["delete", "namespace", namespace, "--timeout=180s"])?;
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
    let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a.tps / b.tps).collect();
    let (mean, error) = mean(&ratios);
    println!(
        "Within pairs Holdfast has {:+.1} % ± {:.1} % (mean and standard error of {} pairs).",
        (mean - 1.0) * 100.0,
        error * 100.0,
        ratios.len()
    );
    if let Some(file) = &cli.json {
        let figures = json!({"holdfast": ours, "plain": theirs, "settings": settings});
        fs::write(file, serde_json::to_string_pretty(&figures)? + "\n")?;
    }
    Ok(())
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// The mean, and its standard error.
fn mean(all: &[f64]) -> (f64, f64) {
    let count = all.len() as f64;
    let mean = all.iter().sum::<f64>() / count;
    let squares: f64 = all.iter().map(|x| (x - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0) / count).sqrt())
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

/// Tables, and a first load: caches and the first checkpoint are nobody's merit.
fn fill(house: &House, cli: &Cli, target: &Target) -> Result<()> {
    let (scale, clients) = (cli.scale.to_string(), cli.clients.to_string());
    pgbench(house, target, &["-i", "-q", "-s", &scale])?;
    pgbench(house, target, &["-T", "10", "-c", &clients, "-j", "2"])
}

fn measure(house: &House, cli: &Cli, target: &Target) -> Result<Run> {
    let (seconds, clients) = (cli.seconds.to_string(), cli.clients.to_string());
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let log = log.to_str().context("a path that is text")?;
    let args = [
        "-n",
        "-T",
        &seconds,
        "-c",
        &clients,
        "-j",
        "2",
        "-l",
        "--log-prefix",
        log,
    ];
    pgbench(house, target, &args)?;
    read(folder.path(), cli.seconds)
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
