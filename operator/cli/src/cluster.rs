//! The cluster and namespace that a command is about.

use holdfast_api::HAReplicaSet;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use crate::failure::Failure;

/// The field manager of what a person changes by this program.
pub const FIELD_MANAGER: &str = "kubectl-holdfast";

/// Flags that every command has, spelt as kubectl spells them.
#[derive(clap::Args)]
pub struct Where {
    /// Namespace. Default: the context's.
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    /// Context of the kubeconfig.
    #[arg(long, global = true)]
    context: Option<String>,
    /// File to use instead of $KUBECONFIG.
    #[arg(long, global = true)]
    kubeconfig: Option<std::path::PathBuf>,
}

/// A connection.
pub struct Cluster {
    /// To the API server.
    pub client: Client,
    /// The namespace that the command is about.
    pub namespace: String,
}

impl Cluster {
    /// As kubectl would.
    pub async fn connect(place: &Where) -> Result<Cluster, Failure> {
        let lost = |error: String| {
            Failure::new(format!("no cluster: {error}")).next("set KUBECONFIG, or give --kubeconfig or --context")
        };
        let options = KubeConfigOptions {
            context: place.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = match &place.kubeconfig {
            Some(file) => {
                let file = Kubeconfig::read_from(file).map_err(|e| lost(e.to_string()))?;
                Config::from_custom_kubeconfig(file, &options)
                    .await
                    .map_err(|e| lost(e.to_string()))?
            }
            None if place.context.is_some() => Config::from_kubeconfig(&options)
                .await
                .map_err(|e| lost(e.to_string()))?,
            None => Config::infer().await.map_err(|e| lost(e.to_string()))?,
        };
        let namespace = place
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|e| lost(e.to_string()))?;
        Ok(Cluster { client, namespace })
    }

    /// Replica sets of the namespace.
    pub fn sets(&self) -> Api<HAReplicaSet> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// One replica set.
    pub async fn set(&self, name: &str) -> Result<HAReplicaSet, Failure> {
        self.sets()
            .get(name)
            .await
            .map_err(|e| Failure::of(&self.call(name), e))
    }

    /// What to call a replica set in a message.
    pub fn call(&self, name: &str) -> String {
        format!("HAReplicaSet {}/{name}", self.namespace)
    }
}

/// The member that a person means by its name or its number.
pub fn member(set: &HAReplicaSet, text: &str) -> Result<String, Failure> {
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let full = match text.parse::<u16>() {
        Ok(number) => holdfast_wire::Names(name).member(number),
        Err(_) => text.to_owned(),
    };
    let members: Vec<&str> = set
        .status
        .iter()
        .flat_map(|s| s.members.iter())
        .map(|m| m.name.as_str())
        .collect();
    if members.contains(&full.as_str()) {
        return Ok(full);
    }
    let known = if members.is_empty() {
        "none seen yet".to_owned()
    } else {
        members.join(", ")
    };
    Err(Failure::new(format!("{name} has no member {full}")).next(format!("members: {known}")))
}
