//! The programs of the bed that Debian does not have, built once from the module files in `go/` into a cache.

use crate::modules::{FLUX, MODULES, Module};
use crate::run::{command, output, progress};
use crate::{paths, state};
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

impl Module {
    /// Changes whenever what would be built changes.
    fn key(&self) -> String {
        let mut hash = Sha256::new();
        for part in [
            self.files.concat().as_str(),
            self.ldflags,
            self.tags,
            if self.cgo { "cgo" } else { "" },
        ] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        hash.finalize()
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    fn dir(&self) -> Result<PathBuf> {
        Ok(paths::binaries()?.join(format!("{}-{}", self.name, self.key())))
    }

    fn build(&self, dir: &Path) -> Result<()> {
        let work = dir.with_extension("work");
        let bin = work.join("bin");
        fs::create_dir_all(&bin)?;
        for (name, text) in ["go.mod", "go.sum"].iter().zip(self.files) {
            fs::write(work.join(name), text)?;
        }
        let mut go = command(&["go", "install", "-trimpath", "-ldflags", self.ldflags]);
        if !self.tags.is_empty() {
            go.args(["-tags", self.tags]);
        }
        go.arg("tool").current_dir(&work).env("GOBIN", &bin);
        go.env("GOFLAGS", "-mod=readonly -buildvcs=false")
            .env("CGO_ENABLED", if self.cgo { "1" } else { "0" });
        output(&mut go)
            .with_context(|| format!("building {} failed; Go 1.26 and its module proxy are needed", self.name))?;
        for (built, wanted) in self.programs {
            fs::rename(bin.join(built), bin.join(wanted)).with_context(|| format!("{built} was not built"))?;
        }
        if !self.crds.is_empty() {
            let folder = output(command(&["go", "list", "-m", "-f", "{{.Dir}}", self.crds]).current_dir(&work))?;
            let folder = Path::new(folder.trim()).join("config/crd/bases");
            let crds = bin.join("crds");
            fs::create_dir(&crds)?;
            for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
                let entry = entry?;
                fs::copy(entry.path(), crds.join(entry.file_name()))?;
            }
        }
        fs::rename(&bin, dir)?;
        fs::remove_dir_all(&work)?;
        Ok(())
    }
}

/// Builds what the cache does not have, then names the folder of each program's module.
pub fn build() -> Result<Vec<PathBuf>> {
    MODULES.iter().map(ensure).collect()
}

/// The same for Flux's controllers; in each folder is a folder `crds`, too.
pub fn flux() -> Result<Vec<PathBuf>> {
    FLUX.iter().map(ensure).collect()
}

fn ensure(module: &Module) -> Result<PathBuf> {
    let dir = module.dir()?;
    if !dir.is_dir() {
        // Another process may be building the same: wait for it rather than do it twice.
        let _lock = state::lock(&paths::home()?.join("build.lock"))?;
        if !dir.is_dir() {
            progress(&format!(
                "building {} (usually {} s on 2 cores, once)",
                module.name, module.usual
            ));
            let start = Instant::now();
            module.build(&dir)?;
            progress(&format!("built {} in {} s", module.name, start.elapsed().as_secs()));
        }
    }
    Ok(dir)
}

/// Puts hard links of all programs into `bin`, so that a later rebuild cannot pull them from under a running bed.
pub fn link_into(bin: &Path) -> Result<()> {
    fs::create_dir_all(bin)?;
    for dir in build()? {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            fs::hard_link(entry.path(), bin.join(entry.file_name()))?;
        }
    }
    fs::copy(own_program()?, bin.join("bed")).context("cannot copy the bed program")?;
    Ok(())
}

/// The `bed` program itself, which is also a node's first process and the provisioner.
///
/// A test is another program: it finds `bed` beside itself in Cargo's target folder, or by `$HOLDFAST_BED_PROGRAM`.
fn own_program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("HOLDFAST_BED_PROGRAM") {
        return Ok(PathBuf::from(path));
    }
    let own = std::env::current_exe()?;
    let beside = own.ancestors().skip(1).take(2).map(|dir| dir.join("bed"));
    match std::iter::once(own.clone())
        .chain(beside)
        .find(|path| path.is_file() && path.ends_with("bed"))
    {
        Some(path) => Ok(path),
        None => bail!(
            "the `bed` program is not beside {}: run `cargo build -p holdfast-bed` first",
            own.display()
        ),
    }
}
