//! What Prometheus is told by the operator. Members tell of themselves: see the agent.

use std::{sync::atomic::AtomicU64, time::Duration};

use holdfast_core::plan::{Reason, Severity};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfObject {
    kind: &'static str,
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
    severity: &'static str,
}

/// All metrics of one operator; names begin with `holdfast_`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    leads: Gauge,
    memory: Gauge<u64, AtomicU64>,
    reconciles: Family<OfKind, Histogram, fn() -> Histogram>,
    failures: Family<OfKind, Counter>,
    reasons: Family<OfReason, Counter>,
    ready: Family<OfObject, Gauge>,
    polls: Family<OfReason, Counter>,
    commits: Histogram,
}

/// 5 ms to 80 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 2.0, 15))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut m = Metrics {
            registry: Registry::with_prefix("holdfast"),
            leads: Gauge::default(),
            memory: Gauge::default(),
            reconciles: Family::new_with_constructor(seconds),
            failures: Family::default(),
            reasons: Family::default(),
            ready: Family::default(),
            polls: Family::default(),
            commits: seconds(),
        };
        let r = &mut m.registry;
        r.register("leads", "1 while this operator leads", m.leads.clone());
        r.register_with_unit(
            "operator_memory",
            "Resident memory of the operator",
            Unit::Bytes,
            m.memory.clone(),
        );
        r.register_with_unit(
            "reconcile",
            "Time that one look at an object took",
            Unit::Seconds,
            m.reconciles.clone(),
        );
        r.register(
            "reconcile_failures",
            "Looks at an object that could not be finished, and are tried again",
            m.failures.clone(),
        );
        r.register(
            "reasons",
            "Reasons told to people: the same words as in conditions, Events and logs",
            m.reasons.clone(),
        );
        r.register(
            "ready",
            "1 for an object whose condition Ready is True",
            m.ready.clone(),
        );
        r.register("git_polls", "Polls of Git servers, by outcome", m.polls.clone());
        r.register_with_unit(
            "git_commit",
            "From a commit's arrival here to its being in force",
            Unit::Seconds,
            m.commits.clone(),
        );
        m
    }
}

impl Metrics {
    /// Whether this process leads.
    pub fn leads(&self, leads: bool) {
        self.leads.set(leads.into());
    }

    /// One look at an object of a kind.
    pub fn reconciled(&self, kind: &'static str, took: Duration, finished: bool) {
        self.reconciles
            .get_or_create(&OfKind { kind })
            .observe(took.as_secs_f64());
        let failures = self.failures.get_or_create(&OfKind { kind });
        if !finished {
            failures.inc();
        }
    }

    /// A reason was told to people.
    pub fn told(&self, why: &impl Reason) {
        self.reasons.get_or_create(&of_reason(why)).inc();
    }

    /// A Git server was asked: `None` where it answered.
    pub fn polled(&self, failure: Option<&impl Reason>) {
        let outcome = failure.map_or(
            OfReason {
                reason: "Answered",
                severity: "Normal",
            },
            of_reason,
        );
        self.polls.get_or_create(&outcome).inc();
    }

    /// A commit is in force, this long after it was fetched.
    pub fn applied(&self, took: Duration) {
        self.commits.observe(took.as_secs_f64());
    }

    /// Whether an object's condition Ready is True.
    pub fn ready(&self, kind: &'static str, namespace: &str, name: &str, ready: bool) {
        self.ready
            .get_or_create(&of_object(kind, namespace, name))
            .set(ready.into());
    }

    /// An object is gone; so is its line.
    pub fn gone(&self, kind: &'static str, namespace: &str, name: &str) {
        self.ready.remove(&of_object(kind, namespace, name));
    }

    /// The text that Prometheus reads (OpenMetrics).
    pub fn text(&self) -> String {
        self.memory.set(holdfast_telemetry::resident().unwrap_or(0));
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

fn of_reason(why: &impl Reason) -> OfReason {
    OfReason {
        reason: why.reason(),
        severity: match why.severity() {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        },
    }
}

fn of_object(kind: &'static str, namespace: &str, name: &str) -> OfObject {
    OfObject {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_core::source::Why;

    use super::*;

    #[test]
    fn the_text_has_what_happened_and_nothing_of_what_is_gone() {
        let metrics = Metrics::default();
        metrics.leads(true);
        metrics.reconciled("GitSource", Duration::from_millis(7), false);
        let why = Why::AccessDenied { message: "no".into() };
        metrics.told(&why);
        metrics.polled(Some(&why));
        metrics.polled(None::<&Why>);
        metrics.ready("HAReplicaSet", "civil", "register", true);
        metrics.ready("HAReplicaSet", "civil", "old", false);
        metrics.gone("HAReplicaSet", "civil", "old");
        metrics.applied(Duration::from_millis(90));
        let text = metrics.text();
        for line in [
            "holdfast_leads 1",
            r#"holdfast_reconcile_seconds_count{kind="GitSource"} 1"#,
            r#"holdfast_reconcile_failures_total{kind="GitSource"} 1"#,
            r#"holdfast_reasons_total{reason="AccessDenied",severity="Warning"} 1"#,
            r#"holdfast_git_polls_total{reason="AccessDenied",severity="Warning"} 1"#,
            r#"holdfast_git_polls_total{reason="Answered",severity="Normal"} 1"#,
            r#"holdfast_ready{kind="HAReplicaSet",namespace="civil",name="register"} 1"#,
            "holdfast_git_commit_seconds_count 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains(r#"name="old""#), "{text}");
        assert!(!text.contains("operator_memory_bytes 0"), "{text}");
    }
}
