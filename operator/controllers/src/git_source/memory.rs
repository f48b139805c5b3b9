//! What this process knows about one source. All of it can be found again: from Git, the inventory, and live objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast_api::{
    GitSource, GitSourceStatus,
    git_source::{InventorySummary, RECONCILE_ANNOTATION},
};
use holdfast_core::source::{
    Digest, ObjectKey, Problem, Why,
    drift::Fight,
    health::Health,
    inventory::Inventory,
    poll,
    report::{Facts, Verdict},
};
use holdfast_git::Credentials;
use holdfast_kube::source::Applier;
use jiff::Timestamp;
use kube::ResourceExt;

use super::{
    read::{Cache, Reading},
    spec::Spec,
    watch::Watches,
};

/// An object that this source has applied.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Digest of what was applied last, if this process knows it.
    pub digest: Option<Digest>,
    /// Digest of our ownership of its fields, as of the last time that it was seen to be as Git wants it.
    pub owned: Option<[u8; 32]>,
    /// Gone from Git, but kept.
    pub orphan: bool,
}

/// See the module.
#[derive(Default)]
pub struct Memory {
    uid: Option<String>,
    generation: Option<i64>,
    /// The end of the last poll, failures in a row, and the jitter drawn for the next.
    last: Option<Timestamp>,
    failures: u32,
    jitter: f64,
    spec_changed: bool,
    /// A webhook asks for a poll.
    pub asked: bool,
    /// How often the newest commit was refused, and when it is tried again.
    refusals: u32,
    retry: Option<Timestamp>,
    /// The Secret's content, and when it was read.
    pub credentials: Option<(Instant, Credentials)>,
    /// What failed before any commit was in hand.
    pub failure: Option<Why>,
    /// The newest commit on the server.
    pub fetched: Option<String>,
    /// The newest commit whose signatures were accepted, and who signed it.
    pub verified: Option<(String, String)>,
    /// The newest commit is not in force.
    pub verdict: Option<Verdict>,
    /// What is in force, as read from Git.
    pub in_force: Option<Arc<Reading>>,
    /// What is being brought into force: once its first object is applied there is no way back but forward.
    pub underway: Option<Arc<Reading>>,
    /// Parsed files, by their content's id.
    pub cache: Cache,
    /// What was applied, as written down.
    pub inventory: Option<Inventory>,
    /// The same, with what this process knows.
    pub held: BTreeMap<ObjectKey, Held>,
    /// Put-backs per object.
    pub fights: BTreeMap<ObjectKey, Fight>,
    /// Why drift could not be put back.
    pub live_failure: Option<Why>,
    /// Problems with live objects.
    pub live_problems: Vec<Problem>,
    /// Live objects.
    pub watches: Watches,
    /// The client that acts as the ServiceAccount, with its name.
    pub applier: Option<(String, Applier)>,
    /// The status last written.
    pub written: Option<GitSourceStatus>,
}

impl Memory {
    /// A new object of the same name is a new source; a new generation may mean anything by the same bytes.
    pub fn begin(&mut self, source: &GitSource) {
        if self.uid.is_some() && self.uid != source.uid() {
            *self = Memory::default();
        }
        self.uid = source.uid();
        if self.generation != source.metadata.generation {
            self.generation = source.metadata.generation;
            self.spec_changed = true;
            self.cache = Cache::default();
            self.credentials = None;
            self.applier = None;
            self.failures = 0;
        }
    }

    /// Whose memory this is.
    pub fn uid(&self) -> Option<&str> {
        self.uid.as_deref()
    }

    pub fn poll_view(&self, spec: &Spec, now: Timestamp) -> poll::View {
        poll::View {
            suspended: spec.suspended,
            last: self.last,
            asked: self.asked || self.spec_changed || self.retry_is_due(now),
            failures: self.failures,
            interval: spec.interval,
            jitter: self.jitter,
        }
    }

    /// A poll ended: counts failures in a row.
    pub fn polled(&mut self, now: Timestamp) {
        self.last = Some(now);
        self.spec_changed = false;
        self.asked = false;
        self.jitter = rand::random_range(0.0..1.0);
        self.failures = if self.failure.is_some() {
            self.failures.saturating_add(1)
        } else {
            0
        };
    }

    /// A commit was not taken: remembers why, and when it is tried again.
    pub fn refuse(&mut self, verdict: Verdict, now: Timestamp) {
        let again = self.verdict.as_ref().is_some_and(|v| v.revision == verdict.revision);
        self.refusals = if again { self.refusals.saturating_add(1) } else { 1 };
        self.retry = Some(poll::retry(now, self.refusals));
        self.verdict = Some(verdict);
    }

    /// The newest commit is in force.
    pub fn accept(&mut self) {
        self.verdict = None;
        self.refusals = 0;
        self.retry = None;
    }

    /// Whether the refused commit is due to be tried again.
    pub fn retry_is_due(&self, now: Timestamp) -> bool {
        self.retry.is_some_and(|at| now >= at)
    }

