//! `make bench-scale`: what the operator costs with very many replica sets, idle, and how soon it has looked at all of them.
//!
//! The operator, the API server and everything that they say to each other are real; members are stood in for ([`holdfast_e2e::crowd`]).

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use holdfast_bed::bed::Owner;
use holdfast_e2e::House;
use holdfast_e2e::cost::processes;
use holdfast_e2e::crowd::Crowd;
use holdfast_e2e::house::{SYSTEM, say};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

#[derive(Parser)]
#[command(about = "What the operator costs with very many replica sets.")]
struct Cli {
    /// Sets of three members.
    #[arg(long, default_value_t = 1000)]
    sets: usize,
    /// How long the idle crowd is watched (s).
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// The bed; it is taken down at the end, because no namespace of so many goes soon.
    #[arg(long, default_value = "scale")]
    bed: String,
    /// Where the figures go as JSON, beside being printed.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Longest time for all sets to be Ready.
const PATIENCE: Duration = Duration::from_secs(1800);

fn main() -> Result<()> {
    let cli = Cli::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let house = House::open(&cli.bed, Owner::Nobody)?;
    let figures = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(run(&cli, &house));
    house.bed.clone().down()?;
    let figures = figures?;
    println!("{}", serde_json::to_string_pretty(&figures)?);
    if let Some(file) = &cli.json {
        fs::write(file, serde_json::to_string_pretty(&figures)? + "\n")?;
    }
    Ok(())
}

async fn run(cli: &Cli, house: &House) -> Result<Value> {
    let kubeconfig = Kubeconfig::read_from(house.bed.kubeconfig()?)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let crowd = Crowd::new(kube::Client::try_from(config)?, cli.sets);
    let known = Arc::new(AtomicUsize::new(0));
    let standing_in = tokio::spawn({
        let (crowd, known) = (crowd.clone(), Arc::clone(&known));
        async move { crowd.stand_in(known).await }
    });
    let begun = Instant::now();
    let making = tokio::spawn({
        let crowd = crowd.clone();
        async move { crowd.make().await }
    });
    let made = ready(&crowd, cli.sets, begun, &known).await?;
    making.await??;
    ensure!(!standing_in.is_finished(), "the stand-in for agents has ended");
    say(&format!(
        "all Ready after {:.0} s; letting it settle (30 s)",
        made.as_secs_f64()
    ));
    crowd.idle(Duration::from_secs(30)).await?;
    say(&format!("watching it idle ({} s)", cli.seconds));
    let idle = watch(&crowd, cli.seconds).await?;
    say("a new operator takes over");
    let restarted = Instant::now();
    house.kubectl(&["-n", SYSTEM, "rollout", "restart", "deployment"])?;
    house.kubectl(&["-n", SYSTEM, "rollout", "status", "deployment", "--timeout=300s"])?;
    crowd.change().await?;
    let changed = restarted.elapsed();
    say(&format!(
        "it has taken up a change after {:.1} s",
        changed.as_secs_f64()
    ));
    crowd.idle(Duration::from_secs(60)).await?;
    let after = watch(&crowd, cli.seconds).await?;
    Ok(json!({
        "sets": cli.sets, "members": cli.sets * 3, "secondsToAllReady": made.as_secs_f64(), "idle": idle,
        "secondsToChangeAfterRestart": changed.as_secs_f64(), "idleAfterRestart": after,
    }))
}

/// Waits until all are Ready.
async fn ready(crowd: &Crowd, all: usize, begun: Instant, known: &AtomicUsize) -> Result<Duration> {
    loop {
        let ready = crowd.ready().await.unwrap_or(0);
        if ready == all {
            return Ok(begun.elapsed());
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "only {ready} of {all} sets are Ready after {PATIENCE:?}"
        );
        say(&format!(
            "{:.0} s: {ready} of {all} sets Ready, {} members stood in for",
            begun.elapsed().as_secs_f64(),
            known.load(Ordering::Relaxed)
        ));
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}

async fn watch(crowd: &Crowd, seconds: u64) -> Result<Value> {
    let (before, begun) = (processes()?, Instant::now());
    let requests = crowd.idle(Duration::from_secs(seconds)).await?;
    let (after, took) = (processes()?, begun.elapsed().as_secs_f64());
    let operators: Vec<Value> = after
        .iter()
        .filter(|(_, process)| !process.agent)
        .filter_map(|(pid, process)| {
            let cores = (process.cpu - before.get(pid)?.cpu) / took;
            Some(json!({"cores": cores, "rssKiB": process.rss, "peakKiB": process.peak, "anonymousKiB": process.anonymous}))
        })
        .collect();
    ensure!(
        operators.len() == 2,
        "two operators are expected on this machine, not {}",
        operators.len()
    );
    let leading = operators
        .iter()
        .max_by(|a, b| cores(a).total_cmp(&cores(b)))
        .context("an operator")?;
    Ok(json!({
        "seconds": took, "leading": leading, "operators": operators, "agentsRequestsPerSecond": requests as f64 / took,
    }))
}

fn cores(operator: &Value) -> f64 {
    operator.get("cores").and_then(Value::as_f64).unwrap_or(0.0)
}
