//! What an agent is told at start.

use std::path::PathBuf;

use anyhow::Context;
use holdfast_core::failover::MemberName;
use holdfast_core::instance::Timings;
use holdfast_postgres::{Archive, Layout};
use holdfast_wire::{Bootstrap, HEALTH_PORT, PEER_PORT, POSTGRES_PORT, env};

/// Who this agent is and where everything is.
#[derive(Clone, Debug)]
pub struct Options {
    /// This member.
    pub member: MemberName,
    /// The replica set.
    pub set: String,
    /// Its namespace.
    pub namespace: String,
    /// This Pod's address.
    pub address: String,
    /// This Pod's UID.
    pub pod_uid: String,
    /// How the first data directory is made.
    pub bootstrap: Bootstrap,
    /// Where files are.
    pub layout: Layout,
    /// Where all log goes, if it is archived.
    pub archive: Option<Archive>,
    /// Address that engine and agent listen on.
    pub listen: String,
    /// PostgreSQL's port.
    pub postgres_port: u16,
    /// The peers' port.
    pub peer_port: u16,
    /// The kubelet's and Prometheus' port.
    pub health_port: u16,
    /// Where the authority record is.
    pub cluster: ClusterKind,
    /// Delays and deadlines.
    pub timings: Timings,
    /// `PATH`, where PostgreSQL is looked for first.
    pub path: String,
}

/// What keeps the record, the wish, status and traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterKind {
    /// A Kubernetes API server, found as in-cluster clients do.
    Kubernetes,
    /// A folder that the members share: for tests and for trying things out on one machine.
    Folder(PathBuf),
}

impl Options {
    /// As in a Pod: from the environment.
    pub fn from_env() -> anyhow::Result<Options> {
        let get = |name: &str| std::env::var(name).with_context(|| format!("environment variable {name}"));
        let bootstrap = get(env::BOOTSTRAP)?;
        let (namespace, set) = (get(env::NAMESPACE)?, get(env::SET)?);
        let archive = match std::env::var_os(env::ARCHIVE) {
            Some(mount) => Some(Archive {
                // Several sets may share a volume. Neither name has a dot in it.
                folder: PathBuf::from(mount).join(format!("{namespace}.{set}")),
                program: std::env::current_exe().context("own path")?,
            }),
            None => None,
        };
        Ok(Options {
            member: MemberName(get(env::MEMBER)?),
            set,
            namespace,
            address: get(env::POD_IP)?,
            pod_uid: get(env::POD_UID)?,
            bootstrap: serde_json::from_str(&bootstrap).with_context(|| env::BOOTSTRAP)?,
            layout: Layout::default(),
            archive,
            listen: "*".to_owned(),
            postgres_port: POSTGRES_PORT,
            peer_port: PEER_PORT,
            health_port: HEALTH_PORT,
            cluster: ClusterKind::Kubernetes,
            timings: Timings::default(),
            path: std::env::var("PATH").unwrap_or_default(),
        })
    }

    /// The address to bind the agent's own ports to.
    pub fn bind(&self) -> &str {
        if self.listen == "*" { "[::]" } else { &self.listen }
    }
}
