//! Whether the commit that the server offers may be followed.

use std::fmt;

use holdfast_api::git_source::{GitRef, VerifyMode};

use super::Why;

/// What a source follows, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The tip of `refs/heads/<name>`.
    Branch(String),
    /// `refs/tags/<name>`, peeled.
    Tag(String),
    /// One commit.
    Commit(String),
}

impl Target {
    /// Parses `spec.ref`; exactly one field must be given.
    pub fn new(reference: &GitRef) -> Result<Self, Why> {
        match (&reference.branch, &reference.tag, &reference.commit) {
            (Some(branch), None, None) => Ok(Target::Branch(safe("spec.ref.branch", branch)?)),
            (None, Some(tag), None) => Ok(Target::Tag(safe("spec.ref.tag", tag)?)),
            (None, None, Some(commit)) if commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Ok(Target::Commit(commit.to_ascii_lowercase()))
            }
            (None, None, Some(_)) => Err(Why::SpecInvalid {
                field: "spec.ref.commit",
                message: "write all 40 hexadecimal digits of the commit".into(),
            }),
            _ => Err(Why::SpecInvalid {
                field: "spec.ref",
                message: "write exactly one of branch, tag and commit".into(),
            }),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Branch(name) => write!(f, "branch {name}"),
            Target::Tag(name) => write!(f, "tag {name}"),
            Target::Commit(id) => write!(f, "commit {id}"),
        }
    }
}

/// The CRD says the same; an object can be older than its CRD, and a ref name goes into a refspec.
fn safe(field: &'static str, name: &str) -> Result<String, Why> {
    let fine = !name.is_empty()
        && name.len() <= 244
        && !name.starts_with(['-', '.', '/'])
        && !name.ends_with(['/', '.'])
        && !name.contains("..")
        && !name.contains("//")
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._/+-".contains(c));
    if fine {
        Ok(name.to_owned())
    } else {
        Err(Why::SpecInvalid {
            field,
            message: "not a plain ref name: use letters, digits, '.', '_', '/', '+' and '-'".into(),
        })
    }
}

/// How a commit relates to the one in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ancestry {
    /// Nothing is in force yet.
    First,
    /// It is the one in force.
    Same,
    /// The one in force is among its ancestors.
    Follows,
    /// The one in force is not among its ancestors.
    Rewritten,
}

/// One commit's signature, as checked against the signers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature {
    /// Good, by this signer.
    By(String),
    /// None.
    Absent,
    /// Good or not, by a key that nobody listed.
    Unknown { fingerprint: String },
    /// By a listed key, but not of this content.
    Broken,
}

/// May this commit be followed? A pinned commit may always: whoever wrote it into the spec has decided.
pub fn may_follow(
    target: &Target,
    ancestry: Ancestry,
    allow_rewrite: bool,
    applied: &str,
    offered: &str,
) -> Result<(), Why> {
    match ancestry {
        Ancestry::Rewritten if !allow_rewrite && !matches!(target, Target::Commit(_)) => Err(Why::HistoryRewritten {
            applied: applied.to_owned(),
            offered: offered.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Is it signed as it should be? `commits` is newest first and never empty; mode Head looks at the first alone. Returns who
/// signed the newest.
pub fn trusted(mode: VerifyMode, commits: &[(String, Signature)]) -> Result<String, Why> {
    let asked = match mode {
        VerifyMode::Head => commits.get(..1),
        VerifyMode::EveryCommit => Some(commits),
    };
    let mut newest = None;
    // Oldest first: the first one that went wrong is the one that people look for.
    for (commit, signature) in asked.unwrap_or_default().iter().rev() {
        let commit = commit.clone();
        match signature {
            Signature::By(name) => newest = Some(name.clone()),
            Signature::Absent => return Err(Why::Unsigned { commit }),
            Signature::Unknown { fingerprint } => {
                return Err(Why::SignerUnknown {
                    commit,
                    fingerprint: fingerprint.clone(),
                });
            }
            Signature::Broken => return Err(Why::SignatureBroken { commit }),
        }
    }
    newest.ok_or_else(|| Why::Internal {
        message: "no commit to verify".into(),
    })
}
