//! A bed as a whole: up, found again, down.

use crate::control;
use crate::git;
use crate::net::{Host, Net};
use crate::remove::{remove, remove_stale};
use crate::run::{self, Proc, progress};
use crate::state::{self, Lock, State};
use crate::{binaries, cgroup, client, cluster, engine, image, links, net, node, packages, paths, registry};
use anyhow::{Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

/// How a bed is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name; two beds side by side have different ones.
    pub name: String,
    /// How many nodes, 1 to [`net::MAX_NODES`].
    pub nodes: u8,
    /// PostgreSQL majors whose image is in the registry from the start, as `bed/postgres:N`.
    pub postgres: Vec<u8>,
    /// Whose end is the bed's end.
    pub owner: Owner,
}

/// A process whose end takes the bed down, by the bed's own doing and whatever ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// None: the bed lives until it is taken down.
    Nobody,
    /// The process that calls.
    Process,
    /// The parent of the process that calls. A test runner that gives each test a process has one bed for all of them.
    Parent,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            name: "default".into(),
            nodes: 3,
            postgres: vec![17],
            owner: Owner::Nobody,
        }
    }
}

/// A bed that is up. Dropping it leaves it up; see [`Bed::down`].
#[derive(Debug, Clone)]
pub struct Bed {
    name: String,
}

impl Bed {
    /// Starts a bed and returns when all nodes are Ready. Usually 10 s; the first time ever, 20 min more for the programs.
    /// A bed of that name that is already up is used as it is, when it has the nodes asked for.
    pub fn up(options: Options) -> Result<Bed> {
        packages::need_root()?;
        packages::ensure()?;
        binaries::build()?;
        image::pause()?;
        for major in &options.postgres {
            engine::postgres(*major)?;
        }
        let start = Instant::now();
        let dir = paths::bed(&options.name)?;
        let bed = Bed {
            name: options.name.clone(),
        };
        let lock = state::lock(&paths::home()?.join("beds.lock"))?;
        remove_stale()?;
        if let Ok(state) = State::load(&options.name) {
            ensure!(
                state.nodes == options.nodes,
                "bed '{}' is up with {} nodes, not {}",
                state.name,
                state.nodes,
                options.nodes
            );
            drop(lock);
            bed.wait_started()?;
            return Ok(bed);
        }
        progress(&format!(
            "starting bed '{}' with {} nodes (usually 10 s)",
            options.name, options.nodes
        ));
        let mut state = new_state(&options)?;
        fs::create_dir_all(dir.join("log"))?;
        state.save()?;
        drop(lock);
        let started = bed.start(&mut state, &options);
        if let Err(error) = started {
            return Err(error.context(format!(
                "bed '{0}' did not start; look into {1}, then `bed down --name {0}`",
                options.name,
                dir.display()
            )));
        }
        progress(&format!(
            "bed '{}' is up after {:.0} s",
            options.name,
            start.elapsed().as_secs_f32()
        ));
        Ok(bed)
    }

    /// Waits for another process that starts this bed.
    fn wait_started(&self) -> Result<()> {
        run::wait_for(
            &format!("bed '{}' to be started by another process", self.name),
            Duration::from_secs(180),
            || {
                let state = self.state()?;
                Ok(state.ready || !state.starter.is_some_and(|starter| starter.alive()))
            },
        )?;
        ensure!(
            self.state()?.ready,
            "bed '{0}' did not start: `bed down --name {0}`, then start it again",
            self.name
        );
        Ok(())
    }

    fn start(&self, state: &mut State, options: &Options) -> Result<()> {
        raise_watch_limit();
        binaries::link_into(&state.dir()?.join("bin"))?;
        control::prepare(state)?;
        git::prepare(state)?;
        links::create_bridge(&state.net)?;
        for host in Host::HELPERS {
            links::plug(state, host)?;
        }
        state.procs.insert("etcd".into(), control::start_etcd(state)?);
        state.procs.insert("api".into(), control::start_api(state)?);
        state.procs.insert("registry".into(), registry::start(state)?);
        registry::install(state, &image::pause()?, image::PAUSE)?;
        for major in &options.postgres {
            let layout = engine::postgres(*major)?;
            // By the name that everybody knows, too: nodes ask the bed's registry for all registries' images.
            for name in ["bed/postgres", "library/postgres"] {
                registry::install(state, &layout, &format!("{name}:{major}"))?;
            }
        }
        for n in 1..=state.nodes {
            node::power_on(state, n)?;
        }
        state.save()?;
        progress("waiting for the API server (usually 8 s)");
        control::wait_ready(state)?;
        state
            .procs
            .insert("cm".into(), control::start_controller_manager(state)?);
        state.procs.insert("scheduler".into(), control::start_scheduler(state)?);
        cluster::create_objects(state)?;
        for n in 1..=state.nodes {
            node::release(state, n)?;
        }
        state.procs.insert("dns".into(), client::start_dns(state)?);
        state.procs.insert("client-proxy".into(), client::start_proxy(state)?);
        for (name, server) in git::start(state)? {
            state.procs.insert(name.into(), server);
        }
        state.save()?;
        state.procs.insert("provisioner".into(), start_provisioner(state)?);
        progress("waiting for the nodes (usually 10 s)");
        cluster::wait_nodes(state, 120)?;
        cluster::wait_account(state)?;
        state.ready = true;
        state.save()
    }

