//! `holdfast-agent`: the first process of a member's Pod. A program of its own, so that nothing of the operator (Git, its TLS, webhooks,
//! its rights) is in a Pod that holds data, and because its pages count in every member.

use std::process::ExitCode;

use anyhow::bail;

fn main() -> anyhow::Result<ExitCode> {
    // Two TLS providers may be linked in; the process names the one that it uses.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => agent()?,
        // The init container.
        ["setup"] => holdfast_agent::setup()?,
        // PostgreSQL's archiver. Up to 125 it tries again.
        ["wal-push", folder, member, path, name] => {
            let archived = holdfast_postgres::archive::wal_push(folder, member, path, name);
            return Ok(ExitCode::from(u8::from(!archived)));
        }
        other => bail!("holdfast-agent takes `setup`, `wal-push FOLDER MEMBER PATH NAME` or nothing, not {other:?}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn agent() -> anyhow::Result<()> {
    let _logs = holdfast_telemetry::logs();
    let options = holdfast_agent::Options::from_env()?;
    // One thread: an agent waits far more than it works, and every thread costs memory in every member.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()?;
    let ended = runtime.block_on(holdfast_agent::run(options));
    // A call that waits for a stalled disk must not keep the process.
    runtime.shutdown_background();
    ended
}
