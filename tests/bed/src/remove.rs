//! The end of beds: in order, or found stale.

use crate::net::{self, Net};
use crate::run::progress;
use crate::state::{self, State};
use crate::{cgroup, links, node, paths};
use anyhow::{Context, Result};
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

/// Removes beds whose owner is gone, and beds that nothing runs of (the machine was restarted). The caller holds the lock.
pub(crate) fn remove_stale() -> Result<()> {
    for name in state::names()? {
        let stale = match State::load(&name) {
            Ok(state) => {
                let orphan = state.owner.is_some_and(|owner| !owner.alive());
                let given_up = !state.ready && state.starter.is_none_or(|starter| !starter.alive());
                orphan || given_up || (state.ready && cgroup::pids(&state.net.id()).is_empty())
            }
            // A folder without state is what a start or an end cut short leaves. A state that cannot be read may be another
            // version's, of a bed that is well: only `down` removes that.
            Err(_) => !paths::bed(&name)?.join("state.json").exists(),
        };
        if stale {
            progress(&format!("removing stale bed '{name}'"));
            remove(&name)?;
        }
    }
    Ok(())
}

/// Removes a bed whose owner has ended. By the time that the lock is free, another process may have removed it and started one by
/// the same name, whose owner is alive.
pub(crate) fn remove_orphan(name: &str) -> Result<()> {
    let _lock = state::lock(&paths::home()?.join("beds.lock"))?;
    let orphan = State::load(name).is_ok_and(|state| state.owner.is_some_and(|owner| !owner.alive()));
    if orphan { remove(name) } else { Ok(()) }
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
pub(crate) fn remove(name: &str) -> Result<()> {
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
        empty_but_state(&dir)
            .and_then(|()| fs::remove_dir_all(&dir))
            .with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(())
}

/// Removes all of a bed's folder but its state, by which an end that is cut short can be begun again.
fn empty_but_state(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else if entry.file_name() != "state.json" {
            fs::remove_file(entry.path())?;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_bed_whose_end_was_cut_short_can_still_be_taken_down_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("node1/upper")).unwrap();
        for file in ["state.json", "admin.kubeconfig", "node1/disk"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        empty_but_state(dir.path()).unwrap();
        let left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["state.json"]);
    }
}
