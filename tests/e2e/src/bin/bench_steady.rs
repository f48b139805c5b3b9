//! `make bench-steady`: what a replica set costs when nothing happens, and how soon a new one is there.
//!
//! Processor time and memory are read from the machine's own /proc, requests from the API server's audit log.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use holdfast_bed::bed::Owner;
use holdfast_e2e::cost::{Process, processes};
use holdfast_e2e::house::{SYSTEM, say};
use holdfast_e2e::writers::Writers;
use holdfast_e2e::{House, Set, System};
use serde_json::{Value, json};

const NAMESPACE: &str = "steady";
/// Clients under load, as in the fault runs.
const CLIENTS: u32 = 8;

#[derive(Parser)]
#[command(about = "What a replica set costs when nothing happens, and how soon a new one is there.")]
struct Cli {
    /// New sets of three members, one after the other. One more is made first, which brings images to the nodes.
    #[arg(long, default_value_t = 5)]
    starts: usize,
    /// How long each state is watched (s).
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The bed; it stays up.
    #[arg(long, default_value = "bench")]
    bed: String,
    /// Where the figures go as JSON, beside being printed.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let house = House::open(&cli.bed, Owner::Nobody)?;
    let mut starts = Vec::new();
    for number in 0..=cli.starts {
        let namespace = format!("start-{number}");
        house.namespace(&namespace)?;
        let took = Set::apply(&house, &namespace, "db", 3, "")?.wait_ready(Duration::from_secs(300))?;
        if number > 0 {
            starts.push(took.as_secs_f64());
        }
        house.kubectl(&["delete", "namespace", &namespace, "--timeout=120s"])?;
    }
    house.namespace(NAMESPACE)?;
    let set = Set::apply(&house, NAMESPACE, "db", 3, "")?;
    set.wait_ready(Duration::from_secs(300))?;
    say("letting it settle (30 s)");
    std::thread::sleep(Duration::from_secs(30));
    say(&format!("watching it idle ({} s)", cli.seconds));
    let idle = watch(&house, cli.seconds)?;
    say(&format!("watching it under {CLIENTS} clients ({} s)", cli.seconds));
    let writers = Writers::start(set.access()?, CLIENTS)?;
    let busy = watch(&house, cli.seconds)?;
    let verdict = writers.finish()?;
    ensure!(verdict.violations.is_empty(), "{:?}", verdict.violations);
    starts.sort_by(f64::total_cmp);
    let figures = json!({
        "coldStart": {"seconds": starts, "median": starts.get(starts.len() / 2)},
        "idle": idle,
        "busy": busy,
        "busyRows": verdict.acknowledged,
    });
    println!("{}", serde_json::to_string_pretty(&figures)?);
    if let Some(file) = &cli.json {
        fs::write(file, serde_json::to_string_pretty(&figures)? + "\n")?;
    }
    house
        .kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"])
        .map(drop)
}

/// Agents, the leading operator, and requests, over some seconds.
fn watch(house: &House, seconds: u64) -> Result<Value> {
    let before = processes()?;
    ensure!(
        before.values().filter(|p| p.agent).count() == 3,
        "three agents are expected on this machine: take other beds down"
    );
    let audit = house.bed.audit_log()?;
    let from = fs::metadata(&audit)?.len();
    std::thread::sleep(Duration::from_secs(seconds));
    let after = processes()?;
    let requests = requests(&fs::read(&audit)?, from)?;
    let cpu = |agent: bool| -> Vec<f64> {
        after
            .iter()
            .filter(|(_, p)| p.agent == agent)
            .filter_map(|(pid, p)| Some((p.cpu - before.get(pid)?.cpu) / seconds as f64))
            .collect()
    };
    let most = |of: &dyn Fn(&Process) -> u64, agent: bool| {
        after.values().filter(|p| p.agent == agent).map(of).max().unwrap_or(0)
    };
    let minute = 60.0 / seconds as f64;
    Ok(json!({
        "seconds": seconds,
        "agents": {
            "coresOfOne": cpu(true), "rssKiB": most(&|p| p.rss, true), "anonymousKiB": most(&|p| p.anonymous, true),
        },
        "operators": {
            "coresOfOne": cpu(false), "rssKiB": most(&|p| p.rss, false), "anonymousKiB": most(&|p| p.anonymous, false),
        },
        "requestsPerMinute": requests
            .into_iter()
            .map(|(what, count)| (what, count as f64 * minute))
            .collect::<BTreeMap<_, _>>(),
    }))
}

/// Ended requests of the operator and of members, leases included, watches not.
fn requests(log: &[u8], from: u64) -> Result<BTreeMap<String, usize>> {
    let new = log.get(usize::try_from(from)?..).unwrap_or_default();
    let (operator, members) = (
        format!("system:serviceaccount:{SYSTEM}:"),
        format!("system:serviceaccount:{NAMESPACE}:"),
    );
    let mut found = BTreeMap::new();
    for line in String::from_utf8_lossy(new).lines() {
        // The last line may not be whole yet.
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let who = match text("/user/username") {
            user if user.starts_with(&operator) => "operator",
            user if user.starts_with(&members) => "members",
            _ => continue,
        };
        if text("/stage") == "ResponseComplete" && text("/verb") != "watch" {
            let what = format!("{who}: {} {}", text("/verb"), text("/objectRef/resource"));
            *found.entry(what).or_default() += 1;
        }
    }
    Ok(found)
}
