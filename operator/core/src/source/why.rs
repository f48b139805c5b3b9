//! Why a source does, waits or refuses: the one wording for conditions, Events, logs and metrics.

use std::fmt;

use crate::plan::{Reason, Severity};

/// A reason, with what a person needs to know about it. Revisions are full commit ids and are shown short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// `spec.suspend` is true.
    Suspended,
    /// The spec cannot be followed as it is.
    SpecInvalid { field: &'static str, message: String },
    /// A Secret, or a key in it, is missing or unusable.
    CredentialsUnusable { message: String },
    /// The next poll is not due.
    NotDue,
    /// The ref stands where it stood.
    NothingNew { revision: String },
    /// The server could not be reached, or broke off.
    FetchFailed { message: String },
    /// The server is not the one that known_hosts or the authority vouch for.
    ServerNotTrusted { message: String },
    /// The server refused the credentials.
    AccessDenied { message: String },
    /// The ref does not exist on the server.
    RefNotFound { name: String },
    /// The applied commit is not part of the new one's history.
    HistoryRewritten { applied: String, offered: String },
    /// A bound of spec.limits was exceeded.
    TooLarge { message: String },
    /// A commit carries no ssh signature.
    Unsigned { commit: String },
    /// A commit is signed by nobody in spec.verify.signers.
    SignerUnknown { commit: String, fingerprint: String },
    /// A commit carries a signature that does not fit it.
    SignatureBroken { commit: String },
    /// Something is asked for that the repository does not have.
    PathMissing { path: String, revision: String },
    /// The commit has mistakes that can be seen without the server.
    Invalid { revision: String, problems: usize },
    /// The API server, or an owner of a field, would not take the commit.
    RefusedByServer { revision: String, problems: usize },
    /// Somebody else owns an object or a field.
    OwnedByOthers { revision: String, problems: usize },
    /// More would be deleted than spec.prune allows.
    PruneShare { gone: usize, of: usize, max_share: u8 },
    /// Everything would be deleted.
    PruneAll { of: usize },
    /// A kind that holds data would be deleted.
    PruneHoldsData { object: String, more: usize },
    /// The ServiceAccount may not do what the commit asks for, or cannot be impersonated.
    Forbidden { message: String },
    /// The API server did not answer, or broke off; what is applied is kept, and the rest is tried again.
    ApiFailed { message: String },
    /// A change set is under way.
    Applying { revision: String },
    /// A revision came into force.
    Applied {
        revision: String,
        changed: usize,
        pruned: usize,
        objects: usize,
    },
    /// A field (or a whole object) that somebody had changed was put back.
    PutBack {
        object: String,
        field: String,
        manager: String,
    },
    /// Somebody keeps changing an object back; the next put-back waits.
    Fight { object: String },
    /// Objects that are not healthy yet.
    WaitsForHealth { unhealthy: usize, first: String },
    /// Objects that have failed.
    Unhealthy { unhealthy: usize, first: String },
    /// All objects are healthy.
    Healthy { objects: usize },
    /// Signatures are not asked for.
    NotVerified,
    /// Signatures are as they should be.
    Verified { revision: String, signer: String },
    /// The newest commit is here.
    Fetched { revision: String },
    /// The operator itself failed: a bug.
    Internal { message: String },
}

/// The first twelve digits of a commit id, enough for people.
pub fn short(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}

impl Reason for Why {
    fn reason(&self) -> &'static str {
        match self {
            Why::Suspended => "Suspended",
            Why::SpecInvalid { .. } => "SpecInvalid",
            Why::CredentialsUnusable { .. } => "CredentialsUnusable",
            Why::NotDue => "NotDue",
            Why::NothingNew { .. } => "NothingNew",
            Why::FetchFailed { .. } => "FetchFailed",
            Why::ServerNotTrusted { .. } => "ServerNotTrusted",
            Why::AccessDenied { .. } => "AccessDenied",
            Why::RefNotFound { .. } => "RefNotFound",
            Why::HistoryRewritten { .. } => "HistoryRewritten",
            Why::TooLarge { .. } => "TooLarge",
            Why::Unsigned { .. } => "Unsigned",
            Why::SignerUnknown { .. } => "SignerUnknown",
            Why::SignatureBroken { .. } => "SignatureBroken",
            Why::PathMissing { .. } => "PathMissing",
            Why::Invalid { .. } => "Invalid",
            Why::RefusedByServer { .. } => "RefusedByServer",
            Why::OwnedByOthers { .. } => "OwnedByOthers",
            Why::PruneShare { .. } => "PruneShareExceeded",
            Why::PruneAll { .. } => "PruneOfEverything",
            Why::PruneHoldsData { .. } => "PruneHoldsData",
            Why::Forbidden { .. } => "Forbidden",
            Why::ApiFailed { .. } => "ApiFailed",
            Why::Applying { .. } => "Applying",
            Why::Applied { .. } => "Applied",
            Why::PutBack { .. } => "DriftPutBack",
            Why::Fight { .. } => "DriftFight",
            Why::WaitsForHealth { .. } => "WaitsForHealth",
            Why::Unhealthy { .. } => "Unhealthy",
            Why::Healthy { .. } => "Healthy",
            Why::NotVerified => "NotVerified",
            Why::Verified { .. } => "Verified",
            Why::Fetched { .. } => "Fetched",
            Why::Internal { .. } => "Internal",
        }
    }

    fn severity(&self) -> Severity {
        match self {
            Why::Suspended
            | Why::NotDue
            | Why::NothingNew { .. }
            | Why::Applying { .. }
            | Why::Applied { .. }
            | Why::WaitsForHealth { .. }
            | Why::Healthy { .. }
            | Why::NotVerified
            | Why::Verified { .. }
            | Why::Fetched { .. } => Severity::Normal,
            _ => Severity::Warning,
        }
    }
}

