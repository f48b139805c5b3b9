//! Faults inside a node: disks and processes.

use crate::bed::Bed;
use crate::cgroup;
use crate::faults::note;
use crate::run::output;
use crate::volume::{self, Volume};
use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use std::fs;
use std::time::Duration;

impl Bed {
    /// The volume of a claim.
    pub fn volume(&self, namespace: &str, claim: &str) -> Result<Volume> {
        let path = [
            "get",
            "pvc",
            "-n",
            namespace,
            claim,
            "-o",
            "jsonpath={.spec.volumeName}",
        ];
        let name = output(self.kubectl()?.args(path))?;
        ensure!(!name.is_empty(), "the claim {namespace}/{claim} has no volume yet");
        self.volumes()?
            .into_iter()
            .find(|volume| volume.name == name)
            .with_context(|| format!("volume {name} is not in this bed"))
    }

    /// All volumes of nodes that have power.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        let state = self.state()?;
        let mut all = Vec::new();
        for node in 1..=state.nodes {
            let Some(first) = state.first(node) else { continue };
            all.extend(volume::mounted(first).into_iter().filter_map(|path| {
                Some(Volume {
                    name: path.file_name()?.to_str()?.to_string(),
                    node,
                    path,
                })
            }));
        }
        Ok(all)
    }

    /// Stops a volume's disk for `time`: reads of what is in memory go on, writers and fsync hang.
    pub fn stall(&self, volume: &Volume, time: Duration) -> Result<()> {
        volume::stall(&self.state()?, &volume.path, time)
    }

    /// Fills a volume up to the last `leave` bytes. Back with [`Bed::unfill`].
    pub fn fill(&self, volume: &Volume, leave: u64) -> Result<()> {
        volume::fill(&volume.path, leave)?;
        self.change(|state| note(state, format!("volume {}", volume.name), Some("filled".into())))
    }

    /// Gives a filled volume its room back.
    pub fn unfill(&self, volume: &Volume) -> Result<()> {
        volume::unfill(&volume.path)?;
        self.change(|state| note(state, format!("volume {}", volume.name), None))
    }

    /// Sends a signal to the processes of a pod whose command line has `pattern` in it, oldest first, and returns how many
    /// there were. None is an error: a fault that hits nothing shows nothing.
    pub fn signal(&self, namespace: &str, pod: &str, pattern: &str, signal: Signal) -> Result<usize> {
        let hit = self.signal_within(&self.pod_uid(namespace, pod)?, pattern, signal)?;
        if hit == 0 {
            bail!("no process of {namespace}/{pod} has '{pattern}' in its command line");
        }
        Ok(hit)
    }

    /// The UID of a pod, by which its processes are found when no API server answers.
    pub fn pod_uid(&self, namespace: &str, pod: &str) -> Result<String> {
        let path = ["get", "pod", "-n", namespace, pod, "-o", "jsonpath={.metadata.uid}"];
        output(self.kubectl()?.args(path))
    }

    /// [`Bed::signal`] by the pod's UID; nobody hit is no error.
    pub fn signal_within(&self, uid: &str, pattern: &str, signal: Signal) -> Result<usize> {
        let group = format!("/pod{uid}/");
        let mut hit = 0;
        let mut pids = cgroup::pids(&self.state()?.net.id());
        pids.sort_unstable();
        for pid in pids {
            let inside = fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(&group));
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if inside && !line.starts_with("/pause") && line.contains(pattern) {
                match nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal) {
                    // Children end when their parent is hit, and clients' processes when they like.
                    Err(Errno::ESRCH) => continue,
                    sent => sent?,
                }
                hit += 1;
            }
        }
        Ok(hit)
    }

    /// Kills the processes of a pod whose command line has `pattern` in it.
    pub fn kill(&self, namespace: &str, pod: &str, pattern: &str) -> Result<usize> {
        self.signal(namespace, pod, pattern, Signal::SIGKILL)
    }
}
