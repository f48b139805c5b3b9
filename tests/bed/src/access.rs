//! What is in a bed, and how to reach it.

use crate::bed::Bed;
use crate::control::{self, kubeconfig};
use crate::git::GitServers;
use crate::image::{ImageRef, ImageSpec};
use crate::net::Host;
use crate::{client, engine, paths, pki, registry};
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

impl Bed {
    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> Result<PathBuf> {
        kubeconfig(&self.state()?, "admin")
    }

    /// A program of the bed: `kubectl`, `helm`, `ctr`, …
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        Ok(paths::bed(self.name())?.join("bin").join(name))
    }

    /// A `kubectl` that speaks for the administrator.
    pub fn kubectl(&self) -> Result<Command> {
        control::kubectl(&self.state()?)
    }

    /// The registry's name and port, valid in image names, on nodes and in pods: `registry.bed:5000`.
    pub fn registry(&self) -> &'static str {
        registry::NAME
    }

    /// The registry's address and port, valid on the machine itself.
    pub fn registry_address(&self) -> Result<String> {
        Ok(format!("{}:5000", self.state()?.net.ip(Host::Registry)))
    }

    /// Builds an image and puts it into the registry as `name`, e.g. `holdfast/operator:dev`.
    pub fn push_image(&self, spec: &ImageSpec, name: &str) -> Result<ImageRef> {
        let state = self.state()?;
        let work = state.dir()?.join(format!("image-{}", pki::token()?));
        let pushed = spec.write(&work).and_then(|_| registry::install(&state, &work, name));
        let _ = fs::remove_dir_all(&work);
        pushed
    }

    /// Puts an archive in `oci-archive` format into the registry as `name`.
    pub fn push_archive(&self, archive: &Path, name: &str) -> Result<ImageRef> {
        let state = self.state()?;
        let work = state.dir()?.join(format!("image-{}", pki::token()?));
        let pushed = registry::unpack_archive(archive, &work).and_then(|()| registry::install(&state, &work, name));
        let _ = fs::remove_dir_all(&work);
        pushed
    }

    /// Puts a PostgreSQL major version into the registry; made first if need be, which usually takes 60 s.
    pub fn push_postgres(&self, major: u8) -> Result<ImageRef> {
        registry::install(
            &self.state()?,
            &engine::postgres(major)?,
            &format!("bed/postgres:{major}"),
        )
    }

    /// Puts PostgreSQL 17 in the shape of the official image into the registry.
    pub fn push_official(&self) -> Result<ImageRef> {
        registry::install(&self.state()?, &engine::official()?, "bed/postgres:17-official")
    }

    /// Puts Patroni with PostgreSQL 17 into the registry; made first if need be, which usually takes 60 s.
    pub fn push_patroni(&self) -> Result<ImageRef> {
        registry::install(&self.state()?, &engine::patroni()?, "bed/patroni:17")
    }

    /// The API server's audit log: a JSON line for each request of a ServiceAccount outside kube-system.
    pub fn audit_log(&self) -> Result<PathBuf> {
        control::audit_log(&self.state()?)
    }

    /// The log of one of the bed's programs, for example `git-ssh`.
    pub fn log(&self, program: &str) -> Result<PathBuf> {
        self.state()?.log(program)
    }

    /// The Git servers.
    pub fn git(&self) -> Result<GitServers> {
        GitServers::of(&self.state()?)
    }

    /// A command that runs on a host of the bed; on [`Host::Client`] it is an outside client of Services and names.
    pub fn command_on<S: AsRef<str>>(&self, host: Host, argv: &[S]) -> Result<Command> {
        let argv: Vec<String> = argv.iter().map(|word| word.as_ref().to_string()).collect();
        client::command_on(&self.state()?, host, &argv)
    }
}
