//! `kubectl holdfast`: what a person types.
//!
//! It reads and writes objects like any other client of the API server: what it may do is what the person may do.

mod cluster;
mod connect;
mod diff;
mod failover;
mod failure;
mod fence;
mod paint;
mod pause;
mod request;
mod status;
mod switchover;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use cluster::{Cluster, Where};
use failure::Failure;

/// See, move and repair replica sets; see what Git would change.
#[derive(Parser)]
#[command(name = "kubectl-holdfast", bin_name = "kubectl holdfast", version, about)]
struct Cli {
    #[command(flatten)]
    place: Where,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Draw a replica set: who leads, who follows, what is wrong, where to connect. Without NAME: list them.
    Status(status::Options),
    /// Move the primary to another member. Loses nothing; writes pause for a second or two.
    Switchover(switchover::Options),
    /// Restart the engine of one member, for settings that need it. The primary hands over first.
    Restart(switchover::RestartOptions),
    /// Stop a member's engine and keep it stopped.
    Fence(fence::Options),
    /// Let a fenced member go on.
    Unfence(fence::Options),
    /// Elect a primary although nobody can prove to hold every acknowledged commit. The last resort.
    Failover(failover::Options),
    /// Show how to connect with psql.
    Connect(connect::Options),
    /// Show what a commit would change in the cluster, or what has drifted from the one in force. Changes nothing.
    Diff(diff::Options),
    /// Keep Git from changing a replica set until `resume`.
    Pause(pause::Options),
    /// Let Git change a replica set again.
    Resume(pause::Options),
}

/// Entry point of the plugin.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let cluster = Cluster::connect(&cli.place).await?;
    match cli.command {
        Command::Status(options) => status::run(&cluster, &options).await,
        Command::Switchover(options) => switchover::run(&cluster, &options).await,
        Command::Restart(options) => switchover::restart(&cluster, &options).await,
        Command::Fence(options) => fence::run(&cluster, &options, true).await,
        Command::Unfence(options) => fence::run(&cluster, &options, false).await,
        Command::Failover(options) => failover::run(&cluster, &options).await,
        Command::Connect(options) => connect::run(&cluster, &options).await,
        Command::Diff(options) => return diff::run(&cluster, &options).await,
        Command::Pause(options) => pause::run(&cluster, &options, true).await,
        Command::Resume(options) => pause::run(&cluster, &options, false).await,
    }
    .map(|()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
