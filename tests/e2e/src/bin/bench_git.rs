//! `make bench-git`: what a GitSource with very many objects costs, by the API server's own audit log.
//!
//! Times are from that log too: from the moment that a webhook is answered to the moment that the API server has done the
//! last request of that commit. Nothing of the measuring stands in between.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use holdfast_bed::bed::Owner;
use holdfast_e2e::house::{SYSTEM, say, wait_for};
use holdfast_e2e::requests::{Mark, Request, Webhook};
use holdfast_e2e::source::{condition, secret, text};
use holdfast_e2e::{House, Repo, Source};
use serde_json::{Value, json};

const NAMESPACE: &str = "bench";
/// The operator's Pods.
const OPERATOR: &str = "app.kubernetes.io/component=operator";
/// Objects in one file.
const PER_FILE: usize = 100;

#[derive(Parser)]
#[command(about = "What a GitSource with very many objects costs: seconds, and requests to the API server.")]
struct Cli {
    /// ConfigMaps in the repository.
    #[arg(long, default_value_t = 10_000)]
    objects: usize,
    /// How often one of them is changed.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// How many seconds of nothing are watched.
    #[arg(long, default_value_t = 60)]
    quiet: u64,
    /// Where the figures go as JSON; the table is printed.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    ensure!(
        cli.objects > PER_FILE && cli.rounds > 0,
        "at least {PER_FILE} objects, and a round"
    );
    let (name, owner) = match std::env::var("HOLDFAST_BED") {
        Ok(name) => (name, Owner::Nobody),
        Err(_) => ("bench".to_owned(), Owner::Process),
    };
    let house = House::open(&name, owner)?;
    house.namespace(NAMESPACE)?;
    let bench = Bench::start(&house, &cli)?;
    let first = bench.first()?;
    let quiet = bench.quiet(cli.quiet)?;
    let restart = bench.restart()?;
    let changes = (0..cli.rounds)
        .map(|round| bench.change(round))
        .collect::<Result<Vec<_>>>()?;
    let figures = figures(&cli, first, quiet, restart, changes);
    bench.no_restarts()?;
    print!("{}", table(&figures));
    if let Some(file) = &cli.json {
        fs::write(file, serde_json::to_string_pretty(&figures)? + "\n")?;
    }
    house.kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"])?;
    Ok(())
}

struct Bench<'a> {
    house: &'a House,
    repo: Repo,
    source: Source<'a>,
    webhook: Webhook,
    objects: usize,
    commit: String,
    start: Mark,
    started: f64,
}

/// One measured change set.
struct Measured {
    seconds: f64,
    /// When the API server had answered the last request.
    done: f64,
    requests: BTreeMap<String, usize>,
    /// Seconds of it after the commit had been fetched.
    after_fetch: Option<f64>,
}

