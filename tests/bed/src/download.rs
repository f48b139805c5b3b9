//! Files of public package registries, each known by its digest, fetched once with the registry's ordinary client.

use crate::run::{command, output, progress, run};
use crate::{paths, state};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// One file, of which exactly one content will do.
#[derive(Debug, Clone, Copy)]
pub enum Pinned {
    /// A jar of Maven Central.
    Maven {
        /// Its group.
        group: &'static str,
        /// Its name.
        artifact: &'static str,
        /// Its version.
        version: &'static str,
        /// Its digest.
        sha256: &'static str,
    },
    /// A wheel of `PyPI` for `CPython` 3.12 on Linux; no Python is needed to use what is in it.
    Wheel {
        /// Its project.
        project: &'static str,
        /// Its version.
        version: &'static str,
        /// The file's name: a version has a file for each platform.
        file: &'static str,
        /// Its digest.
        sha256: &'static str,
    },
}

impl Pinned {
    fn sha256(&self) -> &'static str {
        match self {
            Pinned::Maven { sha256, .. } | Pinned::Wheel { sha256, .. } => sha256,
        }
    }

    fn file(&self) -> String {
        match self {
            Pinned::Maven { artifact, version, .. } => format!("{artifact}-{version}.jar"),
            Pinned::Wheel { file, .. } => (*file).into(),
        }
    }

    fn registry(&self) -> &'static str {
        match self {
            Pinned::Maven { .. } => "Maven Central",
            Pinned::Wheel { .. } => "PyPI",
        }
    }

    /// Has the registry's client put the file into `dir`.
    fn fetch(&self, dir: &Path) -> Result<()> {
        let words: Vec<String> = match self {
            Pinned::Maven {
                group,
                artifact,
                version,
                ..
            } => vec![
                "mvn".into(),
                "--quiet".into(),
                "--batch-mode".into(),
                "-Dstyle.color=never".into(),
                "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy".into(),
                format!("-Dartifact={group}:{artifact}:{version}"),
                format!("-DoutputDirectory={}", paths::text(dir)?),
            ],
            Pinned::Wheel { project, version, .. } => {
                let mut words: Vec<String> = ["pip3", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
                    .map(String::from)
                    .to_vec();
                // Said in full, so that the Python that runs pip does not matter.
                words.extend(["--implementation=cp", "--python-version=3.12", "--abi=cp312"].map(String::from));
                words.push("--platform=manylinux2014_x86_64".into());
                words.extend([format!("--dest={}", paths::text(dir)?), format!("{project}=={version}")]);
                words
            }
        };
        // mvn says on standard output what is wrong.
        let mut limited = command(&["timeout", "300", "sh", "-c", "exec \"$@\" >&2", "sh"]);
        // In a folder of our own: mvn would take a project's settings from where it is started.
        output(limited.args(words).current_dir(dir))?;
        Ok(())
    }
}

/// The path of the file, fetched unless the cache has it.
pub fn get(wanted: &Pinned) -> Result<PathBuf> {
    let (name, dir) = (wanted.file(), paths::downloads()?);
    let file = dir.join(&name);
    let _lock = state::lock(&paths::home()?.join("downloads.lock"))?;
    if !file.exists() {
        progress(&format!(
            "fetching {name} from {} (usually 10 s, once)",
            wanted.registry()
        ));
        let work = dir.join("work");
        let _ = fs::remove_dir_all(&work);
        fs::create_dir_all(&work)?;
        wanted.fetch(&work).with_context(|| {
            format!(
                "{} does not give {name}; where it cannot be reached, put that file into {} yourself",
                wanted.registry(),
                dir.display()
            )
        })?;
        check(wanted, &work.join(&name))?;
        fs::rename(work.join(&name), &file)?;
        fs::remove_dir_all(&work)?;
    }
    // Somebody may have put it there, and a disk may lose what was written.
    check(wanted, &file)?;
    Ok(file)
}

fn check(wanted: &Pinned, file: &Path) -> Result<()> {
    let said = run(&["sha256sum", paths::text(file)?])?;
    let sum = said.split_whitespace().next().unwrap_or_default();
    ensure!(
        sum == wanted.sha256(),
        "{} has the digest {sum}, not {}: it is not the file that was pinned",
        file.display(),
        wanted.sha256()
    );
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic in a test is its verdict")]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_content_is_refused_by_name_and_digest() {
        let dir = std::env::temp_dir().join(format!("holdfast-download-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("a-1.jar");
        let pinned = |sha256| Pinned::Maven {
            group: "g",
            artifact: "a",
            version: "1",
            sha256,
        };
        fs::write(&file, "abc").unwrap();
        let right = pinned("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        check(&right, &file).unwrap();
        fs::write(&file, "abd").unwrap();
        let error = check(&right, &file).unwrap_err().to_string();
        fs::remove_dir_all(&dir).unwrap();
        assert!(error.contains("a-1.jar") && error.contains(right.sha256()), "{error}");
    }
}
