//! `make demo`: from nothing to a replica set that came from a Git commit, with a guide.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use holdfast_bed::Bed;
use holdfast_bed::bed::Owner;
use holdfast_e2e::house::say;
use holdfast_e2e::walk::{self, NAMESPACE, SET};
use holdfast_e2e::{House, Set};

/// The demo's bed.
const BED: &str = "demo";

#[derive(Parser)]
#[command(about = "A real Kubernetes, Holdfast on it, and a Git commit that becomes a running database.")]
struct Cli {
    /// Take everything down again.
    #[arg(long)]
    down: bool,
}

fn main() -> Result<()> {
    if Cli::parse().down {
        return match Bed::attach(BED) {
            Ok(bed) => bed.down(),
            Err(_) => {
                say("nothing is up");
                Ok(())
            }
        };
    }
    let start = Instant::now();
    let house = House::open(BED, Owner::Nobody)?;
    say("making a Git repository from examples/repository, served over ssh");
    let commit = walk::repository(&house)?;
    say(&format!(
        "waiting for the replica set of commit {} (usually 20 s)",
        short(&commit)
    ));
    let set = Set::named(&house, NAMESPACE, SET);
    if let Err(error) = set.wait_ready(Duration::from_secs(300)) {
        house.dump(NAMESPACE);
        return Err(error);
    }
    say(&format!("Ready after {:.0} s", start.elapsed().as_secs_f32()));
    guide(&house, &set)
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

fn guide(house: &House, set: &Set<'_>) -> Result<()> {
    let kubeconfig = house.bed.kubeconfig()?;
    let bin = kubeconfig.with_file_name("bin");
    print!(
        "\n{}",
        house.kubectl(&["-n", NAMESPACE, "get", "hareplicaset,gitsource,pods", "-o", "wide"])?
    );
    let primary = set.primary()?;
    let work = kubeconfig.with_file_name("civil-work");
    println!(
        "
A database that came from a commit. To use kubectl here:
  export KUBECONFIG={kubeconfig} PATH={bin}:$PATH

Connect (the password is in the Secret {SET}-app):
  kubectl -n {NAMESPACE} exec -it {primary} -c postgresql -- psql -h /holdfast/run/socket -U postgres {database}
  or from this machine:
  psql \"host={address} dbname={database} user={user} password=$(kubectl -n {NAMESPACE} get secret {SET}-app -o go-template='{{{{.data.password | base64decode}}}}') sslmode=require\"

Three things to try:
  1. push a commit:           cd {work} && sed -i 's/work_mem: .*/work_mem: 16MB/' replica-set.yaml && git commit -am 'More work_mem' && git push
                              then: psql … -c 'show work_mem'
  2. delete the primary's pod: kubectl -n {NAMESPACE} delete pod {primary}; kubectl -n {NAMESPACE} get hrs -w
  3. cut a node's power:       {bed} --name {BED} off 1; kubectl -n {NAMESPACE} get hrs -w; {bed} --name {BED} on 1

make demo-down takes everything away again.",
        kubeconfig = kubeconfig.display(),
        bin = bin.display(),
        work = work.display(),
        bed = bed_program().display(),
        address = set.service("rw")?,
        database = set.secret("dbname")?,
        user = set.secret("user")?,
    );
    Ok(())
}

/// The `bed` program, which stands beside this one.
fn bed_program() -> std::path::PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name("bed")
}
