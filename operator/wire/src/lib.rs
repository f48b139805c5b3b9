//! What the operator and its agents say to each other, and where it is written.
//!
//! Everything passes through the API server: the wish in a `ConfigMap`, the authority record in a `Lease`, what an agent
//! sees of itself in an annotation of its own Pod. The operator opens no connection to an agent, so an agent that the
//! operator cannot reach is no special case. Agents talk to each other directly, over mTLS ([`PEER_PATH`]).

pub mod names;
pub mod status;

pub use names::Names;
pub use status::{MemberState, MemberStatus, RejectedParameter, STATUS_EVERY};

/// Version of these types. A reader accepts its own and the one before; fields are only added.
pub const WIRE_VERSION: u32 = 1;

/// Pod annotation: the agent's [`MemberStatus`] as JSON.
pub const STATUS_ANNOTATION: &str = "holdfast.dev/member-status";
/// Lease annotation: the authority record (`holdfast_core::failover::Record`) as JSON.
pub const RECORD_ANNOTATION: &str = "holdfast.dev/record";
/// ConfigMap key: the wish (`holdfast_core::instance::SetSpec`) as JSON.
pub const SPEC_KEY: &str = "spec.json";

/// Label on everything that belongs to a replica set.
pub const SET_LABEL: &str = "holdfast.dev/replica-set";
/// Label on Pods and PersistentVolumeClaims: the member's name.
pub const MEMBER_LABEL: &str = "holdfast.dev/member";
/// `app.kubernetes.io/managed-by` of everything that Holdfast makes.
pub const MANAGED_BY: &str = "holdfast";

/// Agents' mTLS port: heartbeats and seals.
pub const PEER_PORT: u16 = 9432;
/// POST a JSON `holdfast_core::instance::Message` here; the sender is the certificate's subject.
pub const PEER_PATH: &str = "/v1/message";
/// The agent's plain HTTP port for kubelet and Prometheus: `/livez`, `/readyz`, `/metrics`.
pub const HEALTH_PORT: u16 = 9187;
/// PostgreSQL's port.
pub const POSTGRES_PORT: u16 = 5432;

/// Role that standbys stream and agents clone as; logs in with the member's client certificate.
pub const REPLICATION_ROLE: &str = "holdfast_replication";
/// The name in `synchronous_standby_names` that nobody has.
pub const NOBODY: &str = "holdfast_nobody";

/// Where things are mounted in a member's Pod.
pub mod paths {
    /// The member's volume. `<VOLUME>/pgdata` is the data directory, `<VOLUME>/holdfast/` the agent's own state,
    /// `<VOLUME>/aside/` directories kept for a person.
    pub const VOLUME: &str = "/var/lib/holdfast";
    /// Where the init container puts the agent's program.
    pub const BIN: &str = "/holdfast/bin";
    /// Name of the agent's program, there and in [`IMAGE_BIN`].
    pub const AGENT: &str = "holdfast-agent";
    /// Where programs are in Holdfast's own image.
    pub const IMAGE_BIN: &str = "/bin";
    /// Scratch that lives as long as the Pod: socket directory, generated passwd, generated configuration.
    pub const RUN: &str = "/holdfast/run";
    /// This member's certificate, key and the set's CA (`tls.crt`, `tls.key`, `ca.crt`), from its Secret.
    pub const TLS: &str = "/holdfast/tls";
    /// The wish, from the ConfigMap: read at start when the API server does not answer and the volume has none.
    pub const SPEC: &str = "/holdfast/spec";
    /// The log archive, where one is asked for: the claim that the user names.
    pub const ARCHIVE: &str = "/holdfast/archive";
    /// Bootstrap: `app-password` and optional `*.sql` to run once after initdb.
    pub const BOOTSTRAP: &str = "/holdfast/bootstrap";
}

/// Environment of the agent.
pub mod env {
    /// This member's name (= Pod name).
    pub const MEMBER: &str = "HOLDFAST_MEMBER";
    /// The replica set's name.
    pub const SET: &str = "HOLDFAST_SET";
    /// Namespace.
    pub const NAMESPACE: &str = "HOLDFAST_NAMESPACE";
    /// This Pod's IP address (downward API).
    pub const POD_IP: &str = "HOLDFAST_POD_IP";
    /// This Pod's UID (downward API), so that a status is never read as a namesake's.
    pub const POD_UID: &str = "HOLDFAST_POD_UID";
    /// JSON of [`super::Bootstrap`].
    pub const BOOTSTRAP: &str = "HOLDFAST_BOOTSTRAP";
    /// Where the log archive is mounted; absent where none is asked for.
    pub const ARCHIVE: &str = "HOLDFAST_ARCHIVE";
}

/// How the first data directory is made. Immutable after creation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// The application's database.
    pub database: String,
    /// Its owner, a login role whose SCRAM password is in the Secret.
    pub owner: String,
    /// `initdb --encoding`.
    pub encoding: String,
    /// `initdb --locale`.
    pub locale: String,
    /// Data checksums (`initdb --data-checksums`).
    pub data_checksums: bool,
    /// `initdb --wal-segsize`, in MiB. Left out where it is the default, so that Pods of before it could be chosen stay as they are.
    #[serde(default = "wal_segment_mib", skip_serializing_if = "is_default_segment")]
    pub wal_segment_mib: u8,
}

fn wal_segment_mib() -> u8 {
    4
}

fn is_default_segment(mib: &u8) -> bool {
    *mib == wal_segment_mib()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic in a test is its verdict")]

    use super::*;

    /// The text is in each Pod's environment: another one would restart every database at an upgrade of the operator.
    #[test]
    fn a_bootstrap_of_before_reads_and_writes_as_it_was() {
        let text = r#"{"database":"app","owner":"app","encoding":"UTF8","locale":"C.UTF-8","dataChecksums":true}"#;
        let read: Bootstrap = serde_json::from_str(text).unwrap();
        assert_eq!(read.wal_segment_mib, 4);
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        let other = Bootstrap {
            wal_segment_mib: 16,
            ..read
        };
        let again: Bootstrap = serde_json::from_str(&serde_json::to_string(&other).unwrap()).unwrap();
        assert_eq!(again, other);
    }
}
