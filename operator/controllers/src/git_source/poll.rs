//! Asking the server, and judging what it offers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast_api::GitSource;
use holdfast_core::source::{
    Why,
    report::Verdict,
    revision::{may_follow, trusted},
};
use holdfast_git::{Access, Cancel, Credentials, GitError, Store};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};

use super::{Sources, memory::Memory, spec::Spec};

/// A Secret is read again after this long, so that what was taken out of it (an authority, a host key) is distrusted soon;
/// and at once when the server refuses.
const CREDENTIALS_FOR: Duration = Duration::from_secs(600);
/// Added to the exchange's own deadline before its thread is given up.
const GRACE: Duration = Duration::from_secs(30);

/// Polls once. `Some(revision)`: to be brought into force. `None`: nothing new, or a verdict was passed.
pub async fn poll(
    sources: &Arc<Sources>,
    source: &GitSource,
    spec: &Spec,
    memory: &mut Memory,
) -> Result<Option<String>, Why> {
    let access = access(sources, source, spec, memory).await?;
    let applied = memory
        .in_force
        .as_ref()
        .map(|r| r.revision.clone())
        .or_else(|| source.status.as_ref().and_then(|s| s.applied_revision.clone()));
    // Judged before, and nothing to do for it: `ls-remote` alone can say that nothing moved.
    let settled = memory.settled(jiff::Timestamp::now());
    let offer = match ask(sources, source, spec, access, applied.clone(), settled).await {
        Ok(offer) => offer,
        Err(why) => {
            // Perhaps the Secret has changed: read it again before the next try.
            memory.credentials = None;
            return Err(why);
        }
    };
    let Some(offer) = offer else { return Ok(None) };
    memory.fetched = Some(offer.revision.clone());
    match offer.judged {
        Ok(signer) => {
            if let Some(signer) = signer {
                memory.verified = Some((offer.revision.clone(), signer));
            }
            Ok(Some(offer.revision))
        }
        Err(why) => {
            let verdict = Verdict {
                revision: offer.revision,
                why,
                problems: Vec::new(),
            };
            memory.refuse(verdict, jiff::Timestamp::now());
            Ok(None)
        }
    }
}

/// A commit that is here, and whether it may be followed (with its signer, where signatures are asked for).
struct Offer {
    revision: String,
    judged: Result<Option<String>, Why>,
}

async fn ask(
    sources: &Arc<Sources>,
    source: &GitSource,
    spec: &Spec,
    access: Access,
    applied: Option<String>,
    settled: Option<String>,
) -> Result<Option<Offer>, Why> {
    let spec = spec.clone();
    let patience = spec.bounds.timeout * 3 + GRACE;
    let cancel = Cancel::default();
    let folder = sources.folder(source);
    let stop = cancel.clone();
    let permit = Arc::clone(&sources.git)
        .acquire_owned()
        .await
        .map_err(|_| Why::FetchFailed {
            message: "the operator is stopping".into(),
        })?;
    let work = tokio::task::spawn_blocking(move || -> Result<Option<Offer>, GitError> {
        // Held by the thread, not by the waiting task: a thread that a slow server holds up still counts.
        let _permit = permit;
        let (store, empty) = Store::renew(&folder)?;
        let settled = settled.filter(|_| !empty);
        let tip = store.tip(&access, &spec.target, &spec.bounds, &stop)?;
        if settled.as_deref() == Some(tip.as_str()) {
            return Ok(None);
        }
        let known = applied.as_deref() == Some(tip.as_str()) && store.has(&tip);
        let revision = if known {
            tip
        } else {
            store.fetch(&access, &spec.target, applied.as_deref(), &spec.bounds, &stop)?
        };
        let judged = judge(&store, &spec, applied.as_deref(), &revision)?;
        Ok(Some(Offer { revision, judged }))
    });
    match tokio::time::timeout(patience, work).await {
        Ok(Ok(result)) => result.map_err(GitError::why),
        Ok(Err(e)) => Err(Why::Internal {
            message: format!("reading Git ended unexpectedly: {e}"),
        }),
        Err(_) => {
            cancel.cancel();
            Err(Why::FetchFailed {
                message: "the server did not finish within spec.limits.timeout".into(),
            })
        }
    }
}

fn judge(
    store: &Store,
    spec: &Spec,
    applied: Option<&str>,
    revision: &str,
) -> Result<Result<Option<String>, Why>, GitError> {
    let ancestry = store.ancestry(applied, revision)?;
    if let Err(why) = may_follow(
        &spec.target,
        ancestry,
        spec.allow_rewrite,
        applied.unwrap_or_default(),
        revision,
    ) {
        return Ok(Err(why));
    }
    let Some(verify) = &spec.verify else {
        return Ok(Ok(None));
    };
    let signers: Vec<(String, String)> = verify.signers.iter().map(|s| (s.name.clone(), s.key.clone())).collect();
    let signatures = store.signatures(applied, revision, verify.mode, &signers, &spec.bounds)?;
    Ok(trusted(verify.mode, &signatures).map(Some))
}

/// How to get in. The Secret is kept in memory, so that a poll without news asks the API server nothing.
async fn access(sources: &Sources, source: &GitSource, spec: &Spec, memory: &mut Memory) -> Result<Access, Why> {
    let fresh = memory
        .credentials
        .as_ref()
        .filter(|(read, _)| read.elapsed() < CREDENTIALS_FOR);
    let credentials = match (fresh, &spec.secret) {
        (Some((_, credentials)), _) => credentials.clone(),
        (None, None) => Credentials::read(&spec.url, None)?,
        (None, Some(name)) => {
            let api: Api<Secret> = Api::namespaced(sources.client.clone(), &source.namespace().unwrap_or_default());
            let secret = match api.get_opt(name).await {
                Ok(Some(secret)) => secret,
                Ok(None) => {
                    return Err(Why::CredentialsUnusable {
                        message: format!("the Secret {name} of spec.credentialsRef does not exist in this namespace"),
                    });
                }
                Err(e) => {
                    return Err(Why::ApiFailed {
                        message: format!("the Secret {name} cannot be read: {e}"),
                    });
                }
            };
            let data = secret
                .data
                .unwrap_or_default()
                .into_iter()
                .map(|(key, bytes)| (key, bytes.0))
                .collect();
            let credentials = Credentials::read(&spec.url, Some(&data))?;
            memory.credentials = Some((Instant::now(), credentials.clone()));
            credentials
        }
    };
    Ok(Access {
        url: spec.url.clone(),
        credentials,
    })
}

impl Sources {
    /// The bare repository of one source.
    pub(super) fn folder(&self, source: &GitSource) -> std::path::PathBuf {
        self.settings
            .cache
            .join(source.uid().unwrap_or_else(|| "no-uid".into()))
    }
}
