//! Parameters that Holdfast sets itself, each with the reason: one table, for the refusal and for the documentation.

/// The reason why a user cannot set a parameter; `None` if they can.
pub fn reason(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    MANAGED.iter().find(|(n, _)| *n == name).map(|(_, why)| *why)
}

const PLACE: &str = "Holdfast decides where files and sockets are";
const NETWORK: &str = "Services and network policies rely on it";
const TLS: &str = "certificates are made and rotated by Holdfast";
const REPLICATION: &str = "replication and failover rely on it";
const DURABLE: &str = "without it a crash can lose acknowledged commits or corrupt data";
const RESTORE: &str = "recovery is steered by Holdfast";
const ARCHIVE: &str = "log is archived as spec.archive says, so that two would-be primaries cannot spoil it";
const LOG: &str = "the agent forwards the log as JSON";

/// The values of `wal_level` that a user can choose: what is less than `replica` has no standbys.
pub const WAL_LEVELS: [&str; 2] = ["replica", "logical"];
/// Why `hot_standby_feedback` cannot be off with logical replication.
pub const FEEDBACK: &str =
    "with wal_level = logical standbys copy the primary's slots, for which they must tell it what they read";

/// Name and reason.
pub const MANAGED: &[(&str, &str)] = &[
    (
        "allow_alter_system",
        "a setting made by ALTER SYSTEM would override what failover relies on",
    ),
    ("archive_cleanup_command", "no member takes log from an archive"),
    ("archive_command", ARCHIVE),
    ("archive_library", ARCHIVE),
    ("archive_mode", ARCHIVE),
    ("bonjour", NETWORK),
    ("cluster_name", "it is the member's name"),
    ("config_file", PLACE),
    ("data_directory", PLACE),
    ("data_sync_retry", DURABLE),
    ("event_source", LOG),
    ("external_pid_file", PLACE),
    ("fsync", DURABLE),
    ("full_page_writes", DURABLE),
    ("hba_file", PLACE),
    ("hot_standby", REPLICATION),
    ("ident_file", PLACE),
    ("ignore_invalid_pages", DURABLE),
    ("ignore_system_indexes", DURABLE),
    ("lc_messages", "the agent reads the log"),
    ("listen_addresses", NETWORK),
    ("log_destination", LOG),
    ("log_directory", LOG),
    ("log_file_mode", LOG),
    ("log_filename", LOG),
    ("log_line_prefix", LOG),
    ("log_min_messages", "the agent reads the log"),
    ("log_rotation_age", LOG),
    ("log_rotation_size", LOG),
    ("log_truncate_on_rotation", LOG),
    ("logging_collector", LOG),
    ("port", NETWORK),
    ("primary_conninfo", REPLICATION),
    ("primary_slot_name", REPLICATION),
    ("promote_trigger_file", REPLICATION),
    ("recovery_end_command", RESTORE),
    ("recovery_init_sync_method", DURABLE),
    ("recovery_min_apply_delay", "a delayed member could not take over"),
    ("recovery_target", RESTORE),
    ("recovery_target_action", RESTORE),
    ("recovery_target_inclusive", RESTORE),
    ("recovery_target_lsn", RESTORE),
    ("recovery_target_name", RESTORE),
    ("recovery_target_time", RESTORE),
    ("recovery_target_timeline", RESTORE),
    ("recovery_target_xid", RESTORE),
    (
        "remove_temp_files_after_crash",
        "a crashed engine is restarted by the agent",
    ),
    (
        "restart_after_crash",
        "a crashed engine is restarted by the agent, which first looks who leads",
    ),
    (
        "restore_command",
        "a standby that takes log from an archive claims more than its leader gave it",
    ),
    ("ssl", TLS),
    ("ssl_ca_file", TLS),
    ("ssl_cert_file", TLS),
    ("ssl_crl_dir", TLS),
    ("ssl_crl_file", TLS),
    ("ssl_key_file", TLS),
    ("ssl_passphrase_command", TLS),
    ("ssl_passphrase_command_supports_reload", TLS),
    ("superuser_reserved_connections", "the agent's own sessions need them"),
    (
        "sync_replication_slots",
        "it follows from wal_level: with logical, standbys copy the slots that are made with failover = true",
    ),
    (
        "synchronized_standby_slots",
        "it follows the standbys that commits wait for, so that a subscriber never has what a new primary lacks",
    ),
    (
        "synchronous_standby_names",
        "it follows from spec.durability and spec.copies",
    ),
    ("syslog_facility", LOG),
    ("syslog_ident", LOG),
    ("syslog_sequence_numbers", LOG),
    ("syslog_split_messages", LOG),
    ("unix_socket_directories", PLACE),
    ("unix_socket_group", PLACE),
    ("unix_socket_permissions", PLACE),
    ("wal_log_hints", "rewinding a former leader relies on it"),
    ("wal_receiver_create_temp_slot", REPLICATION),
    ("wal_receiver_status_interval", REPLICATION),
    ("wal_receiver_timeout", REPLICATION),
    ("wal_retrieve_retry_interval", REPLICATION),
    ("wal_sender_timeout", REPLICATION),
    ("zero_damaged_pages", DURABLE),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_named_once_and_in_order() {
        assert!(MANAGED.windows(2).all(|w| w[0].0 < w[1].0));
        assert_eq!(reason("FSYNC"), Some(DURABLE));
        assert_eq!(reason("work_mem"), None);
    }
}
