//! What is known about a bed, in one JSON file that any process can read and that changes only under a lock.

use crate::net::{Host, Net};
use crate::paths;
use crate::run::Proc;
use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// One direction of one link that is cut, wholly or in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The host that no longer hears.
    pub at: Host,
    /// The host that it no longer hears.
    pub from: Host,
    /// How many packets of a hundred are lost; 100 is a cut.
    pub percent: u8,
}

/// The state of one bed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// What the user calls it.
    pub name: String,
    /// Its addresses.
    pub net: Net,
    /// How many nodes it has, numbered from 1.
    pub nodes: u8,
    /// A process whose end makes the bed stale; none for a bed that lives until it is taken down.
    pub owner: Option<Proc>,
    /// The process that starts the bed: a bed that is not ready when it has ended never will be.
    pub starter: Option<Proc>,
    /// Whether `up` got to its end.
    pub ready: bool,
    /// Background programs by name; a node's is the wrapper around its first process.
    pub procs: BTreeMap<String, Proc>,
    /// Nodes without power.
    pub off: BTreeSet<u8>,
    /// Hosts that are frozen.
    pub frozen: BTreeSet<Host>,
    /// Links that are cut.
    pub cuts: Vec<Cut>,
    /// Whether the API server was taken down on purpose.
    pub api_down: bool,
    /// Other faults in force, by what they hit, in words for `bed status`.
    pub notes: BTreeMap<String, String>,
    /// Tokens of the API server's users.
    pub tokens: BTreeMap<String, String>,
    /// Password of the https Git server.
    pub git_token: String,
}

impl State {
    /// The bed's folder.
    pub fn dir(&self) -> Result<PathBuf> {
        paths::bed(&self.name)
    }

    /// The folder of node `n`, which the node sees as `/run/bed`.
    pub fn node_dir(&self, n: u8) -> Result<PathBuf> {
        Ok(self.dir()?.join(format!("node{n}")))
    }

    /// Where the log of a background program goes.
    pub fn log(&self, name: &str) -> Result<PathBuf> {
        Ok(self.dir()?.join("log").join(format!("{name}.log")))
    }

    /// The path of a program that the bed runs.
    pub fn bin(&self, name: &str) -> Result<String> {
        Ok(paths::text(&self.dir()?.join("bin").join(name))?.to_string())
    }

    /// Pid on the machine of a node's first process, if the node runs.
    pub fn first(&self, n: u8) -> Option<i32> {
        let wrapper = self.procs.get(&format!("node{n}")).filter(|wrapper| wrapper.alive())?;
        crate::run::child_of(wrapper.pid)
    }

    /// Reads the state of the bed called `name`.
    pub fn load(name: &str) -> Result<State> {
        let file = paths::bed(name)?.join("state.json");
        let text = fs::read(&file)
            .with_context(|| format!("there is no bed called '{name}': start it with `bed up --name {name}`"))?;
        serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} cannot be read: remove the bed with `bed down --name {name}`",
                file.display()
            )
        })
    }

    /// Writes the state so that a reader sees the old one or the new one.
    pub fn save(&self) -> Result<()> {
        let dir = self.dir()?;
        let draft = dir.join("state.json.new");
        fs::write(&draft, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&draft, dir.join("state.json")).context("cannot save the bed's state")
    }
}

/// Names of all beds that have a folder.
pub fn names() -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(paths::beds()?) else {
        return Ok(Vec::new());
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

/// A lock that ends with the process that holds it.
pub struct Lock(#[allow(dead_code, reason = "held for its drop")] Flock<File>);

/// Waits for, and takes, the lock on `file`.
pub fn lock(file: &Path) -> Result<Lock> {
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    let open = File::options().create(true).append(true).open(file)?;
    let held = Flock::lock(open, FlockArg::LockExclusive).map_err(|(_, error)| error);
    Ok(Lock(held.with_context(|| format!("cannot lock {}", file.display()))?))
}
