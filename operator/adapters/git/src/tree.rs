//! The files of a commit, read from the object database.

use git2::{ObjectType, Oid};
use holdfast_core::source::{Problem, Why};

use crate::{Bounds, GitError, Store};

/// Folders below each other; deeper than this is made by a machine to hurt.
const MAX_DEPTH: usize = 32;

/// One manifest file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Path in the repository.
    pub path: String,
    /// Id of its content: equal ids, equal bytes.
    pub blob: String,
}

/// The manifests under a path, and what is there that is not followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Id of the folder: equal ids, equal files.
    pub id: String,
    /// Manifests, in order of their paths.
    pub files: Vec<File>,
    /// Links and submodules.
    pub problems: Vec<Problem>,
}

impl Store {
    /// Id of the folder `path` of a commit, without reading it.
    pub fn folder(&self, revision: &str, path: &str) -> Result<String, GitError> {
        self.find(revision, path).map(|tree| tree.id().to_string())
    }

    /// Lists `*.yaml`, `*.yml` and `*.json` under `path`. Names that start with a dot are not looked at.
    pub fn tree(&self, revision: &str, path: &str, bounds: &Bounds) -> Result<Tree, GitError> {
        let tree = self.find(revision, path)?;
        let mut found = Tree {
            id: tree.id().to_string(),
            ..Tree::default()
        };
        let prefix = parts(path).collect::<Vec<_>>().join("/");
        self.walk(&tree, &prefix, 0, bounds, &mut found)?;
        Ok(found)
    }

    /// The bytes of a file; its size is looked up before it is read.
    pub fn blob(&self, file: &File, bounds: &Bounds) -> Result<Result<Vec<u8>, Box<Problem>>, GitError> {
        let id = Oid::from_str(&file.blob)?;
        let (size, kind) = self.repository().odb()?.read_header(id)?;
        if kind != ObjectType::Blob || size > bounds.file_bytes {
            return Ok(Err(Box::new(Problem {
                file: Some(file.path.clone()),
                value: Some(format!("{size} bytes")),
                message: format!(
                    "larger than spec.limits.fileKiB allows ({} KiB): split it, or move it out of spec.path",
                    bounds.file_bytes / 1024
                ),
                ..Problem::default()
            })));
        }
        Ok(Ok(self.repository().find_blob(id)?.content().to_vec()))
    }

    fn find(&self, revision: &str, path: &str) -> Result<git2::Tree<'_>, GitError> {
        let missing = || Why::PathMissing {
            path: path.to_owned(),
            revision: revision.to_owned(),
        };
        let mut tree = self.repository().find_commit(Oid::from_str(revision)?)?.tree()?;
        for part in parts(path) {
            let id = match tree.get_name(part) {
                Some(entry) if entry.kind() == Some(ObjectType::Tree) => entry.id(),
                _ => return Err(missing().into()),
            };
            tree = self.repository().find_tree(id)?;
        }
        Ok(tree)
    }

    fn walk(
        &self,
        tree: &git2::Tree<'_>,
        prefix: &str,
        depth: usize,
        bounds: &Bounds,
        found: &mut Tree,
    ) -> Result<(), GitError> {
        if depth > MAX_DEPTH {
            return Err(Why::TooLarge {
                message: format!("{prefix}: more than {MAX_DEPTH} folders below each other"),
            }
            .into());
        }
        for entry in tree {
            let problem = |message: &str| Problem {
                file: Some(holdfast_core::status::conditions::clip(
                    format!("{prefix}/{}", String::from_utf8_lossy(entry.name_bytes())),
                    512,
                )),
                message: message.to_owned(),
                ..Problem::default()
            };
            let name = match entry.name() {
                Ok(name) if is_plain(name) => name,
                _ => {
                    found.problems.push(problem("not a plain file name: rename it"));
                    continue;
                }
            };
            if name.starts_with('.') {
                continue;
            }
            let path = if prefix.is_empty() {
                name.to_owned()
            } else {
                format!("{prefix}/{name}")
            };
            match (entry.kind(), entry.filemode()) {
                (_, 0o120_000) => found.problems.push(problem(
                    "a symbolic link, which is never followed: replace it by the file it points to",
                )),
                (_, 0o160_000) | (Some(ObjectType::Commit), _) => {
                    found.problems.push(problem(
                        "a submodule, which is never fetched: put its files here, or make it a GitSource of its own",
                    ));
                }
                (Some(ObjectType::Tree), _) => {
                    let below = self.repository().find_tree(entry.id())?;
                    self.walk(&below, &path, depth + 1, bounds, found)?;
                }
                (Some(ObjectType::Blob), _) if is_manifest(name) => found.files.push(File {
                    path,
                    blob: entry.id().to_string(),
                }),
                _ => {}
            }
            if found.files.len() > bounds.files || found.problems.len() > bounds.files {
                return Err(Why::TooLarge {
                    message: format!(
                        "more files under spec.path than spec.limits.files allows ({})",
                        bounds.files
                    ),
                }
                .into());
            }
        }
        Ok(())
    }
}

/// Path segments of `./a/b/`, which the CRD and [`is_plain`] keep inside the tree.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".")
}

fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && name.len() <= 255
        && !name.contains(['/', '\\'])
        && !name.chars().any(char::is_control)
}

fn is_manifest(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".yaml", ".yml", ".json"].iter().any(|suffix| name.ends_with(suffix))
}