impl Why {
    /// Whether only a person's change, here or in Git, can help: kstatus calls that Stalled.
    pub fn needs_a_person(&self) -> bool {
        !matches!(
            self,
            Why::FetchFailed { .. } | Why::ApiFailed { .. } | Why::Fight { .. } | Why::Internal { .. }
        ) && self.severity() == Severity::Warning
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Suspended => write!(
                f,
                "spec.suspend is true: nothing is fetched, applied or put back until it is false"
            ),
            Why::SpecInvalid { field, message } => write!(f, "{field}: {message}"),
            Why::CredentialsUnusable { message }
            | Why::FetchFailed { message }
            | Why::ServerNotTrusted { message }
            | Why::AccessDenied { message }
            | Why::TooLarge { message }
            | Why::Forbidden { message }
            | Why::ApiFailed { message }
            | Why::Internal { message } => f.write_str(message),
            Why::NotDue => write!(f, "the next poll is not due"),
            Why::NothingNew { revision } => write!(f, "{} is the newest commit, and it is in force", short(revision)),
            Why::RefNotFound { name } => write!(f, "the server has no {name}; check spec.ref"),
            Why::HistoryRewritten { applied, offered } => write!(
                f,
                "history was rewritten: {} does not follow {}, which is in force; bring the old commits back, or set spec.allowHistoryRewrite",
                short(offered),
                short(applied)
            ),
            Why::Unsigned { commit } => write!(
                f,
                "commit {} carries no ssh signature; sign it (git commit -S) with a key of spec.verify.signers",
                short(commit)
            ),
            Why::SignerUnknown { commit, fingerprint } => write!(
                f,
                "commit {} is signed by {fingerprint}, which is none of spec.verify.signers",
                short(commit)
            ),
            Why::SignatureBroken { commit } => {
                write!(f, "the signature of commit {} does not fit its content", short(commit))
            }
            Why::PathMissing { path, revision } => {
                write!(f, "{} has no folder {path}; check spec.path", short(revision))
            }
            Why::Invalid { revision, problems } => write!(
                f,
                "{} has {}; see status.problems",
                short(revision),
                count(*problems, "problem")
            ),
            Why::RefusedByServer { revision, problems } => write!(
                f,
                "{}: the API server refuses {}; see status.problems",
                short(revision),
                count(*problems, "object")
            ),
            Why::OwnedByOthers { revision, problems } => write!(
                f,
                "{}: {} owned by somebody else; see status.problems",
                short(revision),
                if *problems == 1 {
                    "1 object is".to_owned()
                } else {
                    format!("{problems} objects are")
                }
            ),
            Why::PruneShare { gone, of, max_share } => write!(
                f,
                "{gone} of {of} objects have gone from Git, more than {max_share} %; if that is meant, raise spec.prune.maxShare for this commit"
            ),
            Why::PruneAll { of } => write!(
                f,
                "all {of} objects have gone from Git; check spec.path and the branch; if it is meant, set spec.prune.maxShare to 100"
            ),
            Why::PruneHoldsData { object, more } => {
                write!(f, "{object}")?;
                if *more > 0 {
                    write!(f, " and {more} more")?;
                }
                write!(
                    f,
                    " would be deleted, and holds data; set spec.prune.dataBearing to say that it is meant, or annotate it with holdfast.dev/prune: disabled to keep it"
                )
            }
            Why::Applying { revision } => write!(f, "{} is being applied", short(revision)),
            Why::Applied {
                revision,
                changed,
                pruned,
                objects,
            } => write!(
                f,
                "{} is in force: {}, {changed} changed, {pruned} deleted",
                short(revision),
                count(*objects, "object")
            ),
            Why::PutBack { object, field, manager } => {
                write!(f, "{object}: {field} was changed by {manager} and put back as in Git")
            }
            Why::Fight { object } => write!(
                f,
                "somebody keeps changing {object}; it is put back at longer and longer intervals"
            ),
            Why::WaitsForHealth { unhealthy, first } => write!(f, "{} not healthy yet: {first}", are(*unhealthy)),
            Why::Unhealthy { unhealthy, first } => write!(f, "{} failed: {first}", have(*unhealthy)),
            Why::Healthy { objects } => write!(f, "{}, all healthy", count(*objects, "object")),
            Why::NotVerified => write!(f, "spec.verify is left out: any commit on the ref is taken"),
            Why::Verified { revision, signer } => write!(f, "{} is signed by {signer}", short(revision)),
            Why::Fetched { revision } => write!(f, "{} is the newest commit", short(revision)),
        }
    }
}

fn count(n: usize, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}

fn are(n: usize) -> String {
    if n == 1 {
        "1 object is".into()
    } else {
        format!("{n} objects are")
    }
}

fn have(n: usize) -> String {
    if n == 1 {
        "1 object has".into()
    } else {
        format!("{n} objects have")
    }
}
