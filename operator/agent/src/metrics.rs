//! What Prometheus is told.

use std::sync::atomic::AtomicU64;

use holdfast_core::instance::{Role, View};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// A label with one of a fixed set of values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    kind: String,
}

type Number = Gauge<u64, AtomicU64>;

/// All metrics of one agent.
pub struct Metrics {
    registry: Registry,
    term: Number,
    role: Family<Kind, Gauge>,
    lag: Number,
    flushed: Number,
    replayed: Number,
    gate: Gauge,
    memory: Number,
    volume_free: Number,
    pub(crate) starts: Counter,
    pub(crate) sent: Counter,
    pub(crate) received: Counter,
    failures: Family<Kind, Counter>,
    said: Family<Kind, Counter>,
}

const ROLES: [(Role, &str); 6] = [
    (Role::Leader, "leader"),
    (Role::Candidate, "candidate"),
    (Role::Replica, "replica"),
    (Role::Sealed, "sealed"),
    (Role::Preparing, "preparing"),
    (Role::Stopped, "stopped"),
];

impl Metrics {
    /// All at zero.
    pub fn new() -> Metrics {
        let mut m = Metrics {
            registry: Registry::with_prefix("holdfast"),
            term: Number::default(),
            role: Family::default(),
            lag: Number::default(),
            flushed: Number::default(),
            replayed: Number::default(),
            gate: Gauge::default(),
            memory: Number::default(),
            volume_free: Number::default(),
            starts: Counter::default(),
            sent: Counter::default(),
            received: Counter::default(),
            failures: Family::default(),
            said: Family::default(),
        };
        let r = &mut m.registry;
        r.register("member_term", "Highest leadership term known", m.term.clone());
        r.register("member_role", "1 for the role that the member has", m.role.clone());
        r.register("member_flushed_lsn", "End of the flushed log", m.flushed.clone());
        r.register("member_replayed_lsn", "End of the replayed log", m.replayed.clone());
        r.register("member_gate_open", "1 while clients are let in", m.gate.clone());
        r.register_with_unit("member_lag", "Log not replayed", Unit::Bytes, m.lag.clone());
        r.register_with_unit(
            "agent_memory",
            "Resident memory of the agent",
            Unit::Bytes,
            m.memory.clone(),
        );
        r.register_with_unit("volume_free", "Free on the volume", Unit::Bytes, m.volume_free.clone());
        r.register("engine_starts", "Engine starts", m.starts.clone());
        r.register("peer_messages_sent", "Messages that peers took", m.sent.clone());
        r.register("peer_messages_received", "Messages from peers", m.received.clone());
        r.register("work_failures", "Work on the engine that failed", m.failures.clone());
        r.register("reasons", "Reasons told to people", m.said.clone());
        m
    }

    /// Takes up what the machine shows.
    pub fn view(&self, v: &View) {
        self.term.set(u64::from(v.term.0));
        for (role, kind) in ROLES {
            self.role.get_or_create(&label(kind)).set(i64::from(v.role == role));
        }
        self.lag.set(v.lag_bytes.unwrap_or(0));
        self.flushed.set(v.position.lsn.0);
        self.replayed.set(v.replayed.0);
        self.gate.set(i64::from(v.gate_open));
    }

    /// Counts failed work.
    pub fn failed(&self, work: &str) {
        self.failures.get_or_create(&label(work)).inc();
    }

    /// Counts a reason told.
    pub fn told(&self, reason: &str) {
        self.said.get_or_create(&label(reason)).inc();
    }

    /// The text that Prometheus reads.
    pub fn text(&self, volume_free: Option<u64>) -> String {
        self.memory.set(holdfast_telemetry::resident().unwrap_or(0));
        self.volume_free.set(volume_free.unwrap_or(0));
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

fn label(kind: &str) -> Kind {
    Kind { kind: kind.to_owned() }
}
