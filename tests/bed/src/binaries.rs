//! The programs of the bed that Debian does not have, built once from the module files in `go/` into a cache.

use crate::run::{command, output, progress};
use crate::{paths, state};
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// One Go module that only lists tools.
struct Module {
    name: &'static str,
    files: [&'static str; 2],
    ldflags: &'static str,
    tags: &'static str,
    /// runc needs libseccomp through cgo; everything else is static.
    cgo: bool,
    /// Seconds on 2 cores with cold caches, as measured; seconds are enough when Go's own cache is warm.
    usual: u32,
    /// What must be there afterwards: name as built, name in the cache.
    programs: &'static [(&'static str, &'static str)],
}

macro_rules! files {
    ($name:literal) => {
        [
            include_str!(concat!("../go/", $name, "/go.mod")),
            include_str!(concat!("../go/", $name, "/go.sum")),
        ]
    };
}

const MODULES: [Module; 7] = [
    Module {
        name: "kube",
        files: files!("kube"),
        ldflags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
                  -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36",
        tags: "",
        cgo: false,
        usual: 410,
        programs: &[
            ("kube-apiserver", "kube-apiserver"),
            ("kube-controller-manager", "kube-controller-manager"),
            ("kube-scheduler", "kube-scheduler"),
            ("kube-proxy", "kube-proxy"),
            ("kubelet", "kubelet"),
            ("kubectl", "kubectl"),
        ],
    },
    Module {
        name: "etcd",
        files: files!("etcd"),
        ldflags: "-s -w",
        tags: "",
        cgo: false,
        usual: 35,
        programs: &[("server", "etcd")],
    },
    Module {
        name: "containerd",
        files: files!("containerd"),
        ldflags: "-s -w -X github.com/containerd/containerd/v2/version.Version=2.4.2",
        tags: "no_btrfs",
        cgo: false,
        usual: 75,
        programs: &[
            ("containerd", "containerd"),
            ("containerd-shim-runc-v2", "containerd-shim-runc-v2"),
            ("ctr", "ctr"),
        ],
    },
    Module {
        name: "runc",
        files: files!("runc"),
        ldflags: "-s -w",
        tags: "seccomp netgo osusergo",
        cgo: true,
        usual: 20,
        programs: &[("runc", "runc")],
    },
    Module {
        name: "registry",
        files: files!("registry"),
        ldflags: "-s -w",
        tags: "",
        cgo: false,
        usual: 95,
        programs: &[("registry", "registry")],
    },
    Module {
        name: "coredns",
        files: files!("coredns"),
        ldflags: "-s -w",
        tags: "",
        cgo: false,
        usual: 130,
        programs: &[("coredns", "coredns")],
    },
    Module {
        name: "helm",
        files: files!("helm"),
        ldflags: "-s -w",
        tags: "",
        cgo: false,
        usual: 140,
        programs: &[("helm", "helm")],
    },
];

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
        fs::rename(&bin, dir)?;
        fs::remove_dir_all(&work)?;
        Ok(())
    }
}

/// Builds what the cache does not have, then names the folder of each program's module.
pub fn build() -> Result<Vec<PathBuf>> {
    let mut dirs = Vec::new();
    let missing = |dir: &Path| !dir.is_dir();
    for module in &MODULES {
        let dir = module.dir()?;
        if missing(&dir) {
            // Another process may be building the same: wait for it rather than do it twice.
            let _lock = state::lock(&paths::home()?.join("build.lock"))?;
            if missing(&dir) {
                progress(&format!(
                    "building {} (usually {} s on 2 cores, once)",
                    module.name, module.usual
                ));
                let start = Instant::now();
                module.build(&dir)?;
                progress(&format!("built {} in {} s", module.name, start.elapsed().as_secs()));
            }
        }
        dirs.push(dir);
    }
    Ok(dirs)
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
