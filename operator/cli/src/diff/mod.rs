//! `kubectl holdfast diff`: what a commit would change, or what drifted from the one in force. Reads, and changes nothing.
//!
//! The commits come from a person's own clone: what may be read of the repository is between them and the Git server, and the
//! source's credentials stay in their Secret.

mod draw;
mod live;
mod revision;

use std::path::PathBuf;
use std::process::ExitCode;

use holdfast_api::GitSource;
use holdfast_core::source::conflict;
use holdfast_git::Store;
use kube::Api;

use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::paint::Paint;

/// What to compare.
#[derive(clap::Args)]
pub struct Options {
    /// The GitSource.
    name: String,
    /// Compare with this commit, branch or tag of the clone, such as HEAD before it is pushed. Default: the commit in force, so
    /// that what is shown is drift.
    #[arg(long, value_name = "REV", conflicts_with = "pending")]
    revision: Option<String>,
    /// Compare with the newest commit that the operator has seen, in force or refused.
    #[arg(long)]
    pending: bool,
    /// A clone of the repository.
    #[arg(short = 'C', long = "clone", default_value = ".")]
    clone: PathBuf,
    /// Exit with 2 when anything differs.
    #[arg(long)]
    exit_code: bool,
}

/// Exit code for "something differs", with `--exit-code`; 1 is an error.
const DIFFERS: u8 = 2;

/// Compares and prints.
pub async fn run(cluster: &Cluster, options: &Options) -> Result<ExitCode, Failure> {
    let source = get(cluster, &options.name).await?;
    let status = source.status.clone().unwrap_or_default();
    let store = Store::of_clone(&options.clone).map_err(|e| {
        Failure::new(format!("{} is no clone that can be read: {e}", options.clone.display()))
            .next("run it inside a clone of the repository, or name one with -C")
    })?;
    let in_force = status.applied_revision.clone();
    let wanted = match (&options.revision, options.pending) {
        (Some(name), _) => store.resolve(name).map_err(|_| {
            Failure::new(format!("{} has no commit {name}", options.clone.display()))
                .next("git fetch, or check its name")
        })?,
        (None, true) => status
            .fetched_revision
            .clone()
            .ok_or_else(|| nothing_yet(&options.name))?,
        (None, false) => in_force.clone().ok_or_else(|| nothing_yet(&options.name))?,
    };
    // The commit in force also shows that this is a clone of the right repository.
    for commit in in_force.iter().chain([&wanted]) {
        if !store.has(commit) {
            return Err(
                Failure::new(format!("{} does not have the commit {commit}", options.clone.display()))
                    .next("git fetch; or this is a clone of another repository than spec.url names"),
            );
        }
    }
    let objects = revision::read(cluster, &source, &store, &wanted).await?;
    let live = live::read(cluster, &source, &objects).await?;
    let comparison = draw::compare(
        &objects,
        &live.objects,
        &live.inventory,
        &source.spec.prune,
        &conflict::manager(&cluster.namespace, &options.name),
    );
    let place = draw::Place {
        source: format!("{}/{}", cluster.namespace, options.name),
        wanted,
        in_force,
    };
    print!("{}", draw::draw(&place, &comparison, Paint::detect()));
    Ok(if options.exit_code && comparison.differs() {
        ExitCode::from(DIFFERS)
    } else {
        ExitCode::SUCCESS
    })
}

async fn get(cluster: &Cluster, name: &str) -> Result<GitSource, Failure> {
    let what = format!("GitSource {}/{name}", cluster.namespace);
    let found = Api::<GitSource>::namespaced(cluster.client.clone(), &cluster.namespace)
        .get_opt(name)
        .await
        .map_err(|e| Failure::of(&what, e))?;
    found.ok_or_else(|| Failure::new(format!("there is no {what}")).next("kubectl get gitsources -A"))
}

fn nothing_yet(name: &str) -> Failure {
    Failure::new(format!("{name} has not taken any commit yet"))
        .next("see why with `kubectl describe gitsource`, or name a commit with --revision")
}
