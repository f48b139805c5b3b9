//! `holdfast`: one binary. As the operator it runs controllers; as the agent it is the first process of a member's Pod.

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
    /// Be the first process of a member's Pod.
    Agent,
    /// Bring this program into a member's Pod (its init container).
    Setup,
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
            logs();
            tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?
                .block_on(operator::run(options))
        }
        Command::Agent => {
            logs();
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
        Command::Setup => holdfast_agent::setup(),
        Command::Check(options) => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(check::run(options)),
        Command::Crds(options) => crds::run(&options),
    }
}

fn logs() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("HOLDFAST_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,kube_runtime=warn"));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .init();
}
