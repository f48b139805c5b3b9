//! Processes: starting children, reaping orphans, and making sure that an engine is dead.
//!
//! The agent is PID 1 of its container, so every orphan becomes its child and somebody has to wait for it; but children
//! that the agent started itself are waited for by whoever started them. [`spawn`] therefore notes their ids.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::error::{Error, Result};

static OURS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn ours() -> MutexGuard<'static, BTreeSet<u32>> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that a child is waited for by whoever holds this.
#[derive(Debug)]
pub struct Noted(Option<u32>);

impl Drop for Noted {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            ours().remove(&pid);
        }
    }
}

/// Starts a child that its starter waits for while it holds the note.
pub fn spawn(cmd: &mut Command, program: &str) -> Result<(Child, Noted)> {
    // Held over the start, so that the reaper cannot see the child before its id is noted.
    let mut ours = ours();
    let child = cmd.spawn().map_err(|source| Error::Spawn {
        program: program.to_owned(),
        source,
    })?;
    ours.extend(child.id());
    let noted = Noted(child.id());
    Ok((child, noted))
}

/// Waits for dead children that nobody else waits for, without blocking. Gives how many there were.
pub fn reap() -> usize {
    let mut reaped = 0;
    loop {
        let ours = ours();
        // Looked at without taking it, because it may be one of ours: then whoever started it takes it, and the next call
        // goes on from there.
        let peek = waitid(
            Id::All,
            WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT,
        );
        let pid = match peek {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) => pid,
            _ => return reaped,
        };
        if u32::try_from(pid.as_raw()).is_ok_and(|p| ours.contains(&p)) {
            return reaped;
        }
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(_) => reaped += 1,
            Err(_) => return reaped,
        }
    }
}

/// Takes in orphans of this process's children, as PID 1 does by nature.
pub fn adopt_orphans() {
    if std::process::id() != 1
        && let Err(e) = nix::sys::prctl::set_child_subreaper(true)
    {
        tracing::warn!("cannot adopt orphans: {e}");
    }
}

/// Every living process that works in a data directory. PostgreSQL's processes all do, whatever their parent is by now,
/// and nothing else does; a zombie works nowhere.
pub fn in_directory(pgdata: &Path) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let me = std::process::id();
    entries
        .flatten()
        .filter_map(|e| {
            let pid: u32 = e.file_name().to_str()?.parse().ok()?;
            let cwd = std::fs::read_link(e.path().join("cwd")).ok()?;
            (pid != me && cwd == pgdata).then(|| Pid::from_raw(i32::try_from(pid).unwrap_or(0)))
        })
        .filter(|p| p.as_raw() > 1)
        .collect()
}

/// Sends SIGKILL to every process of a data directory until none is left. A process that waits for a stalled disk cannot
/// die before the disk answers, so this may take as long as that; nothing it holds is acknowledged meanwhile, since SIGKILL
/// lets it run no further instruction.
pub async fn kill_all(pgdata: PathBuf) {
    let mut said = false;
    for round in 0_u64.. {
        let left = in_directory(&pgdata);
        if left.is_empty() {
            return;
        }
        for pid in &left {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        if round == 200 && !said {
            said = true;
            tracing::warn!(
                processes = left.len(),
                "engine processes do not die: they wait for the disk"
            );
        }
        tokio::time::sleep(std::time::Duration::from_millis(if round < 50 { 5 } else { 50 })).await;
    }
}

/// Sends a signal; a process that is gone is no error.
pub fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid)
        && pid > 1
    {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// A process sleeps, and no signal waits to be taken by it: what was sent before has been handled.
pub fn settled(pid: u32) -> bool {
    sleeps(pid).is_some()
}

/// How often a process has gone to sleep, if it sleeps now and no signal waits to be taken by it. Twice the same count means
/// that it slept all the while.
pub fn sleeps(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
    let none = |name: &str| field(name).and_then(|v| u64::from_str_radix(v, 16).ok()) == Some(0);
    let asleep = field("State:").is_some_and(|s| s.starts_with('S')) && none("SigPnd:") && none("ShdPnd:");
    field("voluntary_ctxt_switches:")
        .and_then(|v| v.parse().ok())
        .filter(|_| asleep)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn orphans_are_reaped_and_children_left_to_whoever_started_them() {
        adopt_orphans();
        // The shell ends at once; its child is orphaned, and dies a little later.
        let mut cmd = Command::new("sh");
        cmd.args(["-c", "(sleep 0.1; exit 3) & exit 7"]);
        let (mut child, noted) = spawn(&mut cmd, "sh").unwrap();
        let mut reaped = 0;
        for _ in 0..20 {
            reaped += reap();
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let status = child.wait().await.unwrap();
        drop(noted);
        for _ in 0..20 {
            reaped += reap();
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(status.code(), Some(7), "the shell's status was not taken from us");
        assert!(reaped >= 1);
    }

    #[tokio::test]
    async fn every_process_of_a_directory_is_killed_whoever_its_parent_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let mut cmd = Command::new("sh");
        cmd.args(["-c", "sleep 100 & sleep 100 & exit 0"]).current_dir(&path);
        let (mut child, _noted) = spawn(&mut cmd, "sh").unwrap();
        child.wait().await.unwrap();
        assert_eq!(in_directory(&path).len(), 2);
        kill_all(path.clone()).await;
        assert_eq!(in_directory(&path), []);
    }
}
