//! The command line of `bed`.

use clap::{Parser, Subcommand};
use holdfast_bed::net::Host;
use std::path::PathBuf;

/// A real multi-node Kubernetes on this machine, with faults that physically happen. Needs root.
#[derive(Parser)]
#[command(name = "bed", version)]
pub struct Args {
    /// Which bed, where there are several.
    #[arg(long, global = true, default_value = "default", env = "HOLDFAST_BED")]
    pub name: String,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Build the programs that Debian does not have (20 min the first time, nothing later).
    Build,
    /// Make the images that every bed has.
    Images {
        /// PostgreSQL majors: 15, 16 (from Maven Central and PyPI), 17, 18.
        #[arg(long, value_delimiter = ',', default_value = "17")]
        postgres: Vec<u8>,
        /// Those of Flux's controllers, too, with which the GitSource is compared (8 min the first time).
        #[arg(long)]
        flux: bool,
    },
    /// Start a bed and wait until its nodes are Ready.
    Up {
        #[arg(long, default_value_t = 3)]
        nodes: u8,
        /// PostgreSQL majors to have in the registry: 15, 16, 17, 18.
        #[arg(long, value_delimiter = ',', default_value = "17")]
        postgres: Vec<u8>,
    },
    /// Take a bed down and leave nothing of it.
    Down {
        /// Every bed on this machine, and what is left of earlier ones.
        #[arg(long)]
        all: bool,
    },
    /// Show all beds, with the faults in force.
    Status,
    /// Print the path of the administrator's kubeconfig.
    Kubeconfig,
    /// Print shell lines that set KUBECONFIG and PATH.
    Env,
    /// Put an oci-archive into the bed's registry; prints the name with its digest.
    Push { archive: PathBuf, image: String },
    /// Make an image of one static program and put it into the registry; prints the name with its digest.
    Image {
        program: PathBuf,
        image: String,
        #[arg(long, default_value_t = 65532)]
        uid: u32,
        /// Further files, PATH_IN_IMAGE=FILE.
        #[arg(long, value_parser = pair)]
        file: Vec<(String, PathBuf)>,
        /// Words of the entrypoint, if it is not just the program.
        #[arg(long, value_delimiter = ' ')]
        entrypoint: Vec<String>,
    },
    /// Put a PostgreSQL major version into the registry; prints the name with its digest.
    Postgres { major: u8 },
    /// Print how to reach the Git servers.
    Git,
    /// Make an empty repository; prints its addresses.
    GitRepo { repository: String },
    /// Run a command on a host of the bed, with the bed's names: by default as an outside client of Services.
    Exec {
        #[arg(long, default_value = "client")]
        host: Host,
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
    /// Cut a node's power: what was not fsynced is gone.
    Off { node: u8 },
    /// Give a node its power back.
    On { node: u8 },
    /// Stop a host where it stands, its network too.
    Freeze {
        host: Host,
        /// Thaw by itself after that many seconds.
        #[arg(long = "for")]
        seconds: Option<f64>,
    },
    /// Stop a host's processes, but not its kernel.
    Hang { host: Host },
    /// Let a frozen or hanging host go on.
    Thaw { host: Host },
    /// AT no longer hears FROM (one way).
    Cut { at: Host, from: Host },
    /// Neither of two hosts hears the other.
    CutBoth { a: Host, b: Host },
    /// A host and the API server no longer hear each other.
    CutApi { host: Host },
    /// A host neither hears anybody nor is heard.
    Isolate { host: Host },
    /// AT loses PERCENT of what FROM sends (one way); 0 ends it.
    Lose { at: Host, from: Host, percent: u8 },
    /// End all cuts and losses.
    Heal {
        /// End every other fault too.
        #[arg(long)]
        all: bool,
    },
    /// Limit what a host can send, in kbit/s; 0 lifts the limit.
    Rate { host: Host, kbit: u32 },
    /// Give a node no more than PERCENT of one processor; 0 lifts the limit.
    Cpu { node: u8, percent: u32 },
    /// Squeeze a node into that many MiB of memory; 0 lifts the limit.
    Memory { node: u8, mib: u64 },
    /// Kill the API server; pods go on.
    ApiDown,
    /// Freeze the whole control plane.
    ApiPause {
        /// Thaw by itself after that many seconds.
        #[arg(long = "for")]
        seconds: Option<f64>,
    },
    /// Start the API server again, or thaw it.
    ApiUp,
    /// Stop a volume's disk: writers and fsync hang.
    Stall {
        #[command(flatten)]
        claim: Claim,
        /// How many seconds.
        #[arg(long = "for", default_value_t = 10.0)]
        seconds: f64,
    },
    /// Fill a volume.
    Fill {
        #[command(flatten)]
        claim: Claim,
        /// Bytes to leave free.
        #[arg(long, default_value_t = 0)]
        leave: u64,
    },
    /// Give a filled volume its room back.
    Unfill {
        #[command(flatten)]
        claim: Claim,
    },
    /// Kill the processes of a pod whose command line contains PATTERN; prints how many.
    Kill {
        #[arg(short, long, default_value = "default")]
        namespace: String,
        pod: String,
        pattern: String,
    },
    /// What the bed itself runs.
    #[command(subcommand, hide = true)]
    Internal(Internal),
}

/// A PersistentVolumeClaim.
#[derive(clap::Args)]
pub struct Claim {
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    pub claim: String,
}

#[derive(Subcommand)]
pub enum Internal {
    /// The first process of a node.
    Node { dir: PathBuf },
    /// The provisioner of a bed.
    Provision { bed: String },
}

fn pair(text: &str) -> Result<(String, PathBuf), String> {
    let (inside, file) = text.split_once('=').ok_or("write PATH_IN_IMAGE=FILE")?;
    Ok((inside.to_string(), PathBuf::from(file)))
}
