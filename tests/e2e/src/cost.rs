//! What controllers and agents cost, from the machine's own /proc.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

/// `USER_HZ`: the unit of processor time in /proc, fixed by the kernel's interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// One of ours on this machine.
pub struct Process {
    /// An agent; else an operator.
    pub agent: bool,
    /// Processor time so far (s).
    pub cpu: f64,
    /// Resident (KiB).
    pub rss: u64,
    /// The most that has been resident so far (KiB).
    pub peak: u64,
    /// Of what is resident, its own (KiB): the rest are pages of its program, which others may share.
    pub anonymous: u64,
}

/// Agents and operators that run on this machine, by process id.
pub fn processes() -> Result<BTreeMap<u32, Process>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        // It may end while it is looked at.
        let Ok(command) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let mut words = command.split(|b| *b == 0).map(String::from_utf8_lossy);
        let agent = match (words.next().as_deref(), words.next().as_deref()) {
            (Some("/holdfast/bin/holdfast-agent"), _) => true,
            (Some("/bin/holdfast"), Some("operator")) => false,
            _ => continue,
        };
        if let Ok(process) = read_process(&entry.path(), agent) {
            found.insert(pid, process);
        }
    }
    Ok(found)
}

/// Processes of one bed's Pods by the name of their program in `/bin`: `(process id, program)`. A bed's control groups carry its
/// id, so those of other beds on this machine are not among them.
pub fn of_bed(bed: &str, programs: &[&str]) -> Result<BTreeMap<(u32, String), Process>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        // It may end while it is looked at.
        let Ok(command) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let path = String::from_utf8_lossy(command.split(|b| *b == 0).next().unwrap_or_default()).into_owned();
        let Some(program) = programs.iter().find(|p| path.strip_prefix("/bin/") == Some(p)) else {
            continue;
        };
        let groups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if !in_bed(&groups, bed) {
            continue;
        }
        if let Ok(process) = read_process(&entry.path(), false) {
            found.insert((pid, (*program).to_owned()), process);
        }
    }
    Ok(found)
}

/// Whether one of these control groups is of the bed with this id.
fn in_bed(groups: &str, bed: &str) -> bool {
    groups.lines().any(|line| line.split('/').any(|part| part == bed))
}

fn read_process(path: &std::path::Path, agent: bool) -> Result<Process> {
    let stat = fs::read_to_string(path.join("stat"))?;
    // The second field is the program's name in brackets, and may hold anything.
    let (_, rest) = stat.rsplit_once(')').context("stat")?;
    let ticks = |n: usize| -> Result<f64> { Ok(rest.split_whitespace().nth(n).context("stat")?.parse()?) };
    let memory = fs::read_to_string(path.join("smaps_rollup"))?;
    let kib = |name: &str| -> Result<u64> {
        let line = memory.lines().find_map(|l| l.strip_prefix(name)).context("smaps")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    Ok(Process {
        agent,
        cpu: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
        rss: kib("Rss:")?,
        peak: {
            let status = fs::read_to_string(path.join("status"))?;
            let line = status
                .lines()
                .find_map(|l| l.strip_prefix("VmHWM:"))
                .context("status")?;
            line.trim().trim_end_matches(" kB").parse()?
        },
        anonymous: kib("Anonymous:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::in_bed;

    #[test]
    fn a_process_of_another_bed_is_not_ours() {
        let groups = "4:memory:/hfb1/node1/kubepods/burstable/pod324f\n1:cpu:/hfb1/node1/kubepods/burstable/pod324f\n";
        assert!(in_bed(groups, "hfb1"));
        assert!(!in_bed(groups, "hfb"));
        assert!(!in_bed(groups, "hfb11"));
        assert!(!in_bed("", "hfb1"));
    }
}
