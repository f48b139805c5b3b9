//! A bare repository with a work tree beside it, driven by git itself.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

pub struct Repository {
    root: TempDir,
}

impl Repository {
    /// Empty, with the branch `main`.
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let it = Repository { root };
        git(it.root.path(), &["init", "-q", "--bare", "-b", "main", "bare.git"]);
        git(it.root.path(), &["init", "-q", "-b", "main", "work"]);
        it.git(&["remote", "add", "origin", "../bare.git"]);
        it
    }

    pub fn bare(&self) -> PathBuf {
        self.root.path().join("bare.git")
    }

    pub fn folder(&self) -> &Path {
        self.root.path()
    }

    pub fn work(&self) -> PathBuf {
        self.root.path().join("work")
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        git(&self.work(), arguments)
    }

    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.work().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// Commits everything and pushes; returns the commit.
    pub fn commit(&self, message: &str) -> String {
        self.commit_with(message, &[])
    }

    /// The same, signed with an ssh key of this name (made when it is new).
    pub fn commit_signed(&self, message: &str, by: &str) -> String {
        let key = self.key(by);
        self.commit_with(
            message,
            &[
                "-c",
                "gpg.format=ssh",
                "-c",
                &format!("user.signingkey={}", key.display()),
                "-c",
                "commit.gpgsign=true",
            ],
        )
    }

    fn commit_with(&self, message: &str, settings: &[&str]) -> String {
        self.git(&["add", "-A"]);
        let mut arguments = settings.to_vec();
        arguments.extend(["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&arguments);
        self.git(&["push", "-q", "-f", "origin", "HEAD:main"]);
        self.head()
    }

    pub fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Path of the private key of a person.
    pub fn key(&self, name: &str) -> PathBuf {
        let path = self.root.path().join(format!("key-{name}"));
        if !path.exists() {
            keygen(&path);
        }
        path
    }

    pub fn public_key(&self, name: &str) -> String {
        fs::read_to_string(self.key(name).with_extension("pub")).unwrap()
    }
}

/// Makes an ed25519 key pair.
pub fn keygen(path: &Path) {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
        .arg(path)
        .status()
        .expect("ssh-keygen: install openssh-client");
    assert!(status.success());
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(folder)
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_AUTHOR_NAME", "Test")
        .env("GIT_AUTHOR_EMAIL", "test@example.org")
        .env("GIT_COMMITTER_NAME", "Test")
        .env("GIT_COMMITTER_EMAIL", "test@example.org")
        .output()
        .expect("git: install git");
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
