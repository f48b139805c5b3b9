//! Control groups, version 1. Only children of the machine's own hierarchies are made; nothing is remounted.

use crate::run::wait_for;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ROOT: &str = "/sys/fs/cgroup";
/// The file that lists a group's processes, and takes new ones.
pub const PROCS: &str = "cgroup.procs";
/// What the kubelet wants to find below its `cgroupRoot`.
const CONTROLLERS: [&str; 9] = [
    "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd",
];

/// Where groups of ours can be: runc adds version 2's hierarchy by itself on a machine that has both.
fn hierarchies() -> impl Iterator<Item = &'static str> {
    CONTROLLERS.into_iter().chain(["unified"])
}

/// The group `path` of one controller, e.g. `freezer`, `hfb0/node1`.
pub fn dir(controller: &str, path: &str) -> PathBuf {
    Path::new(ROOT).join(controller).join(path)
}

/// Makes `id/child` in every controller and returns the directories. For nodes, whose kubelet needs them all.
pub fn create_all(id: &str, child: &str) -> Result<Vec<PathBuf>> {
    CONTROLLERS
        .iter()
        .map(|controller| create(controller, id, child))
        .collect()
}

/// Makes `id/child` in the freezer only. For everything else: enough to be found, frozen and killed.
pub fn create_freezer(id: &str, child: &str) -> Result<Vec<PathBuf>> {
    Ok(vec![create("freezer", id, child)?])
}

fn create(controller: &str, id: &str, child: &str) -> Result<PathBuf> {
    let parent = dir(controller, id);
    let group = parent.join(child);
    fs::create_dir_all(&group)
        .with_context(|| format!("cannot make {}: cgroup v1 and root are needed", group.display()))?;
    if controller == "cpuset" {
        // A cpuset group takes no process before it has processors and memory nodes of its own.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let all = fs::read_to_string(Path::new(ROOT).join(controller).join(file))?;
            fs::write(parent.join(file), all.trim())?;
            fs::write(group.join(file), all.trim())?;
        }
    }
    Ok(group)
}

/// All processes in the freezer group `path` and below, by pid on the machine.
pub fn pids(path: &str) -> Vec<i32> {
    groups(&dir("freezer", path))
        .iter()
        .filter_map(|group| fs::read_to_string(group.join(PROCS)).ok())
        .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>())
        .collect()
}

/// Every group below `top`, deepest first, `top` last.
fn groups(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(entries) = fs::read_dir(top) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.extend(groups(&entry.path()));
            }
        }
        found.push(top.to_path_buf());
    }
    found
}

/// Stops every process of the group where it stands; returns once all of them are stopped.
pub fn freeze(path: &str) -> Result<()> {
    let state = dir("freezer", path).join("freezer.state");
    wait_for(&format!("{path} to freeze"), Duration::from_secs(10), || {
        // Written again each time: a process forked meanwhile can leave the group in FREEZING.
        fs::write(&state, "FROZEN")?;
        Ok(fs::read_to_string(&state)?.trim() == "FROZEN")
    })
}

/// Lets the group go on. A group that is gone is no error.
pub fn thaw(path: &str) {
    for group in groups(&dir("freezer", path)).iter().rev() {
        let _ = fs::write(group.join("freezer.state"), "THAWED");
    }
}

/// The file that thaws a group when `THAWED` is written to it.
pub fn freezer_file(path: &str) -> PathBuf {
    dir("freezer", path).join("freezer.state")
}

/// Kills everything in the group, frozen or not, and waits until it is gone.
pub fn kill(path: &str, limit: Duration) -> Result<()> {
    wait_for(&format!("the processes of {path} to end"), limit, || {
        let left = pids(path);
        for pid in &left {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL);
        }
        thaw(path);
        Ok(left.is_empty())
    })
}

/// Removes the group from every controller. What is still busy stays, and the next call finds it.
pub fn remove(path: &str) {
    for controller in hierarchies() {
        for group in groups(&dir(controller, path)) {
            let _ = fs::remove_dir(group);
        }
    }
}

/// Removes what is below `path` but leaves `path` itself: a node that starts anew finds no group of its last life.
pub fn clear(path: &str) {
    for controller in hierarchies() {
        let top = dir(controller, path);
        for group in groups(&top).iter().filter(|group| **group != top) {
            let _ = fs::remove_dir(group);
        }
    }
}

/// Gives the group `percent` of one processor, or all of them again with `None`.
pub fn limit_cpu(path: &str, percent: Option<u32>) -> Result<()> {
    // The period is the kernel's default, 100 ms: a percent of it is 1000 µs.
    let quota = percent.map_or(-1, |percent| i64::from(percent) * 1000);
    fs::write(dir("cpu", path).join("cpu.cfs_quota_us"), quota.to_string()).context("cannot set the processor limit")
}

/// Lets the group use no more than `mib` MiB of memory, page cache included, or as much as there is with `None`. What is
/// used already is reclaimed; where that is not enough, this fails.
pub fn limit_memory(path: &str, mib: Option<u64>) -> Result<()> {
    let limit = mib.map_or_else(|| "-1".into(), |mib| (mib << 20).to_string());
    fs::write(dir("memory", path).join("memory.limit_in_bytes"), limit).context("cannot set the memory limit")
}

/// Names of beds that have groups, in whatever state they are: `hfb0`, `hfb1`, …
pub fn beds(prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir("freezer", "")) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect()
}
