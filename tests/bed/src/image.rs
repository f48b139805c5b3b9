//! Images without a container engine: layers are plain tar files, written as folders in OCI layout.

use crate::run::{progress, run};
use crate::{paths, registry, state};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The sandbox image that containerd starts for each pod.
pub const PAUSE: &str = "bed/pause:1";

/// An image in a bed's registry.
#[derive(Debug, Clone)]
pub struct ImageRef {
    /// By tag, e.g. `registry.bed:5000/bed/postgres:17`.
    pub tagged: String,
    /// The manifest's digest, `sha256:…`.
    pub digest: String,
    /// By digest: tag and digest together would also do, but many tools refuse that.
    pub pinned: String,
}

/// What an image is made of.
#[derive(Debug, Clone, Default)]
pub struct ImageSpec {
    /// Uncompressed tar files, lowest first.
    pub layers: Vec<PathBuf>,
    /// Files on top: path in the image, file on the machine. All are readable and executable by everybody.
    pub files: Vec<(String, PathBuf)>,
    /// Program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Environment, `NAME=value`.
    pub env: Vec<String>,
    /// User name or `UID[:GID]`; empty is root.
    pub user: String,
    /// Folders that the image declares as volumes of their own.
    pub volumes: Vec<String>,
    /// Labels; one more label is enough to give the same content a new digest.
    pub labels: Vec<(String, String)>,
}

impl ImageSpec {
    /// An image that holds one static program and starts it. In `/bin`, not in the root: a Pod that mounts something under
    /// `/holdfast` could not start from an image in which that is a file.
    pub fn program(file: &Path, uid: u32) -> ImageSpec {
        let name = file
            .file_name()
            .map_or_else(|| "program".into(), |name| name.to_string_lossy());
        let path = format!("/bin/{name}");
        ImageSpec {
            files: vec![(path.clone(), file.to_path_buf())],
            entrypoint: vec![path],
            user: format!("{uid}:{uid}"),
            ..ImageSpec::default()
        }
    }

    /// Everything in the image in the layout folder `base`, to be added to.
    pub fn based_on(base: &Path) -> Result<ImageSpec> {
        let blob = |descriptor: &Value| -> Result<PathBuf> {
            let digest = descriptor
                .pointer("/digest")
                .and_then(Value::as_str)
                .context("a descriptor without digest")?;
            Ok(base.join("blobs").join(digest.replace(':', "/")))
        };
        let read = |file: &Path| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(file)?)?) };
        let index = read(&base.join("index.json"))?;
        let manifest = read(&blob(
            index.pointer("/manifests/0").context("an index without manifest")?,
        )?)?;
        let config = read(&blob(
            manifest.pointer("/config").context("a manifest without config")?,
        )?)?;
        let layers = manifest
            .pointer("/layers")
            .and_then(Value::as_array)
            .context("a manifest without layers")?;
        let words = |name: &str| -> Vec<String> {
            let list = config.pointer(&format!("/config/{name}")).and_then(Value::as_array);
            list.into_iter()
                .flatten()
                .filter_map(|word| Some(word.as_str()?.to_string()))
                .collect()
        };
        Ok(ImageSpec {
            layers: layers.iter().map(blob).collect::<Result<_>>()?,
            entrypoint: words("Entrypoint"),
            env: words("Env"),
            user: config
                .pointer("/config/User")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_string(),
            ..ImageSpec::default()
        })
    }

    /// Writes the image into `dir` in OCI layout and returns the manifest's digest.
    pub fn write(&self, dir: &Path) -> Result<String> {
        fs::create_dir_all(dir.join("blobs/sha256"))?;
        let mut layers = Vec::new();
        for layer in &self.layers {
            layers.push(add_blob(dir, layer, "application/vnd.oci.image.layer.v1.tar", true)?);
        }
        if !self.files.is_empty() {
            let tar = dir.join("files.tar");
            self.write_files(&tar)?;
            layers.push(add_blob(dir, &tar, "application/vnd.oci.image.layer.v1.tar", false)?);
        }
        let diff_ids: Vec<_> = layers.iter().filter_map(|layer| layer.get("digest")).collect();
        let labels: serde_json::Map<String, Value> = self
            .labels
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        let volumes: serde_json::Map<String, Value> =
            self.volumes.iter().map(|path| (path.clone(), json!({}))).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint, "Env": self.env, "User": self.user, "Labels": labels, "Volumes": volumes,
            },
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = add_json(dir, &config, "application/vnd.oci.image.config.v1+json")?;
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers});
        let manifest = add_json(dir, &manifest, manifest_type)?;
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        fs::write(
            dir.join("index.json"),
            json!({"schemaVersion": 2, "manifests": [manifest]}).to_string(),
        )?;
        digest_of(&manifest)
    }

    /// The top layer. It has no times of its own, so that the same files give the same digest.
    fn write_files(&self, tar: &Path) -> Result<()> {
        let mut archive = tar::Builder::new(File::create(tar)?);
        let mut add = |path: &str, kind: tar::EntryType, mode: u32, size: u64, data: &mut dyn std::io::Read| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(size);
            archive.append_data(&mut header, path.trim_start_matches('/'), data)
        };
        let mut dirs = std::collections::BTreeSet::new();
        for (path, _) in &self.files {
            dirs.extend(Path::new(path).ancestors().skip(1).filter(|dir| dir.parent().is_some()));
        }
        for dir in dirs {
            add(
                &format!("{}/", dir.display()),
                tar::EntryType::Directory,
                0o755,
                0,
                &mut std::io::empty(),
            )?;
        }
        add("tmp/", tar::EntryType::Directory, 0o1777, 0, &mut std::io::empty())?;
        for (path, source) in &self.files {
            let mut file = File::open(source).with_context(|| format!("cannot read {}", source.display()))?;
            let size = file.metadata()?.len();
            add(path, tar::EntryType::Regular, 0o755, size, &mut file)?;
        }
        archive.finish()?;
        Ok(())
    }
}

