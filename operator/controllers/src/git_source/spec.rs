//! The spec, parsed once: what is wrong with it is known before anything is done.

use std::time::Duration;

use holdfast_api::{
    GitSource,
    git_source::{Prune, Verify},
};
use holdfast_core::source::{Why, check::Policy, conflict, poll::duration, revision::Target, url::RepositoryUrl};
use holdfast_git::Bounds;
use jiff::SignedDuration;
use kube::ResourceExt;

/// Commits that are verified at once: a branch that moved further between two polls is looked at by a person.
const MAX_COMMITS: usize = 5_000;

/// A usable spec.
#[derive(Clone, Debug)]
pub struct Spec {
    pub url: RepositoryUrl,
    pub target: Target,
    pub path: String,
    pub interval: SignedDuration,
    pub secret: Option<String>,
    pub verify: Option<Verify>,
    pub account: String,
    pub policy: Policy,
    pub prune: Prune,
    pub allow_rewrite: bool,
    pub suspended: bool,
    pub bounds: Bounds,
    pub max_objects: usize,
    pub manager: String,
}

impl Spec {
    pub fn new(source: &GitSource) -> Result<Self, Why> {
        let spec = &source.spec;
        let (namespace, name) = (source.namespace().unwrap_or_default(), source.name_any());
        let invalid = |field: &'static str, message: &str| Why::SpecInvalid {
            field,
            message: message.to_owned(),
        };
        let interval = duration(&spec.interval)
            .ok_or_else(|| invalid("spec.interval", "not a duration: write for example 60s or 5m"))?;
        let timeout = duration(&spec.limits.timeout)
            .ok_or_else(|| invalid("spec.limits.timeout", "not a duration: write for example 60s"))?;
        if spec.path.contains("..") || spec.path.starts_with('/') {
            return Err(invalid(
                "spec.path",
                "must be inside the repository: write it without a leading '/' and without '..'",
            ));
        }
        if name.len() > 50 {
            return Err(invalid("metadata.name", "must be at most 50 characters"));
        }
        let size = |n: u32, unit: usize| usize::try_from(n).unwrap_or(usize::MAX).saturating_mul(unit);
        Ok(Spec {
            url: RepositoryUrl::parse(&spec.url)?,
            target: Target::new(&spec.reference)?,
            path: spec.path.clone(),
            interval: interval.max(SignedDuration::from_secs(1)),
            secret: spec.credentials_ref.as_ref().map(|r| r.name.clone()),
            verify: spec.verify.clone(),
            account: spec.service_account_name.clone(),
            policy: Policy::new(&name, &namespace, &spec.allow),
            prune: spec.prune.clone(),
            allow_rewrite: spec.allow_history_rewrite,
            suspended: spec.suspend,
            bounds: Bounds {
                fetch_bytes: size(spec.limits.repository_mib, 1024 * 1024),
                file_bytes: size(spec.limits.file_kib, 1024),
                files: size(spec.limits.files, 1),
                commits: MAX_COMMITS,
                timeout: Duration::try_from(timeout).unwrap_or(Duration::from_secs(60)),
            },
            max_objects: size(spec.limits.objects, 1),
            manager: conflict::manager(&namespace, &name),
        })
    }
}
