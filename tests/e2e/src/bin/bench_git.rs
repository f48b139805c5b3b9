//! `make bench-git`: what a repository with very many objects costs under Holdfast and under Flux, by the API server's own audit
//! log: the same bed, the same repository, one system after the other.
//!
//! Times are from that log too: from the moment that the system is told of a commit to the moment that the API server has done
//! the last request of that commit. Nothing of the measuring stands in between.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use holdfast_bed::bed::Owner;
use holdfast_e2e::cost::{Process, of_bed};
use holdfast_e2e::flux::Flux;
use holdfast_e2e::gitcost::{Cost, Figures, Measured, Quiet, measure, table};
use holdfast_e2e::gitops::{GitOps, Holdfast, PATIENCE, now};
use holdfast_e2e::house::{say, wait_for};
use holdfast_e2e::requests::{Mark, Request};
use holdfast_e2e::{House, Repo};

const NAMESPACE: &str = "bench";
/// Objects in one file.
const PER_FILE: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    Holdfast,
    Flux,
}

#[derive(Parser)]
#[command(about = "What a repository with very many objects costs: seconds, and requests to the API server.")]
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
    /// The systems, one after the other.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Which::Holdfast, Which::Flux])]
    systems: Vec<Which>,
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
    if cli.systems.contains(&Which::Flux) {
        // Before the bed, which is to have the machine to itself.
        holdfast_bed::flux::controllers()?;
    }
    let (name, owner) = match std::env::var("HOLDFAST_BED") {
        Ok(name) => (name, Owner::Nobody),
        Err(_) => ("bench".to_owned(), Owner::Process),
    };
    let house = if cli.systems.contains(&Which::Holdfast) {
        House::open(&name, owner)?
    } else {
        House::bare(&name, owner)?
    };
    let mut all: BTreeMap<String, Figures> = BTreeMap::new();
    for which in &cli.systems {
        let name = which.to_possible_value().context("a name")?.get_name().to_owned();
        say(&format!("now {name}"));
        house.namespace(NAMESPACE)?;
        let figures = match which {
            Which::Holdfast => run(&Holdfast::new(&house, NAMESPACE)?, &cli)?,
            Which::Flux => {
                let flux = Flux::install(&house, NAMESPACE)?;
                let figures = run(&flux, &cli)?;
                flux.uninstall()?;
                figures
            }
        };
        all.insert(name, figures);
        if let Some(file) = &cli.json {
            fs::write(file, serde_json::to_string_pretty(&all)? + "\n")?;
        }
    }
    print!("{}", table(&all));
    Ok(())
}

fn run(system: &dyn GitOps, cli: &Cli) -> Result<Figures> {
    let bench = Bench::start(system, cli)?;
    let first = bench.first()?;
    let quiet = bench.quiet(cli.quiet)?;
    let again = bench.again()?;
    let restart = bench.restart()?;
    let changes = (0..cli.rounds)
        .map(|round| bench.change(round))
        .collect::<Result<_>>()?;
    system.no_restarts()?;
    system.leave()?;
    let (namespace, wait) = (system.namespace(), ["--wait", "--timeout=900s"]);
    say("taking the objects away (usually 1 min for 10,000)");
    system
        .house()
        .kubectl(&[&["delete", "namespace", namespace], &wait[..]].concat())?;
    Ok(Figures {
        objects: cli.objects,
        first,
        quiet,
        again,
        restart,
        changes,
    })
}

struct Bench<'a> {
    system: &'a dyn GitOps,
    repo: Repo,
    objects: usize,
}

/// A moment from which requests and processor time are counted.
struct Since {
    mark: Mark,
    processes: BTreeMap<(u32, String), Process>,
}

