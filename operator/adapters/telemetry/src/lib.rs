//! What every Holdfast process tells of itself: its log, its memory.

use tracing_subscriber::EnvFilter;

/// What is logged unless `HOLDFAST_LOG` says otherwise; kube's watchers tell of every broken connection.
const FILTER: &str = "info,kube_runtime=warn";

/// Logs to standard output from here on, one JSON object a line. Called once, by `main`.
pub fn logs() {
    let filter = EnvFilter::try_from_env("HOLDFAST_LOG").unwrap_or_else(|_| EnvFilter::new(FILTER));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .init();
}

/// Resident memory of this process in bytes; nothing where the kernel does not say.
pub fn resident() -> Option<u64> {
    in_status(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// `VmRSS` of a text like `/proc/self/status` (proc_pid_status(5)).
fn in_status(text: &str) -> Option<u64> {
    let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    kib.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_as_the_kernel_writes_it() {
        assert_eq!(in_status("Name:\tx\nVmRSS:\t   10984 kB\n"), Some(11_247_616));
        assert_eq!(in_status("Name:\tx\n"), None, "a kernel thread has none");
        assert!(resident().is_some_and(|bytes| bytes > 100_000));
    }
}
