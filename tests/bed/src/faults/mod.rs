//! Faults. Each is physical: what it hits cannot tell it from the real thing. Each is in force until it is taken back by
//! the method named beside it, by [`Bed::heal_all`], or with the bed.

mod inside;

use crate::bed::Bed;
use crate::net::Host;
use crate::run::{self, wait_for};
use crate::state::Cut;
use crate::{cgroup, control, links, node, paths, volume};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::time::Duration;

impl Bed {
    /// Cuts the power of a node: no packet more from it, and what was not fsynced in its volumes is lost.
    /// Takes about 0.3 s. Back with [`Bed::power_on`].
    pub fn power_off(&self, node: u8) -> Result<()> {
        self.change(|state| {
            ensure!((1..=state.nodes).contains(&node), "there is no node{node}");
            node::power_off(state, node)
        })
    }

    /// Gives a node its power back. Its file systems recover; it is Ready again after about 20 s, see [`Bed::wait_nodes`].
    pub fn power_on(&self, node: u8) -> Result<()> {
        self.change(|state| {
            ensure!((1..=state.nodes).contains(&node), "there is no node{node}");
            node::power_on(state, node)
        })
    }

    /// Stops a host where it stands, its network too, as a paused virtual machine. Back with [`Bed::thaw`]; with `time`, by
    /// itself after that, whatever becomes of us.
    pub fn freeze(&self, host: Host, time: Option<Duration>) -> Result<()> {
        self.change(|state| {
            let group = state.net.group(host);
            if let Some(time) = time {
                let script = "ip link set \"$1\" up; echo THAWED > \"$2\"";
                let file = cgroup::freezer_file(&group);
                let argv = ["sh", "-c", script, "sh", &state.net.link(host), paths::text(&file)?];
                run::later(state, time, &argv)?;
            }
            links::set_link(&state.net, host, false)?;
            cgroup::freeze(&group)?;
            if time.is_none() {
                state.frozen.insert(host);
            }
            Ok(())
        })
    }

    /// Stops all processes of a host but not its kernel, which goes on to answer at the TCP level. Back with [`Bed::thaw`].
    pub fn hang(&self, host: Host) -> Result<()> {
        self.change(|state| {
            cgroup::freeze(&state.net.group(host))?;
            state.frozen.insert(host);
            Ok(())
        })
    }

    /// Lets a frozen or hanging host go on, believing that no time has passed.
    pub fn thaw(&self, host: Host) -> Result<()> {
        self.change(|state| {
            links::set_link(&state.net, host, true)?;
            cgroup::thaw(&state.net.group(host));
            state.frozen.remove(&host);
            Ok(())
        })
    }

    /// Makes `at` lose `percent` of what comes from `from`, pods of both included. The other direction is untouched.
    /// 100 is a cut; 0 ends it. Connections under way are hit too. Back with [`Bed::heal`].
    pub fn lose(&self, at: Host, from: Host, percent: u8) -> Result<()> {
        ensure!(at != from, "a host hears itself whatever the network does");
        self.change(|state| {
            state.cuts.retain(|cut| (cut.at, cut.from) != (at, from));
            if percent > 0 {
                state.cuts.push(Cut {
                    at,
                    from,
                    percent: percent.min(100),
                });
            }
            match at {
                // A node without power has no filter: it gets it when it starts.
                Host::Node(n) if state.off.contains(&n) => Ok(()),
                at => links::apply_cuts(state, at),
            }
        })
    }

    /// `at` no longer hears `from`: one way only.
    pub fn cut(&self, at: Host, from: Host) -> Result<()> {
        self.lose(at, from, 100)
    }

    /// Neither of two hosts hears the other.
    pub fn cut_both(&self, a: Host, b: Host) -> Result<()> {
        self.cut(a, b)?;
        self.cut(b, a)
    }

    /// A host neither hears the API server nor is heard by it; everything else goes on.
    pub fn cut_api(&self, host: Host) -> Result<()> {
        self.cut_both(host, Host::Cp)
    }