impl<'a> Bench<'a> {
    /// A repository with all objects.
    fn start(system: &'a dyn GitOps, cli: &Cli) -> Result<Bench<'a>> {
        say(&format!("making a repository with {} ConfigMaps", cli.objects));
        let repo = Repo::new(system.house(), NAMESPACE)?;
        for file in 0..cli.objects.div_ceil(PER_FILE) {
            write(&repo, file, cli.objects, "first")?;
        }
        Ok(Bench {
            system,
            repo,
            objects: cli.objects,
        })
    }

    /// From the source's creation to everything in force.
    fn first(&self) -> Result<Measured> {
        say("the first commit: all objects are tried, then made (usually 2 min for 10,000)");
        let commit = self.repo.push("All of them")?;
        let (from, started) = (self.from()?, now());
        self.system.take(&self.repo)?;
        self.system.wait(&commit)?;
        self.measure(&from, started)
    }

    /// The repository is polled; nothing moves.
    fn quiet(&self, seconds: u64) -> Result<Quiet> {
        let interval = self.system.quiet_interval();
        say(&format!(
            "watching {seconds} s in which nothing moves, polled every {interval}"
        ));
        self.system.poll_every(interval)?;
        std::thread::sleep(Duration::from_secs(10));
        let polls = || -> Result<usize> {
            Ok(fs::read_to_string(self.system.house().bed.log("git-ssh")?)?
                .matches("Accepted publickey")
                .count())
        };
        let (from, before) = (self.from()?, polls()?);
        std::thread::sleep(Duration::from_secs(seconds));
        let asked = measure(&self.requests(from.mark)?, self.system.namespace(), now());
        let quiet = Quiet {
            seconds,
            polls: polls()? - before,
            requests: asked.requests,
            by: asked.by,
            cost: self.cost(&from)?,
        };
        say(&format!("{} polls, {} requests", quiet.polls, quiet.requests));
        self.system.poll_every("1h")?;
        std::thread::sleep(Duration::from_secs(10));
        Ok(quiet)
    }

    /// All objects are looked at without news, if the system does this.
    fn again(&self) -> Result<Option<Measured>> {
        say("a look at all objects without news, if it does such a thing");
        let from = self.from()?;
        match self.system.again()? {
            Some(started) => self.measure(&from, started).map(Some),
            None => Ok(None),
        }
    }

    /// How many requests until the next controllers have looked at everything and are quiet.
    fn restart(&self) -> Result<usize> {
        // Memory that was not enough before would not be seen afterwards.
        self.system.no_restarts()?;
        say("restarting its controllers (usually 70 s)");
        let mark = self.system.house().mark_requests()?;
        self.system.restart()?;
        let (mut before, mut same) = (0, 0);
        wait_for("quiet controllers", PATIENCE, || {
            std::thread::sleep(Duration::from_secs(10));
            let now = self.requests(mark)?.len();
            let unchanged = now == std::mem::replace(&mut before, now) && now > 0 && !self.system.busy()?;
            same = if unchanged { same + 1 } else { 0 };
            // Flux tries again after 30 s what depends on something that was not there.
            Ok(if same == 4 {
                Ok(now)
            } else {
                Err(format!("{now} requests"))
            })
        })
    }

    /// One of the objects changes.
    fn change(&self, round: usize) -> Result<Measured> {
        say(&format!("round {round}: one object changes"));
        let file = round * 7 % self.objects.div_ceil(PER_FILE);
        write(&self.repo, file, self.objects, &format!("round {round}"))?;
        let commit = self.repo.push(&format!("Round {round}"))?;
        // Two polls of a source are at least a second apart.
        std::thread::sleep(Duration::from_secs(2));
        let from = self.from()?;
        let started = self.system.tell()?;
        self.system.wait(&commit)?;
        let mut measured = self.measure(&from, started)?;
        let requests = self.requests(from.mark)?;
        measured.after_fetch = self.system.fetched(&commit, &requests)?.map(|at| {
            let after = requests.iter().filter(|r| r.done > at).count();
            (measured.done - at, after)
        });
        Ok(measured)
    }

    fn from(&self) -> Result<Since> {
        Ok(Since {
            mark: self.system.house().mark_requests()?,
            processes: self.processes()?,
        })
    }

    fn processes(&self) -> Result<BTreeMap<(u32, String), Process>> {
        let bed = self.system.house().bed.state()?.net.id();
        of_bed(&bed, self.system.programs())
    }

    fn requests(&self, mark: Mark) -> Result<Vec<Request>> {
        let mut requests = self.system.house().requests_of(self.system.system(), mark)?;
        requests.retain(|r| self.system.concerns(r));
        Ok(requests)
    }

    fn measure(&self, from: &Since, started: f64) -> Result<Measured> {
        // Events are sent in their own time.
        std::thread::sleep(Duration::from_secs(1));
        let mut measured = measure(&self.requests(from.mark)?, self.system.namespace(), started);
        measured.cost = self.cost(from)?;
        say(&format!("{:.2} s, {} requests", measured.seconds, measured.requests));
        Ok(measured)
    }

    fn cost(&self, from: &Since) -> Result<BTreeMap<String, Cost>> {
        let mut all: BTreeMap<String, Cost> = BTreeMap::new();
        for (key, process) in self.processes()? {
            let before = from.processes.get(&key).map_or(0.0, |p| p.cpu);
            let cost = all.entry(key.1).or_default();
            cost.cpu += process.cpu - before;
            cost.peak_kib = cost.peak_kib.max(process.peak);
        }
        Ok(all)
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
