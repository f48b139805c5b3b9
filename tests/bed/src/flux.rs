//! Images of Flux's controllers, the peer of the GitSource in benchmarks, and what else it takes to install them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::bed::Bed;
use crate::image::{ImageSpec, cached};
use crate::{binaries, registry};

/// The user that Flux's own images have.
const UID: u32 = 65534;

/// A controller of Flux, ready for a registry.
#[derive(Debug, Clone)]
pub struct Controller {
    /// `source-controller` or `kustomize-controller`.
    pub name: String,
    /// Its image: a folder in OCI layout.
    pub layout: PathBuf,
    /// The files of its kinds.
    pub crds: Vec<PathBuf>,
}

/// Makes, once, the images of both controllers; usually 8 min, for the programs.
///
/// Flux's own images have git, ssh and gnupg beside the program, for bases in other repositories and for secrets that are
/// encrypted. No benchmark has either.
pub fn controllers() -> Result<Vec<Controller>> {
    let mut made = Vec::new();
    for dir in binaries::flux()? {
        let key = dir
            .file_name()
            .and_then(|name| name.to_str())
            .context("a module without a name")?;
        let (name, _) = key.rsplit_once('-').context("a module without a key")?;
        let layout = cached(
            &format!("flux-{key}"),
            &format!("the image of {name} (usually 1 s)"),
            |work| ImageSpec::program(&dir.join(name), UID).write(&work.join("layout")),
        )?;
        let mut crds = fs::read_dir(dir.join("crds"))?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?;
        crds.sort();
        made.push(Controller {
            name: name.into(),
            layout,
            crds,
        });
    }
    Ok(made)
}

impl Bed {
    /// Puts a controller of Flux into the registry; its name there, by digest.
    pub fn push_flux(&self, controller: &Controller) -> Result<String> {
        let name = format!("fluxcd/{}:v1.9.5", controller.name);
        Ok(registry::install(&self.state()?, &controller.layout, &name)?.pinned)
    }
}
