//! Objects by their identity, and where in Git they were written.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// What an object is to Kubernetes, whatever version of its API it was written in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// API group; empty for the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace; `None` for a cluster-scoped object.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// Whether this is a Secret, whose values are shown to nobody.
    pub fn is_secret(&self) -> bool {
        self.group.is_empty() && self.kind == "Secret"
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " {namespace}/{}", self.name),
            None => write!(f, " {}", self.name),
        }
    }
}

/// Where an object was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// File in the repository.
    pub file: Arc<str>,
    /// First line of the object, from 1.
    pub line: u32,
}

/// SHA-256 of an object's canonical JSON (serde_json sorts keys): equal digests, equal wishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of a JSON value.
    pub fn of(value: &Value) -> Self {
        // `Value` always serialises: it has string keys only.
        Digest(Sha256::digest(value.to_string().as_bytes()).into())
    }
}

impl fmt::Display for Digest {
    /// The first 16 hexadecimal digits: it tells one wish from the last, and need not resist anybody.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An object as Git wants it: checked, placed in its namespace, labelled with its source.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Identity.
    pub key: ObjectKey,
    /// `group/version`, or `v1`.
    pub api_version: String,
    /// The whole object.
    pub value: Value,
    /// Where it was written.
    pub origin: Origin,
    /// Digest of `value`, before it was annotated with this digest.
    pub digest: Digest,
}

impl Manifest {
    /// The value of an annotation, if it is a string.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        annotation(&self.value, name)
    }
}

/// The value of an annotation of any object.
pub fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get("metadata")?.get("annotations")?.get(name)?.as_str()
}

/// Splits `group/version`; the core group has no slash.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}