impl<'a> Bench<'a> {
    /// A repository with all objects, and a source that takes it.
    fn start(house: &'a House, cli: &Cli) -> Result<Bench<'a>> {
        say(&format!("making a repository with {} ConfigMaps", cli.objects));
        let repo = Repo::new(house, NAMESPACE)?;
        for file in 0..cli.objects.div_ceil(PER_FILE) {
            write(&repo, file, cli.objects, "first")?;
        }
        let commit = repo.push("All of them")?;
        secret(house, NAMESPACE, "hook", json!({"token": "between us"}))?;
        let start = house.mark_requests()?;
        let started = now();
        let hourly = json!({"interval": "1h", "webhook": {"secretRef": {"name": "hook"}}});
        Ok(Bench {
            house,
            source: Source::over_ssh(house, NAMESPACE, &repo, hourly)?,
            webhook: Webhook::new(house, NAMESPACE, "git", b"between us")?,
            repo,
            objects: cli.objects,
            commit,
            start,
            started,
        })
    }

    /// From the GitSource's creation to everything applied and healthy.
    fn first(&self) -> Result<Measured> {
        say("the first commit: all objects are tried, then made (usually 2 min for 10,000)");
        self.wait(&self.commit)?;
        self.measure(self.start, self.started)
    }

    /// Polls every second; nothing moves.
    fn quiet(&self, seconds: u64) -> Result<(usize, usize)> {
        say(&format!(
            "watching {seconds} s in which nothing moves, polled every second"
        ));
        self.source.patch(json!({"interval": "1s"}))?;
        std::thread::sleep(Duration::from_secs(10));
        let polls = || -> Result<usize> {
            Ok(fs::read_to_string(self.house.bed.log("git-ssh")?)?
                .matches("Accepted publickey")
                .count())
        };
        let (mark, before) = (self.house.mark_requests()?, polls()?);
        std::thread::sleep(Duration::from_secs(seconds));
        let requests = self.requests(mark)?.len();
        let polled = polls()? - before;
        self.source.patch(json!({"interval": "1h"}))?;
        std::thread::sleep(Duration::from_secs(10));
        Ok((polled, requests))
    }

    /// The operator's Pods are deleted; how many requests until the next one has looked at everything and is quiet.
    fn restart(&self) -> Result<usize> {
        say("restarting the operator (usually 40 s)");
        let mark = self.house.mark_requests()?;
        self.house.kubectl(&[
            "-n",
            SYSTEM,
            "delete",
            "pods",
            "-l",
            OPERATOR,
            "--wait",
            "--timeout=60s",
        ])?;
        self.house.kubectl(&[
            "-n",
            SYSTEM,
            "rollout",
            "status",
            "deployment/holdfast",
            "--timeout=120s",
        ])?;
        let mut before = usize::MAX;
        wait_for("a quiet operator", Duration::from_secs(300), || {
            std::thread::sleep(Duration::from_secs(10));
            let now = self.requests(mark)?.len();
            let quiet = now == std::mem::replace(&mut before, now) && now > 0;
            Ok(if quiet { Ok(now) } else { Err(format!("{now} requests")) })
        })
    }

    /// Memory that is not enough shows as containers that start again.
    fn no_restarts(&self) -> Result<()> {
        let path = "-o=jsonpath={.items[*].status.containerStatuses[*].restartCount}";
        let counts = self
            .house
            .kubectl(&["-n", SYSTEM, "get", "pods", "-l", OPERATOR, path])?;
        ensure!(
            counts.split_whitespace().all(|n| n == "0"),
            "the operator's containers started again ({counts} times): see `kubectl describe`"
        );
        Ok(())
    }

    /// One of the objects changes.
    fn change(&self, round: usize) -> Result<Measured> {
        let file = round * 7 % self.objects.div_ceil(PER_FILE);
        write(&self.repo, file, self.objects, &format!("round {round}"))?;
        let commit = self.repo.push(&format!("Round {round}"))?;
        // Two polls of a source are at least a second apart.
        std::thread::sleep(Duration::from_secs(2));
        let mark = self.house.mark_requests()?;
        let started = now();
        let answer = self.webhook.deliver()?;
        ensure!(answer == 202, "the webhook was answered {answer}");
        self.wait(&commit)?;
        let mut measured = self.measure(mark, started)?;
        measured.after_fetch = Some(measured.done - self.fetched(&commit)?);
        Ok(measured)
    }

    /// When the operator had the commit, by its own log on this same machine.
    fn fetched(&self, commit: &str) -> Result<f64> {
        let log = self
            .house
            .kubectl(&["-n", SYSTEM, "logs", "-l", OPERATOR, "--tail=1000"])?;
        log.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|line| line["message"] == "fetched" && line["revision"] == commit)
            .and_then(|line| line.get("timestamp")?.as_str()?.parse::<jiff::Timestamp>().ok())
            .map(|at| at.as_duration().as_secs_f64())
            .with_context(|| format!("the operator's log does not tell of {commit}"))
    }

    fn wait(&self, commit: &str) -> Result<()> {
        self.source.wait_within(
            &format!("{commit} is in force and healthy"),
            Duration::from_secs(900),
            |status| {
                (text(status, "/appliedRevision") == commit && condition(status, "Ready").status == "True")
                    .then_some(())
            },
        )
    }

    fn requests(&self, mark: Mark) -> Result<Vec<Request>> {
        let mut requests = self.house.requests_since(mark)?;
        let (path, account) = (format!("/namespaces/{NAMESPACE}/"), format!(":{NAMESPACE}:"));
        requests.retain(|r| r.uri.contains(&path) || r.acts_as.contains(&account));
        Ok(requests)
    }

