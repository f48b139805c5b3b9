//! Repositories and servers for the tests.

mod https;
mod repository;
mod ssh;

pub use https::{HttpsServer, TOKEN, certificates};
pub use repository::Repository;
pub use ssh::SshServer;

use std::{collections::BTreeMap, time::Duration};

use holdfast_core::source::{Why, revision::Target};
use holdfast_git::{Access, Bounds, Cancel, Credentials, GitError, Store};

pub fn bounds() -> Bounds {
    Bounds {
        fetch_bytes: 8 * 1024 * 1024,
        file_bytes: 64 * 1024,
        files: 100,
        commits: 100,
        timeout: Duration::from_secs(20),
    }
}

pub fn main() -> Target {
    Target::Branch("main".into())
}

pub fn secret(entries: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    entries
        .iter()
        .map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec()))
        .collect()
}

/// A store in a folder of its own.
pub struct Here {
    _folder: tempfile::TempDir,
    pub store: Store,
}

impl Here {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        Here { _folder: folder, store }
    }

    pub fn fetch(&self, access: &Access, target: &Target, applied: Option<&str>) -> Result<String, Why> {
        self.store
            .fetch(access, target, applied, &bounds(), &Cancel::default())
            .map_err(GitError::why)
    }

    pub fn tip(&self, access: &Access, target: &Target) -> Result<String, Why> {
        self.store
            .tip(access, target, &bounds(), &Cancel::default())
            .map_err(GitError::why)
    }
}

pub fn access(url: &holdfast_core::source::url::RepositoryUrl, entries: &[(&str, &str)]) -> Access {
    Access {
        url: url.clone(),
        credentials: Credentials::read(url, Some(&secret(entries))).unwrap(),
    }
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
