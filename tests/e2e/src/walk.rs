//! The way through the whole house: a commit that becomes a running database, as README, demo and test go it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use holdfast_bed::net::Host;

use crate::house::{House, root, run};

/// What `examples/repository` calls its namespace and replica set.
pub const NAMESPACE: &str = "civil";
/// See [`NAMESPACE`].
pub const SET: &str = "registry";

/// The clone of the person who pushes.
pub fn work(house: &House) -> Result<PathBuf> {
    Ok(house.bed.kubeconfig()?.with_file_name("civil-work"))
}

/// git in that clone; its output.
pub fn git_in(house: &House, args: &[&str]) -> Result<String> {
    run(Command::new("git").current_dir(work(house)?).args(args))
}

/// A repository made from `examples/repository`, served over ssh, and the GitSource of `examples/gitsource-ssh.yaml` that follows it; the
/// commit.
pub fn repository(house: &House) -> Result<String> {
    let git = house.bed.git()?;
    if !git.path("civil").exists() {
        git.create("civil")?;
    }
    let work = work(house)?;
    let in_work = |args: &[&str]| git_in(house, args);
    if !work.exists() {
        run(Command::new("cp")
            .arg("-r")
            .arg(root().join("examples/repository"))
            .arg(&work))?;
        in_work(&["init", "-q", "-b", "main"])?;
        // By address, because only nodes and Pods know the bed's names; the server's key is checked all the same.
        let address = house.bed.state()?.net.ip(Host::GitSsh).to_string();
        in_work(&[
            "remote",
            "add",
            "origin",
            &git.ssh_url("civil").replace("git-ssh.bed", &address),
        ])?;
        let ssh = format!(
            "ssh -i {} -o IdentitiesOnly=yes -o UserKnownHostsFile={} -o HostKeyAlias=git-ssh.bed -o StrictHostKeyChecking=yes",
            git.ssh_key.display(),
            git.known_hosts.display()
        );
        in_work(&["config", "core.sshCommand", &ssh])?;
        in_work(&["config", "user.name", "Demo"])?;
        in_work(&["config", "user.email", "demo@example.org"])?;
        in_work(&["add", "."])?;
        in_work(&["commit", "-qm", "The registry's database"])?;
        in_work(&["push", "-q", "-u", "origin", "main"])?;
    }
    let commit = in_work(&["rev-parse", "HEAD"])?.trim().to_owned();

    house.apply(&format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
    ))?;
    let secret = house.kubectl(&[
        "-n",
        NAMESPACE,
        "create",
        "secret",
        "generic",
        "git-credentials",
        &format!("--from-file=identity={}", git.ssh_key.display()),
        &format!("--from-file=known_hosts={}", git.known_hosts.display()),
        "--dry-run=client",
        "-o",
        "yaml",
    ])?;
    house.apply(&secret)?;
    let source =
        std::fs::read_to_string(root().join("examples/gitsource-ssh.yaml")).context("examples/gitsource-ssh.yaml")?;
    house.apply(&source.replace("ssh://git@git.example.org/civil.git", &git.ssh_url("civil")))?;
    Ok(commit)
}
