//! One exchange with a server: where a ref stands, and getting what is missing here.

use std::{cell::RefCell, rc::Rc};

use git2::{
    AutotagOption, CertificateCheckStatus, Cred, CredentialType, Direction, FetchOptions, Oid, RemoteCallbacks,
    RemoteRedirect, Repository,
};
use holdfast_core::source::{Why, revision::Target};

use crate::{Access, Bounds, Cancel, GitError, cancel::Deadline, error::exchange, hostkey, https};

/// Why a callback ended the exchange; libgit2 itself only says that one did.
pub(crate) type Verdict = Rc<RefCell<Option<Why>>>;

/// Where the target stands on the server: one `ls-remote`. A pinned commit stands where it stands, without asking.
pub fn tip(
    repository: &Repository,
    access: &Access,
    target: &Target,
    bounds: &Bounds,
    cancel: &Cancel,
) -> Result<Oid, GitError> {
    let names: Vec<String> = match target {
        Target::Commit(id) => return Ok(Oid::from_str(id)?),
        Target::Branch(name) => vec![format!("refs/heads/{name}")],
        // The commit behind an annotated tag comes first: the tag object is not what is applied.
        Target::Tag(name) => vec![format!("refs/tags/{name}^{{}}"), format!("refs/tags/{name}")],
    };
    let deadline = Deadline::new(bounds.timeout, cancel);
    let verdict = Verdict::default();
    let _https = https::Scope::enter(access, bounds, &deadline, &verdict)?;
    let mut remote = repository.remote_anonymous(&access.url.to_string())?;
    let callbacks = callbacks(access, bounds, &deadline, &verdict);
    let found = remote
        .connect_auth(Direction::Fetch, Some(callbacks), None)
        .and_then(|connection| {
            let heads = connection.list()?;
            Ok(names
                .iter()
                .find_map(|name| heads.iter().find(|head| head.name() == name).map(git2::RemoteHead::oid)))
        })
        .map_err(|e| explain(&e, access, &verdict, &deadline))?;
    found.ok_or_else(|| {
        Why::RefNotFound {
            name: target.to_string(),
        }
        .into()
    })
}

/// How much of the history to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// What is missing here, up to where history ends here.
    Missing,
    /// This many commits.
    Commits(i32),
    /// All of it.
    Everything,
}

/// Fetches by refspecs.
pub(crate) fn fetch(
    repository: &Repository,
    access: &Access,
    refspecs: &[String],
    depth: Depth,
    bounds: &Bounds,
    cancel: &Cancel,
) -> Result<(), GitError> {
    let deadline = Deadline::new(bounds.timeout, cancel);
    let verdict = Verdict::default();
    let _https = https::Scope::enter(access, bounds, &deadline, &verdict)?;
    let mut options = FetchOptions::new();
    options
        .remote_callbacks(callbacks(access, bounds, &deadline, &verdict))
        .follow_redirects(RemoteRedirect::None)
        .download_tags(AutotagOption::None)
        .update_fetchhead(false)
        .depth(match depth {
            Depth::Missing => 0,
            Depth::Commits(n) => n,
            // GIT_FETCH_DEPTH_UNSHALLOW
            Depth::Everything => i32::MAX,
        });
    repository
        .remote_anonymous(&access.url.to_string())?
        .fetch(refspecs, Some(&mut options), None)
        .map_err(|e| explain(&e, access, &verdict, &deadline))
}

fn explain(e: &git2::Error, access: &Access, verdict: &Verdict, deadline: &Deadline) -> GitError {
    if let Some(why) = verdict.borrow_mut().take() {
        return why.into();
    }
    let host = access.url.known_host();
    if deadline.passed() {
        return Why::FetchFailed {
            message: format!("{host} did not finish within spec.limits.timeout"),
        }
        .into();
    }
    exchange(e, &host)
}

fn callbacks<'a>(
    access: &'a Access,
    bounds: &'a Bounds,
    deadline: &'a Deadline,
    verdict: &Verdict,
) -> RemoteCallbacks<'a> {
    let mut callbacks = RemoteCallbacks::new();
    let credentials = &access.credentials;
    let host = access.url.known_host();

    let mut attempts = 0;
    callbacks.credentials(move |_, user, wanted| {
        // libgit2 asks again after a refusal, for ever.
        attempts += 1;
        if attempts > 2 {
            return Err(git2::Error::new(
                git2::ErrorCode::Auth,
                git2::ErrorClass::Callback,
                "the credentials were not accepted",
            ));
        }
        let user = access.url.user.as_deref().or(user).unwrap_or("git");
        match &credentials.identity {
            Some(_) if wanted.contains(CredentialType::USERNAME) => Cred::username(user),
            Some(key) => Cred::ssh_key_from_memory(user, None, key, credentials.passphrase.as_deref()),
            None => Err(git2::Error::new(
                git2::ErrorCode::Auth,
                git2::ErrorClass::Callback,
                "the server wants credentials and there are none",
            )),
        }
    });

    let refuse = Rc::clone(verdict);
    callbacks.certificate_check(move |certificate, _| {
        let key = certificate.as_hostkey().and_then(|k| k.hostkey());
        hostkey::check(credentials.known_hosts.as_deref().unwrap_or(""), &host, key)
            .map(|()| CertificateCheckStatus::CertificateOk)
            .map_err(|message| {
                *refuse.borrow_mut() = Some(Why::ServerNotTrusted {
                    message: message.clone(),
                });
                git2::Error::new(git2::ErrorCode::Certificate, git2::ErrorClass::Callback, message)
            })
    });

    let refuse = Rc::clone(verdict);
    callbacks.transfer_progress(move |progress| {
        let received = progress.received_bytes();
        // Each object costs some 100 bytes of index and memory here, however small it was sent.
        let objects = progress.total_objects();
        if received > bounds.fetch_bytes || objects > bounds.fetch_bytes / 32 {
            *refuse.borrow_mut() = Some(too_large(received, Some(objects)));
            return false;
        }
        !deadline.passed()
    });
    callbacks.sideband_progress(move |_| !deadline.passed());
    callbacks
}

/// More than the source's limits allow.
pub(crate) fn too_large(bytes: usize, objects: Option<usize>) -> Why {
    let objects = objects.map(|n| format!(", {n} objects")).unwrap_or_default();
    Why::TooLarge {
        message: format!(
            "the server sent more than spec.limits.repositoryMiB allows ({bytes} bytes{objects}); raise it, or move large files out of the repository"
        ),
    }
}