    /// The commit that needs nothing when the ref still stands there.
    pub fn settled(&self, now: Timestamp) -> Option<String> {
        if self.spec_changed || self.retry_is_due(now) {
            return None;
        }
        match (&self.verdict, &self.in_force) {
            (Some(verdict), _) => Some(verdict.revision.clone()),
            (None, Some(in_force)) => Some(in_force.revision.clone()),
            (None, None) => None,
        }
    }

    /// How long until something is due by itself.
    pub fn next(&self, spec: &Spec, now: Timestamp) -> Duration {
        let poll = match poll::decide(&self.poll_view(spec, now), now) {
            holdfast_core::plan::Decision::Wait { until, .. } => {
                Duration::try_from(until.duration_since(now)).unwrap_or_default()
            }
            holdfast_core::plan::Decision::Do { .. } => Duration::from_millis(10),
            holdfast_core::plan::Decision::Stay(_) => Duration::MAX,
        };
        let fights = self
            .fights
            .values()
            .filter(|f| f.is_on())
            .map(|f| Duration::try_from(f.next().duration_since(now)).unwrap_or(Duration::from_secs(1)));
        let retry = self
            .retry
            .map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        fights
            .chain(retry)
            .chain([poll])
            .min()
            .unwrap_or(poll)
            .max(Duration::from_millis(10))
    }

    pub fn orphans(&self) -> BTreeSet<ObjectKey> {
        self.held
            .iter()
            .filter(|(_, held)| held.orphan)
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Objects that ask to be left alone, in Git or on the live object.
    pub fn paused(&self, wanted: &Reading) -> BTreeSet<ObjectKey> {
        let in_git = wanted
            .entries
            .iter()
            .filter(|(_, e)| e.paused)
            .map(|(key, _)| key.clone());
        in_git.chain(self.watches.paused()).collect()
    }

    pub fn facts(&self, source: &GitSource, spec: Option<&Spec>) -> Facts {
        let objects = self.held.values().filter(|h| !h.orphan).count();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let old = self.written.as_ref().or(source.status.as_ref());
        let (health, unhealthy) = self.health(objects);
        Facts {
            generation: source.metadata.generation,
            suspended: false,
            failure: self.failure.clone(),
            fetched: self
                .fetched
                .clone()
                .or_else(|| old.and_then(|s| s.fetched_revision.clone())),
            verify: spec.is_some_and(|s| s.verify.is_some()),
            verified: self.verified.clone(),
            verdict: self.verdict.clone(),
            applied: self
                .in_force
                .as_ref()
                .map(|r| r.revision.clone())
                .or_else(|| old.and_then(|s| s.applied_revision.clone())),
            entry: None,
            inventory: match old.and_then(|s| s.inventory.clone()) {
                // Not read yet in this process: what was said stays said.
                Some(summary) if self.inventory.is_none() => summary,
                _ => InventorySummary {
                    objects: count(objects),
                    unhealthy: count(unhealthy),
                    paused: count(self.in_force.as_ref().map_or(0, |r| self.paused(r).len())),
                    orphans: count(self.held.len() - objects),
                    shards: count(self.inventory.as_ref().map_or(0, Inventory::shards)),
                },
            },
            health,
            live_problems: self.live_problems.clone(),
        }
    }

    fn health(&self, objects: usize) -> (Option<Why>, usize) {
        if self.in_force.is_none() {
            return (None, 0);
        }
        if let Some(why) = &self.live_failure {
            return (Some(why.clone()), 0);
        }
        if let Some(message) = self.watches.trouble() {
            return (Some(Why::Forbidden { message }), 0);
        }
        let mut failed = Vec::new();
        let mut waiting = Vec::new();
        let held = self.held.iter().filter(|(_, held)| !held.orphan).map(|(key, _)| key);
        for (key, health) in self.watches.unwell(held) {
            match health {
                Some(Health::Current) => {}
                Some(Health::Failed(message)) => failed.push(format!("{key}: {message}")),
                Some(Health::InProgress(message)) => waiting.push(format!("{key}: {message}")),
                None if !self.watches.complete() => return (None, 0),
                None => waiting.push(format!("{key}: not there")),
            }
        }
        failed.extend(self.live_problems.iter().map(|p| {
            format!(
                "{} cannot be put back: {}",
                p.object.as_deref().unwrap_or("an object"),
                p.message
            )
        }));
        let unhealthy = failed.len() + waiting.len();
        let why = match (failed.first(), waiting.first()) {
            (Some(first), _) => Why::Unhealthy {
                unhealthy: failed.len(),
                first: first.clone(),
            },
            (None, Some(first)) => Why::WaitsForHealth {
                unhealthy,
                first: first.clone(),
            },
            (None, None) => Why::Healthy { objects },
        };
        (Some(why), unhealthy)
    }
}

/// Whether an object in Git asks to be left alone.
pub fn asks_for_pause(annotation: Option<&str>) -> bool {
    annotation == Some("disabled")
}

/// The annotation for it.
pub const PAUSE: &str = RECONCILE_ANNOTATION;
