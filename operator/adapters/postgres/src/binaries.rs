//! Finds PostgreSQL's programs in any image.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::error::{Error, Result};

/// A folder without one of these (some put links to a few into PATH) is passed over.
const NEEDED: &[&str] = &[
    "postgres",
    "initdb",
    "pg_controldata",
    "pg_basebackup",
    "pg_rewind",
    "psql",
];

/// The programs of one PostgreSQL installation.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// Their folder.
    pub dir: PathBuf,
    /// Major version, 15 to 18.
    pub major: u32,
    /// As the engine says it: `15.14 (Debian 15.14-0+deb12u1)`.
    pub version: String,
}

impl Binaries {
    /// Looks in `PATH`, then where Debian and the PGDG packages put them; the newest supported one wins.
    pub async fn find(path: &str) -> Result<Binaries> {
        let mut best: Option<Binaries> = None;
        let mut refused = None;
        for dir in candidates(path) {
            if !NEEDED.iter().all(|p| dir.join(p).is_file()) {
                continue;
            }
            match Binaries::at(dir).await {
                // What the image itself puts into PATH is what its maker meant.
                Ok(found) if best.as_ref().is_none_or(|b| b.major < found.major) => best = Some(found),
                Ok(_) => {}
                Err(e) => refused = Some(e),
            }
        }
        best.ok_or(refused.unwrap_or(Error::NoBinaries))
    }

    /// Those of one folder.
    pub async fn at(dir: PathBuf) -> Result<Binaries> {
        let program = dir.join("postgres");
        let mut cmd = Command::new(&program);
        cmd.arg("--version")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let (child, _noted) = crate::process::spawn(&mut cmd, "postgres")?;
        let out = child.wait_with_output().await.map_err(|source| Error::Spawn {
            program: program.display().to_string(),
            source,
        })?;
        let text = String::from_utf8_lossy(&out.stdout);
        let version = text
            .trim()
            .rsplit_once("(PostgreSQL) ")
            .map_or("", |(_, v)| v)
            .to_owned();
        let major = major(&version);
        if !(15..=18).contains(&major) {
            return Err(Error::Version(major));
        }
        Ok(Binaries { dir, major, version })
    }

    /// A program of this installation with a clean environment: none of the agent's own reaches the engine.
    pub fn command(&self, program: &str) -> Command {
        let mut cmd = Command::new(self.dir.join(program));
        cmd.env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", self.dir.display()))
            .env("LC_ALL", "C")
            .env("HOME", "/nonexistent")
            .stdin(Stdio::null());
        cmd
    }

    /// Runs a program to its end and gives what it wrote to standard output.
    pub async fn run(&self, program: &str, args: &[&str], deadline: Duration) -> Result<String> {
        Ok(self.both(program, args, deadline).await?.0)
    }

    /// The same, with what it wrote to standard error although it succeeded.
    pub async fn both(&self, program: &str, args: &[&str], deadline: Duration) -> Result<(String, String)> {
        let mut cmd = self.command(program);
        cmd.args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let (child, _noted) = crate::process::spawn(&mut cmd, program)?;
        let out = tokio::time::timeout(deadline, child.wait_with_output()).await;
        let out = out
            .map_err(|_| Error::Deadline(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX)))?
            .map_err(|source| Error::Spawn {
                program: program.to_owned(),
                source,
            })?;
        let said = String::from_utf8_lossy(&out.stderr);
        match out.status.code() {
            Some(0) => Ok((String::from_utf8_lossy(&out.stdout).into_owned(), said.into_owned())),
            Some(_) => Err(Error::Program {
                program: program.to_owned(),
                output: last_lines(&said),
            }),
            // Killed from outside, which says nothing about what it looked at.
            None => Err(Error::Spawn {
                program: program.to_owned(),
                source: std::io::Error::other(out.status.to_string()),
            }),
        }
    }
}

/// The end of what a program wrote, on one line.
pub fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let from = lines.len().saturating_sub(4);
    lines.iter().skip(from).copied().collect::<Vec<_>>().join("; ")
}

fn candidates(path: &str) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = std::env::split_paths(path).collect();
    for (root, prefix) in [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/bitnami", "postgresql"),
    ] {
        let Ok(entries) = std::fs::read_dir(Path::new(root)) else {
            continue;
        };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                dirs.push(entry.path().join("bin"));
            }
        }
    }
    dirs.dedup();
    dirs
}

fn major(version: &str) -> u32 {
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_releases_betas_and_distributions_are_read() {
        assert_eq!(major("15.14 (Debian 15.14-0+deb12u1)"), 15);
        assert_eq!(major("18beta1"), 18);
        assert_eq!(major(""), 0);
    }

    #[test]
    fn only_the_end_of_a_programs_words_is_kept() {
        assert_eq!(last_lines("a\nb\n\nc\nd\ne\n"), "b; c; d; e");
    }
}