    /// A host neither hears anybody nor is heard.
    pub fn isolate(&self, host: Host) -> Result<()> {
        let nodes = self.state()?.nodes;
        let others = Host::HELPERS
            .into_iter()
            .chain((1..=nodes).map(Host::Node))
            .filter(|other| *other != host);
        others.into_iter().try_for_each(|other| self.cut_both(host, other))
    }

    /// Ends all cuts and losses.
    pub fn heal(&self) -> Result<()> {
        self.change(|state| {
            let cuts = std::mem::take(&mut state.cuts);
            for cut in cuts {
                let without_power = matches!(cut.at, Host::Node(n) if state.off.contains(&n));
                if !without_power {
                    links::apply_cuts(state, cut.at)?;
                }
            }
            Ok(())
        })
    }

    /// Limits what a host can send, in kilobits per second. `None` lifts the limit.
    pub fn limit_rate(&self, host: Host, kbit: Option<u32>) -> Result<()> {
        self.change(|state| {
            links::limit_rate(&state.net, host, kbit)?;
            note(
                state,
                format!("{} sends at most", host.name()),
                kbit.map(|kbit| format!("{kbit} kbit/s")),
            )
        })
    }

    /// Gives a host no more than `percent` of one processor. `None` lifts the limit.
    pub fn limit_cpu(&self, node: u8, percent: Option<u32>) -> Result<()> {
        self.change(|state| {
            cgroup::limit_cpu(&state.net.group(Host::Node(node)), percent)?;
            note(
                state,
                format!("node{node} computes at most"),
                percent.map(|percent| format!("{percent} % of a processor")),
            )
        })
    }

    /// Squeezes a node, its pods and page cache included, into `mib` MiB; the kernel's killer of processes does the rest.
    /// `None` lifts the limit.
    pub fn limit_memory(&self, node: u8, mib: Option<u64>) -> Result<()> {
        self.change(|state| {
            cgroup::limit_memory(&state.net.group(Host::Node(node)), mib)?;
            note(
                state,
                format!("node{node} has at most"),
                mib.map(|mib| format!("{mib} MiB of memory")),
            )
        })
    }

    /// Kills the API server. Pods, kubelets and etcd go on. Back with [`Bed::api_up`].
    pub fn api_down(&self) -> Result<()> {
        self.change(|state| {
            let api = state.procs.remove("api").context("the API server does not run")?;
            state.api_down = true;
            api.signal(Signal::SIGKILL);
            wait_for("the API server to end", Duration::from_secs(10), || Ok(!api.alive()))
        })
    }

    /// Starts the API server again and waits until it is ready, usually 6 s.
    pub fn api_up(&self) -> Result<()> {
        self.change(|state| {
            if !state.procs.get("api").is_some_and(|api| api.alive()) {
                let api = control::start_api(state)?;
                state.procs.insert("api".into(), api);
            }
            state.api_down = false;
            control::wait_ready(state)
        })
    }

    /// Takes back whatever is in force: power, freezes, cuts, limits, ballast, API server.
    pub fn heal_all(&self) -> Result<()> {
        self.heal()?;
        let state = self.state()?;
        if state.api_down {
            self.api_up()?;
        }
        for host in Host::HELPERS.into_iter().chain((1..=state.nodes).map(Host::Node)) {
            if !matches!(host, Host::Node(n) if state.off.contains(&n)) {
                self.thaw(host)?;
                self.limit_rate(host, None)?;
            }
        }
        for n in 1..=state.nodes {
            if state.off.contains(&n) {
                self.power_on(n)?;
            }
            self.limit_cpu(n, None)?;
            self.limit_memory(n, None)?;
        }
        for volume in self.volumes()? {
            volume::thaw_now(&volume.path);
            let _ = self.unfill(&volume);
        }
        Ok(())
    }
}

/// Remembers a fault for `bed status`, or forgets it.
pub(crate) fn note(state: &mut crate::state::State, what: String, how: Option<String>) -> Result<()> {
    match how {
        Some(how) => state.notes.insert(what, how),
        None => state.notes.remove(&what),
    };
    Ok(())
}
