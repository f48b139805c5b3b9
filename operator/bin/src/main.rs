//! `holdfast`: the operator, and what belongs to an installation of it. The agent is a program of its own.

mod check;
mod crds;
mod operator;
mod relay;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "holdfast",
    version,
    about = "Highly available database clusters, from Git, proved by drills."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the controllers.
    Operator(operator::Options),
    /// Ask the API server whether this installation is fit to work.
    Check(check::Options),
    /// Write the CustomResourceDefinitions, one YAML file per kind.
    Crds(crds::Options),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    // Two TLS providers may be linked in; the process names the one that it uses.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match cli.command {
        Command::Operator(options) => {
            let _logs = holdfast_telemetry::logs();
            tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?
                .block_on(operator::run(options))
        }
        Command::Check(options) => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(check::run(options)),
        Command::Crds(options) => crds::run(&options),
    }
}
