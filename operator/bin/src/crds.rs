//! CustomResourceDefinitions as files: generated, committed, and compared in CI.

use std::path::PathBuf;

use anyhow::Context;
use kube::CustomResourceExt;

/// Where to.
#[derive(clap::Args)]
pub struct Options {
    /// Folder that the files are written to; printed to standard output where left out.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Writes every kind.
pub fn run(options: &Options) -> anyhow::Result<()> {
    for crd in all() {
        let name = format!("{}.yaml", crd.metadata.name.clone().unwrap_or_default());
        // By way of JSON, so that empty fields are left out as the API server would.
        let yaml = serde_saphyr::to_string(&serde_json::to_value(&crd)?)?;
        match &options.out {
            Some(folder) => {
                std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
                let file = folder.join(name);
                std::fs::write(&file, yaml).with_context(|| format!("writing {}", file.display()))?;
            }
            None => println!("---\n{yaml}"),
        }
    }
    Ok(())
}

fn all() -> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> {
    vec![holdfast_api::HAReplicaSet::crd()]
}
