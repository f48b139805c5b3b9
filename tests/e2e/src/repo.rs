//! A repository on the bed's Git servers, and the clone of a person who pushes to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use holdfast_bed::{GitServers, Host};

use crate::house::{House, run};

/// A repository under test. Pushes go over ssh, with the server's key checked, as a person's do.
#[derive(Clone, Debug)]
pub struct Repo {
    /// The servers that it is on.
    pub servers: GitServers,
    /// Its name there.
    pub name: String,
    work: PathBuf,
}

impl Repo {
    /// An empty repository of this name with the branch `main`; one of that name is removed first.
    pub fn new(house: &House, name: &str) -> Result<Repo> {
        let servers = house.bed.git()?;
        let work = house.bed.kubeconfig()?.with_file_name(format!("work-{name}"));
        for old in [&servers.path(name), &work] {
            if old.exists() {
                fs::remove_dir_all(old)?;
            }
        }
        servers.create(name)?;
        fs::create_dir_all(&work)?;
        let address = house.bed.state()?.net.ip(Host::GitSsh).to_string();
        let url = servers.ssh_url(name).replace("git-ssh.bed", &address);
        let ssh = format!(
            "ssh -i {} -o IdentitiesOnly=yes -o UserKnownHostsFile={} -o HostKeyAlias=git-ssh.bed -o StrictHostKeyChecking=yes",
            servers.ssh_key.display(),
            servers.known_hosts.display()
        );
        let repo = Repo {
            servers,
            name: name.into(),
            work,
        };
        repo.git(&["init", "-q", "-b", "main"])?;
        repo.git(&["remote", "add", "origin", &url])?;
        repo.git(&["config", "core.sshCommand", &ssh])?;
        repo.git(&["config", "user.name", "Ada"])?;
        repo.git(&["config", "user.email", "ada@example.org"])?;
        repo.git(&["config", "gc.auto", "0"])?;
        Ok(repo)
    }

    /// git in the clone, without the machine's own settings; its output.
    pub fn git(&self, args: &[&str]) -> Result<String> {
        run(Command::new("git")
            .current_dir(&self.work)
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env_remove("GIT_SSH_COMMAND"))
    }

    /// Writes a file of the clone.
    pub fn write(&self, path: &str, text: &str) -> Result<&Repo> {
        let path = self.work.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(self)
    }

    /// Writes `NAME.yaml` with a ConfigMap of this name that has one key, `value`.
    pub fn config_map(&self, name: &str, value: &str) -> Result<&Repo> {
        self.write(&format!("{name}.yaml"), &config_map(name, value))
    }

    /// Removes a file of the clone.
    pub fn remove(&self, path: &str) -> Result<&Repo> {
        fs::remove_file(self.work.join(path)).with_context(|| path.to_owned())?;
        Ok(self)
    }

    /// Commits everything and pushes it; the commit.
    pub fn push(&self, message: &str) -> Result<String> {
        self.push_with(message, &[])
    }

    /// The same, signed with the ssh key of a person (made when it is new).
    pub fn push_signed(&self, message: &str, by: &str) -> Result<String> {
        let key = format!("user.signingkey={}", self.key(by)?.display());
        self.push_with(
            message,
            &["-c", "gpg.format=ssh", "-c", &key, "-c", "commit.gpgsign=true"],
        )
    }

    fn push_with(&self, message: &str, settings: &[&str]) -> Result<String> {
        self.git(&["add", "-A"])?;
        self.git(&[settings, &["commit", "-q", "--allow-empty", "-m", message]].concat())?;
        self.force_push()
    }

    /// Pushes what is there, whether or not it follows what was pushed before; the commit.
    pub fn force_push(&self) -> Result<String> {
        self.git(&["push", "-q", "-f", "origin", "HEAD:main"])?;
        Ok(self.git(&["rev-parse", "HEAD"])?.trim().to_owned())
    }

    /// The public key of a person.
    pub fn public_key(&self, of: &str) -> Result<String> {
        Ok(fs::read_to_string(self.key(of)?.with_extension("pub"))?.trim().into())
    }

    fn key(&self, of: &str) -> Result<PathBuf> {
        let path = self.work.join(".git").join(format!("key-{of}"));
        if !path.exists() {
            run(Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", of, "-f"])
                .arg(&path))?;
        }
        Ok(path)
    }

    /// The folder of the clone.
    pub fn work(&self) -> &Path {
        &self.work
    }
}

/// A ConfigMap with one key, `value`, on line 6.
pub fn config_map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  value: \"{value}\"\n")
}
