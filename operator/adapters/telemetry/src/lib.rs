//! What every Holdfast process tells of itself: its log, its memory.

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// What is logged unless `HOLDFAST_LOG` says otherwise; kube's watchers tell of every broken connection.
const FILTER: &str = "info,kube_runtime=warn";

/// Lines that wait for whoever reads standard output; further ones are dropped until there is room. About 1 MB.
const WAITING_LINES: usize = 4096;

/// While it lives, what is logged is written; dropped, what still waits is written within a second.
pub struct Logs(#[expect(dead_code, reason = "writes when it is dropped")] WorkerGuard);

/// Logs to standard output from here on, one JSON object a line. Called once, by `main`, which keeps what it returns.
///
/// A thread of its own writes: a container runtime that does not read what a process says (its disk is full or stalls, it was
/// frozen) must never keep an agent from its heartbeats, or a leader from its fence.
pub fn logs() -> Logs {
    let filter = EnvFilter::try_from_env("HOLDFAST_LOG").unwrap_or_else(|_| EnvFilter::new(FILTER));
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING_LINES)
        .lossy(true)
        .thread_name("logs")
        .finish(std::io::stdout());
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(writer)
        .with_env_filter(filter)
        .init();
    Logs(guard)
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
