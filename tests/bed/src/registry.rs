//! The bed's registry: distribution v3 on plain HTTP at `registry.bed:5000`, for nodes and pods alike.
//!
//! Images made here are put into its storage directly: content is addressed by digest, so a hard link is as good as an
//! upload and takes no time. Pulls, tags and digests are served by the real thing.

use crate::control;
use crate::image::ImageRef;
use crate::net::Host;
use crate::paths;
use crate::run::{Proc, run};
use crate::state::State;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Name and port, as they stand in image names.
pub const NAME: &str = "registry.bed:5000";

/// Starts the registry.
pub fn start(state: &State) -> Result<Proc> {
    let config = state.dir()?.join("registry.json");
    let text = json!({
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": true}},
        "storage": {
            "filesystem": {"rootdirectory": storage(state)?},
            "delete": {"enabled": true},
            "maintenance": {"uploadpurging": {"enabled": false}},
        },
        "http": {"addr": ":5000", "secret": "one registry needs no shared secret"},
    });
    fs::create_dir_all(storage(state)?)?;
    fs::write(&config, text.to_string())?;
    let argv = vec![state.bin("registry")?, "serve".into(), paths::text(&config)?.into()];
    control::launch(
        state,
        Host::Registry,
        "registry",
        argv,
        vec![("OTEL_TRACES_EXPORTER", "none".into())],
    )
}

fn storage(state: &State) -> Result<PathBuf> {
    Ok(state.dir()?.join("registry"))
}

/// Puts the image in the layout folder `layout` into the registry as `name`, e.g. `bed/postgres:17`.
pub fn install(state: &State, layout: &Path, name: &str) -> Result<ImageRef> {
    let name = name
        .strip_prefix(NAME)
        .map_or(name, |rest| rest.trim_start_matches('/'));
    let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
    let digest = index
        .pointer("/manifests/0/digest")
        .and_then(Value::as_str)
        .context("the image's index is empty")?;
    let root = storage(state)?.join("docker/registry/v2");
    let repo = root.join("repositories").join(repository);
    for entry in fs::read_dir(layout.join("blobs/sha256"))? {
        let entry = entry?;
        let hex = entry
            .file_name()
            .into_string()
            .ok()
            .context("a blob's name is not hexadecimal")?;
        let folder = root
            .join("blobs/sha256")
            .join(hex.get(..2).context("a blob's name is too short")?)
            .join(&hex);
        let data = folder.join("data");
        if !data.exists() {
            fs::create_dir_all(&folder)?;
            link_or_copy(&entry.path(), &data)?;
        }
        write_link(&repo.join("_layers/sha256").join(&hex), &format!("sha256:{hex}"))?;
    }
    let hex = digest.trim_start_matches("sha256:");
    write_link(&repo.join("_manifests/revisions/sha256").join(hex), digest)?;
    let tags = repo.join("_manifests/tags").join(tag);
    write_link(&tags.join("index/sha256").join(hex), digest)?;
    write_link(&tags.join("current"), digest)?;
    Ok(ImageRef {
        tagged: format!("{NAME}/{repository}:{tag}"),
        digest: digest.to_string(),
        pinned: format!("{NAME}/{repository}@{digest}"),
    })
}

/// The registry reads what a name stands for from a file `link`; a reader sees the old one or the new one.
fn write_link(folder: &Path, digest: &str) -> Result<()> {
    fs::create_dir_all(folder)?;
    let draft = folder.join("link.new");
    fs::write(&draft, digest)?;
    fs::rename(draft, folder.join("link"))?;
    Ok(())
}

/// A second name for a file's content, or a copy where the file system ends.
pub fn link_or_copy(from: &Path, to: &Path) -> Result<()> {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// Unpacks an image archive (`oci-archive`, as buildah, podman and skopeo write it) into the folder `layout`.
pub fn unpack_archive(archive: &Path, layout: &Path) -> Result<()> {
    fs::create_dir_all(layout)?;
    run(&["tar", "-xf", paths::text(archive)?, "-C", paths::text(layout)?])?;
    anyhow::ensure!(
        layout.join("index.json").exists(),
        "{} is no oci-archive: it has no index.json",
        archive.display()
    );
    Ok(())
}
