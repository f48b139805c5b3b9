//! CustomResourceDefinitions as files: generated, committed, and compared in CI.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// Where to.
#[derive(clap::Args)]
pub struct Options {
    /// Folder that the files are written to; printed to standard output where left out.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Folder of the chart's templates: the same, with what Helm must know.
    #[arg(long)]
    chart: Option<PathBuf>,
    /// Write nothing; fail where a file is not as it would be written.
    #[arg(long)]
    check: bool,
}

/// Keeps a definition when its release goes: with it would go every object of the kind.
const KEEP: (&str, &str) = ("helm.sh/resource-policy", "keep");

/// Writes every kind.
pub fn run(options: &Options) -> anyhow::Result<()> {
    for (name, plain, chart) in all()? {
        for (folder, yaml) in [(&options.out, &plain), (&options.chart, &chart)] {
            if let Some(folder) = folder {
                put(&folder.join(&name), yaml, options.check)?;
            }
        }
        if options.out.is_none() && options.chart.is_none() {
            println!("---\n{plain}");
        }
    }
    Ok(())
}

fn put(file: &Path, yaml: &str, check: bool) -> anyhow::Result<()> {
    if check {
        let there = std::fs::read_to_string(file).unwrap_or_default();
        anyhow::ensure!(
            there == yaml,
            "{} is not up to date; run `make generate`",
            file.display()
        );
        return Ok(());
    }
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    std::fs::write(file, yaml).with_context(|| format!("writing {}", file.display()))
}

/// File name, definition, and definition for the chart.
fn all() -> anyhow::Result<Vec<(String, String, String)>> {
    kinds()
        .into_iter()
        .map(|mut crd| {
            let name = format!("{}.yaml", crd.metadata.name.clone().unwrap_or_default());
            let plain = yaml(&crd)?;
            crd.metadata.annotations = Some(BTreeMap::from([(KEEP.0.to_owned(), KEEP.1.to_owned())]));
            let chart = yaml(&crd)?;
            anyhow::ensure!(
                !chart.contains("{{"),
                "{name}: a description with '{{{{' would be a template to Helm"
            );
            Ok((name, plain, chart))
        })
        .collect()
}

fn yaml(crd: &CustomResourceDefinition) -> anyhow::Result<String> {
    // By way of JSON, so that empty fields are left out as the API server would.
    let mut json = serde_json::to_value(crd)?;
    drop_unsigned(&mut json);
    Ok(serde_saphyr::to_string(&json)?)
}

/// Kubernetes knows no unsigned formats and warns of each at every install; the bounds are in `minimum` and `maximum`.
fn drop_unsigned(json: &mut serde_json::Value) {
    match json {
        serde_json::Value::Object(map) => {
            if map
                .get("format")
                .and_then(|f| f.as_str())
                .is_some_and(|f| f.starts_with("uint"))
            {
                map.remove("format");
            }
            map.values_mut().for_each(drop_unsigned);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(drop_unsigned),
        _ => {}
    }
}

/// Every kind, as its types say.
pub fn kinds() -> Vec<CustomResourceDefinition> {
    vec![holdfast_api::GitSource::crd(), holdfast_api::HAReplicaSet::crd()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_definitions_are_what_the_types_say() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let options = Options {
            out: Some(root.join("crds")),
            chart: Some(root.join("charts/holdfast-crds/templates")),
            check: true,
        };
        run(&options).unwrap();
    }
}