fn digest_of(descriptor: &Value) -> Result<String> {
    Ok(descriptor
        .get("digest")
        .and_then(Value::as_str)
        .context("a descriptor without digest")?
        .to_string())
}

/// Takes `file` in as a blob (linked when it is to be kept, else moved) and returns its descriptor.
fn add_blob(dir: &Path, file: &Path, media_type: &str, keep: bool) -> Result<Value> {
    // sha256sum is tens of times faster than ours in a debug build, and layers are hundreds of megabytes.
    let sum = run(&["sha256sum", paths::text(file)?])?;
    let hex = sum.split_whitespace().next().context("sha256sum said nothing")?;
    let blob = dir.join("blobs/sha256").join(hex);
    let size = fs::metadata(file)?.len();
    if blob.exists() {
        if !keep {
            fs::remove_file(file)?;
        }
    } else if keep {
        registry::link_or_copy(file, &blob)?;
    } else {
        fs::rename(file, &blob)?;
    }
    Ok(json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": size}))
}

fn add_json(dir: &Path, value: &Value, media_type: &str) -> Result<Value> {
    let draft = dir.join("draft.json");
    fs::write(&draft, value.to_string())?;
    add_blob(dir, &draft, media_type, false)
}

/// Makes, once, the pause image and returns its layout folder.
pub fn pause() -> Result<PathBuf> {
    cached("pause-1", "the pause image (usually 1 s)", |work| {
        let source = work.join("pause.c");
        fs::write(&source, include_str!("pause.c"))?;
        let program = work.join("pause");
        run(&[
            "gcc",
            "-static",
            "-Os",
            "-o",
            paths::text(&program)?,
            paths::text(&source)?,
        ])?;
        ImageSpec::program(&program, 65535).write(&work.join("layout"))
    })
}

/// Makes an image with `make`, which writes `WORK/layout`, unless the cache has it under `key`.
pub(crate) fn cached(key: &str, what: &str, make: impl FnOnce(&Path) -> Result<String>) -> Result<PathBuf> {
    let dir = paths::images()?.join(key);
    if !dir.is_dir() {
        let _lock = state::lock(&paths::home()?.join("images.lock"))?;
        if !dir.is_dir() {
            progress(&format!("making {what}, once"));
            let start = Instant::now();
            let work = dir.with_extension("work");
            let _ = fs::remove_dir_all(&work);
            fs::create_dir_all(&work)?;
            make(&work).with_context(|| format!("cannot make {what}"))?;
            fs::rename(work.join("layout"), &dir)?;
            fs::remove_dir_all(&work)?;
            progress(&format!("made {key} in {} s", start.elapsed().as_secs()));
        }
    }
    Ok(dir)
}
