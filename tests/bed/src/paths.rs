//! Where a bed keeps its things. All of it is below one folder, so that removing the folder forgets everything.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// The bed's home: `$HOLDFAST_BED_HOME`, else `$XDG_CACHE_HOME/holdfast/bed`, else `~/.cache/holdfast/bed`.
pub fn home() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("HOLDFAST_BED_HOME") {
        return Ok(PathBuf::from(dir));
    }
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME").context("set HOME or HOLDFAST_BED_HOME")?).join(".cache"),
    };
    Ok(cache.join("holdfast/bed"))
}

/// The folder of binaries built from `go/*`, one sub-folder per module and key.
pub fn binaries() -> Result<PathBuf> {
    Ok(home()?.join("bin"))
}

/// The folder of finished images, each a folder in OCI layout.
pub fn images() -> Result<PathBuf> {
    Ok(home()?.join("images"))
}

/// The folder of files of package registries, as they came.
pub fn downloads() -> Result<PathBuf> {
    Ok(home()?.join("downloads"))
}

/// The folder that holds one folder per bed.
pub fn beds() -> Result<PathBuf> {
    Ok(home()?.join("beds"))
}

/// The folder of the bed called `name`. Fails on a name that would not be a plain folder name.
pub fn bed(name: &str) -> Result<PathBuf> {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if !plain {
        bail!("'{name}' cannot be the name of a bed: use letters, digits, '-' and '_'");
    }
    Ok(beds()?.join(name))
}

/// A path as text, for command lines. Fails on names that are not UTF-8, which the bed never makes itself.
pub fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not valid UTF-8", path.display()))
}
