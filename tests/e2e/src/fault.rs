//! Faults as a person would name them, each with how it is brought about and how it ends.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use holdfast_bed::{Host, Signal};
use serde::{Deserialize, Serialize};

use crate::house::{House, SYSTEM};
use crate::system::System;

/// One fault, or two in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The primary's engine is killed (SIGKILL to every process of it).
    Engine,
    /// The primary's agent and with it everything in its container is killed.
    Agent,
    /// The primary's pod is deleted.
    Pod,
    /// The primary's node loses power, and what was not flushed.
    Power,
    /// The primary's node is silent: no packet comes or goes, nobody says goodbye.
    Silent,
    /// Nobody hears the primary's node, but it hears all.
    Mute,
    /// The primary's node hears nobody, but all hear it.
    Deaf,
    /// The primary's node does not reach the API server; all else goes on.
    NoApi,
    /// The primary's node stands still for 30 s and then goes on, believing that no time has passed.
    Freeze,
    /// The disk of the primary's volume answers nothing for 20 s.
    Stall,
    /// A planned switchover.
    Switchover,
    /// The primary's node is drained.
    Drain,
    /// A replica's node is silent.
    ReplicaSilent,
    /// A replica's node loses power.
    ReplicaPower,
    /// A replica's engine is killed.
    ReplicaEngine,
    /// A replica's node stands still for 30 s.
    ReplicaFreeze,
    /// The API server is away for two minutes.
    ApiAway,
    /// All operator pods are killed.
    Operator,
    /// The primary's engine is killed, and 300 ms later a replica's, in the middle of the election.
    SecondDuringElection,
    /// The primary's engine is killed, and the one that is elected as soon as it shows.
    SecondDuringPromotion,
    /// The primary's engine is killed, and its pod again while it comes back.
    SecondDuringRewind,
    /// The API server goes away for 20 s, and then the primary's engine is killed: nobody can be elected until it is back.
    ApiAwayThenEngine,
}

/// What must be undone once the observation is over.
#[must_use]
pub struct Injected {
    fault: Fault,
    node: u8,
}

/// How long a frozen host stands still.
const FROZEN: Duration = Duration::from_secs(30);
/// How long a disk stalls.
const STALLED: Duration = Duration::from_secs(20);
/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(120);
/// How long it is away where nobody can be elected meanwhile.
const AWAY_AND_LOST: Duration = Duration::from_secs(20);

