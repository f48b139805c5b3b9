//! What can go wrong, in the words of the source room.

use holdfast_core::source::Why;

/// A failed exchange or a refused repository.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GitError {
    /// The reason, as status will show it.
    #[error("{0}")]
    Refused(Why),
    /// libgit2 failed at something that no server is to blame for.
    #[error("git: {0}")]
    Local(String),
}

impl GitError {
    /// The reason for status, Events and metrics.
    pub fn why(self) -> Why {
        match self {
            GitError::Refused(why) => why,
            GitError::Local(message) => Why::Internal {
                message: format!("the local copy of the repository cannot be used: {message}"),
            },
        }
    }
}

impl From<Why> for GitError {
    fn from(why: Why) -> Self {
        GitError::Refused(why)
    }
}

impl From<git2::Error> for GitError {
    fn from(e: git2::Error) -> Self {
        GitError::Local(e.message().to_owned())
    }
}

/// The reason behind a failed exchange with the server, as libgit2 tells it: over ssh, that is. [`crate::https`] keeps its own.
pub(crate) fn exchange(e: &git2::Error, host: &str) -> GitError {
    use git2::ErrorCode;
    let message = holdfast_core::status::conditions::clip(e.message().to_owned(), 300);
    GitError::Refused(match e.code() {
        ErrorCode::Auth => Why::AccessDenied {
            message: format!("{host} refuses the credentials in the Secret of spec.credentialsRef: {message}"),
        },
        ErrorCode::Certificate => Why::ServerNotTrusted {
            message: format!("{host} cannot be trusted: {message}"),
        },
        ErrorCode::NotFound => Why::AccessDenied {
            message: format!("{host} has no such repository, or does not show it to these credentials: {message}"),
        },
        _ => Why::FetchFailed {
            message: format!("{host} cannot be asked: {message}"),
        },
    })
}
