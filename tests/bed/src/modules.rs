//! The Go modules of the bed: what is built from each, and how.

/// One Go module that only lists tools.
pub struct Module {
    /// Its folder in `go/`.
    pub name: &'static str,
    /// `go.mod` and `go.sum`.
    pub files: [&'static str; 2],
    /// For the linker: versions, and no debug information.
    pub ldflags: &'static str,
    /// Build tags.
    pub tags: &'static str,
    /// runc needs libseccomp through cgo; everything else is static.
    pub cgo: bool,
    /// Seconds on 2 cores with cold caches, as measured; seconds are enough when Go's own cache is warm.
    pub usual: u32,
    /// What must be there afterwards: name as built, name in the cache.
    pub programs: &'static [(&'static str, &'static str)],
    /// A module of Go whose folder `config/crd/bases` goes into the cache, too, as `crds`; empty for none.
    pub crds: &'static str,
}

macro_rules! files {
    ($name:literal) => {
        [
            include_str!(concat!("../go/", $name, "/go.mod")),
            include_str!(concat!("../go/", $name, "/go.sum")),
        ]
    };
}

/// What every bed needs.
pub const MODULES: [Module; 7] = [
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
        crds: "",
    },
    Module {
        name: "etcd",
        files: files!("etcd"),
        ldflags: "-s -w",
        tags: "",
        cgo: false,
        usual: 35,
        programs: &[("server", "etcd")],
        crds: "",
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
        crds: "",
    },
    Module {
        name: "runc",
        files: files!("runc"),
        ldflags: "-s -w",
        tags: "seccomp netgo osusergo",
        cgo: true,
        usual: 20,
        programs: &[("runc", "runc")],
        crds: "",
    },
    Module {
        name: "registry",
        files: files!("registry"),
        ldflags: "-s -w",
        tags: "",
        cgo: false,
        usual: 95,
        programs: &[("registry", "registry")],
        crds: "",
    },
    Module {
        name: "coredns",
        files: files!("coredns"),
        ldflags: "-s -w",
        tags: "",
        cgo: false,
        usual: 130,
        programs: &[("coredns", "coredns")],
        crds: "",
    },
    Module {
        name: "helm",
        files: files!("helm"),
        ldflags: "-s -w",
        tags: "",
        cgo: false,
        usual: 140,
        programs: &[("helm", "helm")],
        crds: "",
    },
];

/// The peer of the GitSource in benchmarks: Flux's two controllers as they are published, each with the versions of its own
/// go.mod. `go/README.md` lists what is different.
pub const FLUX: [Module; 2] = [
    Module {
        name: "source-controller",
        files: files!("source-controller"),
        ldflags: "-s -w",
        tags: "",
        cgo: false,
        usual: 300,
        programs: &[("source-controller", "source-controller")],
        crds: "github.com/fluxcd/source-controller",
    },
    Module {
        name: "kustomize-controller",
        files: files!("kustomize-controller"),
        ldflags: "-s -w",
        tags: "",
        cgo: false,
        usual: 200,
        programs: &[("kustomize-controller", "kustomize-controller")],
        crds: "github.com/fluxcd/kustomize-controller",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flux_is_pinned_to_one_version() {
        for module in &FLUX {
            let pinned = format!("{} v1.9.5", module.crds);
            assert!(module.files[0].contains(&pinned), "{pinned}");
            assert!(
                module.files[0].contains(&format!("tool {}", module.crds)),
                "{} is not what is built",
                module.crds
            );
            assert!(!module.files[0].contains("=> ./"), "a folder that is not there");
        }
    }
}
