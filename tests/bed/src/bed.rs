//! A bed as a whole: up, found again, down.

use crate::control::{self, kubeconfig};
use crate::git::{self, GitServers};
use crate::image::{self, ImageRef, ImageSpec};
use crate::net::{Host, Net};
use crate::run::{self, Proc, progress};
use crate::state::{self, Lock, State};
use crate::{binaries, cgroup, client, cluster, links, net, node, packages, paths, pki, registry};
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
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
    /// Whether the bed ends with this process: a later start of any bed removes it once this process is gone.
    pub owned: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            name: "default".into(),
            nodes: 3,
            postgres: vec![17],
            owned: false,
        }
    }
}

/// A bed that is up. Dropping it leaves it up; see [`Bed::down`].
#[derive(Debug, Clone)]
pub struct Bed {
    name: String,
}

impl Bed {
    /// Starts a bed and returns when all nodes are Ready. Usually 25 s; the first time ever, 20 min more for the programs.
    /// A bed of that name that is already up is used as it is, when it has the nodes asked for.
    pub fn up(options: Options) -> Result<Bed> {
        packages::need_root()?;
        packages::ensure()?;
        binaries::build()?;
        image::pause()?;
        for major in &options.postgres {
            image::postgres(*major)?;
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
                options.name,
                state.nodes,
                options.nodes
            );
            progress(&format!("bed '{}' is up already", options.name));
            return Ok(bed);
        }
        progress(&format!(
            "starting bed '{}' with {} nodes (usually 25 s)",
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
            let layout = image::postgres(*major)?;
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

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> Result<PathBuf> {
        kubeconfig(&self.state()?, "admin")
    }

    /// A program of the bed: `kubectl`, `helm`, `ctr`, …
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        Ok(paths::bed(&self.name)?.join("bin").join(name))
    }

    /// A `kubectl` that speaks for the administrator.
    pub fn kubectl(&self) -> Result<Command> {
        control::kubectl(&self.state()?)
    }

    /// The registry's name and port, valid in image names, on nodes and in pods: `registry.bed:5000`.
    pub fn registry(&self) -> &'static str {
        registry::NAME
    }

    /// The registry's address and port, valid on the machine itself.
    pub fn registry_address(&self) -> Result<String> {
        Ok(format!("{}:5000", self.state()?.net.ip(Host::Registry)))
    }

    /// Builds an image and puts it into the registry as `name`, e.g. `holdfast/operator:dev`.
    pub fn push_image(&self, spec: &ImageSpec, name: &str) -> Result<ImageRef> {
        let state = self.state()?;
        let work = state.dir()?.join(format!("image-{}", pki::token()?));
        let pushed = spec.write(&work).and_then(|_| registry::install(&state, &work, name));
        let _ = fs::remove_dir_all(&work);
        pushed
    }

    /// Puts an archive in `oci-archive` format into the registry as `name`.
    pub fn push_archive(&self, archive: &Path, name: &str) -> Result<ImageRef> {
        let state = self.state()?;
        let work = state.dir()?.join(format!("image-{}", pki::token()?));
        let pushed = registry::unpack_archive(archive, &work).and_then(|()| registry::install(&state, &work, name));
        let _ = fs::remove_dir_all(&work);
        pushed
    }

    /// Puts a PostgreSQL major version into the registry; made first if need be, which usually takes 60 s.
    pub fn push_postgres(&self, major: u8) -> Result<ImageRef> {
        registry::install(
            &self.state()?,
            &image::postgres(major)?,
            &format!("bed/postgres:{major}"),
        )
    }

    /// The Git servers.
    pub fn git(&self) -> Result<GitServers> {
        GitServers::of(&self.state()?)
    }

    /// A command that runs on a host of the bed; on [`Host::Client`] it is an outside client of Services and names.
    pub fn command_on<S: AsRef<str>>(&self, host: Host, argv: &[S]) -> Result<Command> {
        let argv: Vec<String> = argv.iter().map(|word| word.as_ref().to_string()).collect();
        client::command_on(&self.state()?, host, &argv)
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
        starter: binaries::this_process(),
        owner: if options.owned { binaries::this_process() } else { None },
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

/// Removes beds whose owner is gone, and beds that nothing runs of (the machine was restarted). The caller holds the lock.
fn remove_stale() -> Result<()> {
    for name in state::names()? {
        let stale = match State::load(&name) {
            Ok(state) => {
                let orphan = state.owner.is_some_and(|owner| !owner.alive());
                let given_up = !state.ready && state.starter.is_none_or(|starter| !starter.alive());
                orphan || given_up || (state.ready && cgroup::pids(&state.net.id()).is_empty())
            }
            // A folder without a readable state is what a start or an end cut short leaves.
            Err(_) => true,
        };
        if stale {
            progress(&format!("removing stale bed '{name}'"));
            remove(&name)?;
        }
    }
    Ok(())
}

/// Takes all beds down, also those that only left something on the machine.
pub fn down_all() -> Result<()> {
    let _lock = state::lock(&paths::home()?.join("beds.lock"))?;
    for name in state::names()? {
        remove(&name)?;
    }
    for id in cgroup::beds(net::PREFIX) {
        let Some(Ok(slot)) = id.strip_prefix(net::PREFIX).map(str::parse) else {
            continue;
        };
        progress(&format!("removing what is left of a bed on {id}"));
        remove_from_machine(&Net { slot })?;
    }
    Ok(())
}

/// Removes the bed called `name`. The caller holds the lock on beds.
fn remove(name: &str) -> Result<()> {
    let dir = paths::bed(name)?;
    if let Ok(mut state) = State::load(name) {
        progress(&format!("taking bed '{name}' down (usually 3 s)"));
        for n in 1..=state.nodes {
            // Errors are expected in a bed that is half up: what counts is that nothing is left afterwards.
            if let Err(error) = node::power_off(&mut state, n)
                && state.ready
            {
                progress(&format!("node{n}: {error:#}"));
            }
        }
        remove_from_machine(&state.net)?;
        for n in 1..=state.nodes {
            node::wait_released(&state.node_dir(n)?)?;
        }
    }
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(())
}

fn remove_from_machine(net: &Net) -> Result<()> {
    let id = net.id();
    cgroup::kill(&id, Duration::from_secs(30))?;
    links::remove_all(net);
    cgroup::remove(&id);
    Ok(())
}