    /// Finds a bed that was started before, by this or another process.
    pub fn attach(name: &str) -> Result<Bed> {
        State::load(name)?;
        Ok(Bed { name: name.into() })
    }

    /// Takes the bed down and leaves nothing of it on the machine. Works on a bed in any state.
    pub fn down(self) -> Result<()> {
        let _lock = state::lock(&paths::home()?.join("beds.lock"))?;
        remove(&self.name)
    }

    /// Waits until no other test, thread or process, has the bed to itself, then takes it. Ends with what is returned.
    pub fn alone(&self) -> Result<Lock> {
        state::lock(&paths::bed(&self.name)?.join("alone.lock"))
    }

    /// What the bed is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its state at this moment.
    pub fn state(&self) -> Result<State> {
        State::load(&self.name)
    }

    /// Changes the state, alone.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let _lock: Lock = state::lock(&paths::bed(&self.name)?.join("lock"))?;
        let mut state = State::load(&self.name)?;
        let result = change(&mut state);
        // Saved even after a failure: half of a fault may be in force.
        state.save()?;
        result
    }

    /// Waits until all nodes that have power are Ready.
    pub fn wait_nodes(&self, limit: Duration) -> Result<()> {
        cluster::wait_nodes(&self.state()?, u32::try_from(limit.as_secs()).unwrap_or(u32::MAX))
    }
}

fn new_state(options: &Options) -> Result<State> {
    ensure!(
        (1..=net::MAX_NODES).contains(&options.nodes),
        "a bed has 1 to {} nodes",
        net::MAX_NODES
    );
    let taken: Vec<u8> = state::names()?
        .iter()
        .filter_map(|name| Some(State::load(name).ok()?.net.slot))
        .collect();
    let routes = run::run(&["ip", "-4", "route", "show", "table", "all"])?;
    Ok(State {
        name: options.name.clone(),
        net: Net::free(&routes, &taken)?,
        nodes: options.nodes,
        starter: Proc::of(i32::try_from(std::process::id())?),
        owner: match options.owner {
            Owner::Nobody => None,
            Owner::Process => Proc::of(i32::try_from(std::process::id())?),
            Owner::Parent => Proc::of(nix::unistd::getppid().as_raw()),
        },
        ready: false,
        procs: BTreeMap::new(),
        off: BTreeSet::new(),
        frozen: BTreeSet::new(),
        cuts: Vec::new(),
        api_down: false,
        notes: BTreeMap::new(),
        tokens: BTreeMap::new(),
        git_token: String::new(),
    })
}

fn start_provisioner(state: &State) -> Result<Proc> {
    let argv = vec![
        state.bin("bed")?,
        "internal".into(),
        "provision".into(),
        state.name.clone(),
    ];
    let cgroups = cgroup::create_freezer(&state.net.id(), "provisioner")?;
    let log = state.log("provisioner")?;
    let home = paths::text(&paths::home()?)?.to_string();
    run::Launch {
        netns: None,
        cgroups,
        log: &log,
        argv,
        env: vec![("HOLDFAST_BED_HOME", home)],
    }
    .start()
}

/// Each kubelet and containerd watches many files, and the usual limit of 128 per user is too small for two beds.
fn raise_watch_limit() {
    const FILE: &str = "/proc/sys/fs/inotify/max_user_instances";
    const ENOUGH: u32 = 2048;
    let now: u32 = fs::read_to_string(FILE)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(ENOUGH);
    if now < ENOUGH {
        let _ = fs::write(FILE, ENOUGH.to_string());
    }
}