impl Fault {
    /// Its name on the command line and in reports.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map(|v| v.get_name().to_owned())
            .unwrap_or_default()
    }

    /// Whether writes go on before it ends.
    pub fn lets_write(self) -> bool {
        self != Fault::ApiAwayThenEngine
    }

    /// Brings it about on a system whose members are fit.
    pub fn inject(self, system: &dyn System) -> Result<Injected> {
        let bed = &system.house().bed;
        let namespace = system.namespace();
        let primary = system.primary()?;
        ensure!(!primary.is_empty(), "there is no primary to hit");
        let replica = system.replica()?;
        let node = system.node(match self {
            Fault::ReplicaSilent | Fault::ReplicaPower | Fault::ReplicaFreeze => &replica,
            _ => &primary,
        })?;
        let nodes = bed.state()?.nodes;
        let others = || {
            (1..=nodes)
                .map(Host::Node)
                .chain([Host::Cp, Host::Client])
                .filter(move |h| *h != Host::Node(node))
        };
        match self {
            Fault::Engine => drop(bed.kill(namespace, &primary, "postgres")?),
            Fault::Agent => drop(bed.kill(namespace, &primary, "")?),
            Fault::Pod => delete_pod(system, &primary)?,
            Fault::Power | Fault::ReplicaPower => bed.power_off(node)?,
            Fault::Silent | Fault::ReplicaSilent => bed.isolate(Host::Node(node))?,
            Fault::Mute => others().try_for_each(|host| bed.cut(host, Host::Node(node)))?,
            Fault::Deaf => others().try_for_each(|host| bed.cut(Host::Node(node), host))?,
            Fault::NoApi => bed.cut_api(Host::Node(node))?,
            Fault::Freeze | Fault::ReplicaFreeze => bed.freeze(Host::Node(node), Some(FROZEN))?,
            Fault::Stall => bed.stall(&bed.volume(namespace, &claim(system, &primary)?)?, STALLED)?,
            Fault::Switchover => system.switchover()?,
            Fault::Drain => drain(system.house(), node)?,
            Fault::ReplicaEngine => drop(bed.kill(namespace, &replica, "postgres")?),
            Fault::ApiAway => bed.api_down()?,
            Fault::ApiAwayThenEngine => {
                let uid = bed.pod_uid(namespace, &primary)?;
                bed.api_down()?;
                let hit = bed.signal_within(&uid, "postgres", Signal::SIGKILL)?;
                ensure!(hit > 0, "{primary} has no engine to kill");
            }
            Fault::Operator => {
                let args = [
                    "-n",
                    SYSTEM,
                    "delete",
                    "pod",
                    "-l",
                    "app.kubernetes.io/name=holdfast",
                    "--grace-period=0",
                    "--force",
                ];
                system.house().kubectl(&args)?;
            }
            Fault::SecondDuringElection => {
                bed.kill(namespace, &primary, "postgres")?;
                std::thread::sleep(Duration::from_millis(300));
                bed.kill(namespace, &replica, "postgres")?;
            }
            Fault::SecondDuringPromotion => {
                bed.kill(namespace, &primary, "")?;
                let next = another_primary(system, &primary)?;
                bed.kill(namespace, &next, "postgres")?;
            }
            Fault::SecondDuringRewind => {
                bed.kill(namespace, &primary, "postgres")?;
                another_primary(system, &primary)?;
                // It may be between two processes just now; then the kill comes a moment later.
                let mut tries = 0;
                while let Err(error) = bed.kill(namespace, &primary, "") {
                    tries += 1;
                    ensure!(tries < 20, "{error:#}");
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
        Ok(Injected { fault: self, node })
    }
}

impl Injected {
    /// Waits as long as the fault lasts by itself, then undoes it.
    pub fn heal(self, system: &dyn System) -> Result<()> {
        let bed = &system.house().bed;
        let node = self.node;
        match self.fault {
            Fault::Power | Fault::ReplicaPower => bed.power_on(node)?,
            Fault::Silent | Fault::ReplicaSilent | Fault::Mute | Fault::Deaf | Fault::NoApi => bed.heal()?,
            Fault::Freeze | Fault::ReplicaFreeze => std::thread::sleep(FROZEN),
            Fault::Stall => std::thread::sleep(STALLED),
            Fault::ApiAway => {
                std::thread::sleep(AWAY);
                bed.api_up()?;
            }
            Fault::ApiAwayThenEngine => {
                std::thread::sleep(AWAY_AND_LOST);
                bed.api_up()?;
            }
            Fault::Drain => {
                system.house().kubectl(&["uncordon", &format!("node{node}")])?;
            }
            _ => {}
        }
        bed.wait_nodes(Duration::from_secs(120))
    }
}

fn delete_pod(system: &dyn System, pod: &str) -> Result<()> {
    let args = ["-n", system.namespace(), "delete", "pod", pod, "--wait=false"];
    system.house().kubectl(&args).map(drop)
}

/// Drains a node as a person would, Pods of the operator's namespace aside; ends when all others are evicted.
pub fn drain(house: &House, node: u8) -> Result<()> {
    let node = format!("node{node}");
    let selector = format!("--pod-selector=kubernetes.io/metadata.namespace!={SYSTEM}");
    let args = [
        "drain",
        &node,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--timeout=120s",
        &selector,
    ];
    house.kubectl(&args).map(drop)
}

fn claim(system: &dyn System, pod: &str) -> Result<String> {
    let path = "jsonpath={.spec.volumes[*].persistentVolumeClaim.claimName}";
    let text = system
        .house()
        .kubectl(&["-n", system.namespace(), "get", "pod", pod, "-o", path])?;
    let first = text.split_whitespace().next();
    first
        .map(ToOwned::to_owned)
        .with_context(|| format!("pod {pod} has no volume"))
}

fn another_primary(system: &dyn System, old: &str) -> Result<String> {
    crate::house::wait_for("another primary", Duration::from_secs(60), || {
        let now = system.primary()?;
        Ok(if now == old || now.is_empty() {
            Err(now)
        } else {
            Ok(now)
        })
    })
}