    fn measure(&self, mark: Mark, started: f64) -> Result<Measured> {
        let requests = self.requests(mark)?;
        let last = requests.iter().map(|r| r.done).fold(started, f64::max);
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for request in &requests {
            let dry = if request.uri.contains("dryRun=All") {
                ", tried"
            } else {
                ""
            };
            let what = request.uri.split('?').next().unwrap_or_default();
            let what = what
                .rsplit_once(&format!("/namespaces/{NAMESPACE}/"))
                .map_or(what, |(_, rest)| rest);
            let what = match what.split('/').collect::<Vec<_>>().as_slice() {
                [kind, name, ..] if name.contains("-inventory-") => format!("{kind} (inventory)"),
                [kind, _, sub] => format!("{kind}/{sub}"),
                [kind, ..] => (*kind).to_owned(),
                [] => String::new(),
            };
            *kinds.entry(format!("{} {what}{dry}", request.verb)).or_default() += 1;
        }
        Ok(Measured {
            seconds: last - started,
            done: last,
            requests: kinds,
            after_fetch: None,
        })
    }
}

/// One file of the repository; `value` is that of its first object, all others keep theirs.
fn write(repo: &Repo, file: usize, objects: usize, value: &str) -> Result<()> {
    let range = file * PER_FILE..((file + 1) * PER_FILE).min(objects);
    let first = range.start;
    let text: String = range
        .map(|n| {
            let value = if n == first { value } else { "first" };
            format!("{}---\n", holdfast_e2e::repo::config_map(&format!("c{n:05}"), value))
        })
        .collect();
    repo.write(&format!("f{file:03}.yaml"), &text).map(drop)
}

fn now() -> f64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}

fn figures(
    cli: &Cli,
    first: Measured,
    (polls, requests): (usize, usize),
    restart: usize,
    changes: Vec<Measured>,
) -> Value {
    let sorted = |of: &dyn Fn(&Measured) -> Option<f64>| {
        let mut seconds: Vec<f64> = changes.iter().filter_map(of).collect();
        seconds.sort_by(f64::total_cmp);
        seconds
    };
    let at = |seconds: &[f64], share: usize| {
        seconds
            .get(seconds.len().saturating_sub(1) * share / 100)
            .copied()
            .unwrap_or_default()
    };
    let (seconds, after) = (sorted(&|c| Some(c.seconds)), sorted(&|c| c.after_fetch));
    json!({
        "objects": cli.objects,
        "first": {"seconds": first.seconds, "requests": first.requests.values().sum::<usize>(), "by": first.requests},
        "restart": {"requests": restart},
        "quiet": {"seconds": cli.quiet, "polls": polls, "requests": requests},
        "change": {
            "rounds": changes.len(), "secondsMedian": at(&seconds, 50), "secondsLongest": at(&seconds, 100), "seconds": seconds,
            "afterFetchMedian": at(&after, 50), "afterFetchLongest": at(&after, 100), "afterFetch": after,
            "requests": changes.iter().map(|c| c.requests.values().sum::<usize>()).collect::<Vec<_>>(),
            "by": changes.last().map(|c| &c.requests),
        },
    })
}

fn table(figures: &Value) -> String {
    let at = |pointer: &str| figures.pointer(pointer).cloned().unwrap_or_default();
    let seconds = |pointer: &str| at(pointer).as_f64().unwrap_or_default();
    format!(
        "| What | Seconds | Requests to the API server |\n|---|---|---|\n\
         | first commit: {} objects made | {:.1} | {} |\n\
         | nothing moves: {} polls | {} | {} |\n\
         | the operator restarts | | {} |\n\
         | one object of them changes ({} rounds) | median {:.2}, longest {:.2} | {} |\n\
         | of that, after the commit was fetched | median {:.3}, longest {:.3} | |\n",
        at("/objects"),
        seconds("/first/seconds"),
        at("/first/requests"),
        at("/quiet/polls"),
        at("/quiet/seconds"),
        at("/quiet/requests"),
        at("/restart/requests"),
        at("/change/rounds"),
        seconds("/change/secondsMedian"),
        seconds("/change/secondsLongest"),
        at("/change/requests"),
        seconds("/change/afterFetchMedian"),
        seconds("/change/afterFetchLongest"),
    )
}
