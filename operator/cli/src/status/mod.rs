//! `kubectl holdfast status`.

mod draw;
mod gather;
mod list;

use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::paint::Paint;

/// What to show.
#[derive(clap::Args)]
pub struct Options {
    /// The replica set; all of the namespace where left out.
    name: Option<String>,
    /// List those of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "name")]
    all_namespaces: bool,
    /// `json` for programs.
    #[arg(short, long, value_parser = ["json"])]
    output: Option<String>,
}

/// Draws one, or lists all.
pub async fn run(cluster: &Cluster, options: &Options) -> Result<(), Failure> {
    let json = options.output.is_some();
    let text = match &options.name {
        Some(name) => {
            let picture = gather::gather(cluster, name).await?;
            if json {
                pretty(&picture)?
            } else {
                draw::draw(&picture, Paint::detect())
            }
        }
        None => {
            let sets = gather::all(cluster, options.all_namespaces).await?;
            if json {
                pretty(&sets)?
            } else {
                list::list(&sets, options.all_namespaces, Paint::detect())
            }
        }
    };
    print!("{text}");
    Ok(())
}

fn pretty(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map(|t| t + "\n")
        .map_err(|e| Failure::new(e.to_string()))
}
