//! The generated `postgresql.conf`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use holdfast_core::failover::{DirId, MemberName};
use holdfast_core::instance::{SyncNames, Upstream};
use holdfast_wire::REPLICATION_ROLE;

use crate::archive::Archive;
use crate::layout::Layout;
use crate::{subscribers, sync_names};

/// Everything that the file says.
#[derive(Clone, Debug)]
pub struct Conf<'a> {
    /// Where files are.
    pub layout: &'a Layout,
    /// Major version of the engine.
    pub major: u32,
    /// This member.
    pub member: &'a MemberName,
    /// Address to listen on; empty: the local socket only.
    pub listen: &'a str,
    /// Port.
    pub port: u16,
    /// TLS files are there.
    pub tls: bool,
    /// The bootstrap's locale, for `lc_*`.
    pub locale: &'a str,
    /// Volume size in bytes, if known: bounds what slots may hold.
    pub volume_bytes: Option<u64>,
    /// Where all log goes, if it is archived.
    pub archive: Option<&'a Archive>,
    /// The user's parameters that passed the check.
    pub parameters: &'a BTreeMap<String, String>,
    /// Synchronous standbys.
    pub sync: &'a SyncNames,
    /// The members that subscribers are kept behind, where the engine's logical slots follow a failover.
    pub subscribers: Option<&'a BTreeSet<MemberName>>,
    /// Whose log to take, as whom.
    pub upstream: Option<(&'a Upstream, &'a DirId)>,
    /// It is promoted: it may be asked for copies of slots.
    pub upstream_leads: bool,
}

/// Preset, but the user's to change.
const PRESETS: &[(&str, &str)] = &[
    ("max_connections", "100"),
    ("max_wal_senders", "20"),
    ("max_replication_slots", "20"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("datestyle", "iso, mdy"),
    ("dynamic_shared_memory_type", "posix"),
    ("password_encryption", "scram-sha-256"),
    ("hot_standby_feedback", "off"),
    ("wal_level", "replica"),
    // A client that vanished without a word is noticed within about half a minute.
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "4"),
    ("log_checkpoints", "on"),
];

/// Not the user's to change: [`crate::managed`] says why.
const FIXED: &[(&str, &str)] = &[
    ("unix_socket_permissions", "0700"),
    ("hot_standby", "on"),
    ("wal_log_hints", "on"),
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("restart_after_crash", "off"),
    ("superuser_reserved_connections", "5"),
    ("recovery_target_timeline", "latest"),
    // Not even with an archive: a standby that takes log from there claims positions that its leader never gave it, and its seal would
    // say that it holds commits which the rule did not count it for.
    ("restore_command", ""),
    ("wal_sender_timeout", "5s"),
    ("wal_receiver_timeout", "5s"),
    ("wal_receiver_status_interval", "1s"),
    ("wal_retrieve_retry_interval", "200ms"),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("log_line_prefix", crate::log::PREFIX),
    ("lc_messages", "C"),
];

/// What the log may take of a volume of so many bytes, preset and the user's to change: neither recycled log, nor what is kept
/// for members that are away, may fill a small volume. PostgreSQL wants room for two files of log, which are 32 MiB at most.
fn wal_sizes(volume: Option<u64>) -> Vec<(&'static str, String)> {
    let share = |of: u64| volume.map_or(u64::MAX, |bytes| bytes / of / 1_048_576);
    let max = share(8).clamp(64, 1024);
    let mut sizes = vec![
        ("max_wal_size", max),
        ("min_wal_size", max.min(80)),
        ("wal_keep_size", share(10).min(256)),
    ];
    if volume.is_some() {
        sizes.push(("max_slot_wal_keep_size", share(3)));
    }
    sizes.into_iter().map(|(name, mb)| (name, format!("{mb}MB"))).collect()
}

/// Writes the file's text.
pub fn render(c: &Conf) -> String {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |k: &str, v: &str| {
        all.insert(k.to_owned(), v.to_owned());
    };
    PRESETS.iter().for_each(|(k, v)| set(k, v));
    for lc in ["lc_monetary", "lc_numeric", "lc_time"] {
        set(lc, c.locale);
    }
    wal_sizes(c.volume_bytes).iter().for_each(|(k, v)| set(k, v));
    c.parameters.iter().for_each(|(k, v)| set(&k.to_ascii_lowercase(), v));
    FIXED.iter().for_each(|(k, v)| set(k, v));
    if c.major >= 17 {
        set("allow_alter_system", "off");
    }
    if let Some(behind) = c.subscribers {
        for (k, v) in subscribers::settings(c.upstream_leads, behind) {
            set(k, &v);
        }
    }
    // Not `on`: what a standby has received would count as archived on it, and be missing for ever if the primary dies before it has
    // archived it. So every member pushes all that it has; the same content twice is no harm.
    set("archive_mode", if c.archive.is_some() { "always" } else { "off" });
    set(
        "archive_command",
        &c.archive.map(|a| a.command(&c.member.0)).unwrap_or_default(),
    );
    set("cluster_name", &c.member.0);
    set("listen_addresses", c.listen);
    set("port", &c.port.to_string());
    set("unix_socket_directories", &c.layout.socket_dir().to_string_lossy());
    set("hba_file", &c.layout.hba().to_string_lossy());
    set("ident_file", &c.layout.ident().to_string_lossy());
    set("ssl", if c.tls { "on" } else { "off" });
    if c.tls {
        for (k, f) in [
            ("ssl_cert_file", "tls.crt"),
            ("ssl_key_file", "tls.key"),
            ("ssl_ca_file", "ca.crt"),
        ] {
            set(k, &c.layout.engine_tls().join(f).to_string_lossy());
        }
    }
    set("synchronous_standby_names", &sync_names::render(c.sync));
    // Log is taken without a database; slots are looked at in one.
    let database = c.subscribers.map(|_| "postgres");
    let info = c
        .upstream
        .map(|(up, dir)| conninfo(c.layout, &up.address, c.port, &dir.0, database));
    set("primary_conninfo", &info.unwrap_or_default());
    set(
        "primary_slot_name",
        &c.upstream.map(|_| slot_name(c.member)).unwrap_or_default(),
    );

    let mut text = String::from(
        "# Written by Holdfast at each change. Parameters are set in the HAReplicaSet's spec.parameters.\n",
    );
    for (k, v) in &all {
        let _ = writeln!(text, "{k} = {}", quote(v));
    }
    text
}

/// How a member logs in to another's engine: by its certificate, so that no password is in it.
pub fn conninfo(layout: &Layout, address: &str, port: u16, application: &str, database: Option<&str>) -> String {
    let tls = layout.engine_tls();
    let file = |f: &str| tls.join(f).to_string_lossy().into_owned();
    let mut fields = vec![
        ("host", address.to_owned()),
        ("port", port.to_string()),
        ("user", REPLICATION_ROLE.to_owned()),
        ("application_name", application.to_owned()),
        ("sslmode", "verify-ca".to_owned()),
        ("sslcert", file("tls.crt")),
        ("sslkey", file("tls.key")),
        ("sslrootcert", file("ca.crt")),
        ("gssencmode", "disable".to_owned()),
        ("connect_timeout", "3".to_owned()),
        ("keepalives_idle", "2".to_owned()),
        ("keepalives_interval", "1".to_owned()),
        ("keepalives_count", "3".to_owned()),
        ("tcp_user_timeout", "5000".to_owned()),
    ];
    fields.extend(database.map(|d| ("dbname", d.to_owned())));
    let quoted = |v: &str| format!("'{}'", v.replace('\\', "\\\\").replace('\'', "\\'"));
    fields
        .iter()
        .map(|(k, v)| format!("{k}={}", quoted(v)))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The physical slot that holds log for a member.
pub fn slot_name(member: &MemberName) -> String {
    member.0.replace(['-', '.'], "_")
}

fn quote(value: &str) -> String {
    // A line break would end the setting and begin another.
    let clean: String = value.chars().filter(|c| !c.is_control()).collect();
    format!("'{}'", clean.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf<'a>(layout: &'a Layout, parameters: &'a BTreeMap<String, String>, member: &'a MemberName) -> Conf<'a> {
        Conf {
            layout,
            major: 17,
            member,
            listen: "*",
            port: 5432,
            tls: true,
            locale: "C.UTF-8",
            volume_bytes: Some(30 << 30),
            archive: None,
            parameters,
            sync: &SyncNames::Nobody,
            subscribers: None,
            upstream: None,
            upstream_leads: false,
        }
    }

    #[test]
    fn a_users_value_replaces_a_preset_but_never_what_is_fixed_and_cannot_break_out_of_its_line() {
        let (layout, member) = (Layout::default(), MemberName("a-1".into()));
        let user = [
            ("Max_Connections", "50"),
            ("fsync", "off"),
            ("work_mem", "4MB'\nfsync = off\\"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
        let text = render(&conf(&layout, &user, &member));
        assert!(text.contains("\nmax_connections = '50'\n"));
        assert!(text.contains("\nfsync = 'on'\n") && !text.contains("\nfsync = off"));
        assert!(text.contains("\nwork_mem = '4MB''fsync = off\\\\'\n"));
        assert!(text.contains("\nmax_slot_wal_keep_size = '10240MB'\n"));
        assert!(text.contains("\nallow_alter_system = 'off'\n"));
    }

    #[test]
    fn log_is_archived_by_every_member_and_restored_by_none() {
        let (layout, member, none) = (Layout::default(), MemberName("a-1".into()), BTreeMap::new());
        let text = render(&conf(&layout, &none, &member));
        assert!(text.contains("\narchive_mode = 'off'\n") && text.contains("\narchive_command = ''\n"));
        let archive = Archive {
            folder: "/archive/ns.a".into(),
            program: "/bin/agent".into(),
        };
        let text = render(&Conf {
            archive: Some(&archive),
            ..conf(&layout, &none, &member)
        });
        assert!(text.contains("\narchive_mode = 'always'\n") && text.contains("\nrestore_command = ''\n"));
        let command = r#"archive_command = 'exec ''/bin/agent'' wal-push ''/archive/ns.a'' ''a-1'' "%p" "%f"'"#;
        assert!(text.contains(command), "{text}");
    }

    #[test]
    fn log_takes_its_share_of_the_volume_and_no_more() {
        let sizes = |volume| {
            let sizes = wal_sizes(volume).into_iter().map(|(_, mb)| mb);
            sizes.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(sizes(Some(487 << 20)), "64MB 64MB 48MB 162MB");
        assert_eq!(sizes(Some(4 << 30)), "512MB 80MB 256MB 1365MB");
        assert_eq!(sizes(Some(1 << 40)), "1024MB 80MB 256MB 349525MB");
        assert_eq!(sizes(None), "1024MB 80MB 256MB");
    }

    #[test]
    fn a_standby_says_who_it_is_and_which_slot_is_its_own() {
        let (layout, member, none) = (Layout::default(), MemberName("a-1".into()), BTreeMap::new());
        let up = Upstream {
            member: MemberName("a-2".into()),
            term: holdfast_core::failover::Term(3),
            address: "10.0.0.2".into(),
        };
        let dir = DirId("a_1_ff".into());
        let text = render(&Conf {
            upstream: Some((&up, &dir)),
            ..conf(&layout, &none, &member)
        });
        assert!(
            text.contains("host=''10.0.0.2''") && text.contains("application_name=''a_1_ff''"),
            "{text}"
        );
        assert!(text.contains("\nprimary_slot_name = 'a_1'\n"));
        assert!(
            !text.contains("dbname") && !text.contains("synchronized_standby_slots"),
            "nobody asked for logical replication"
        );
    }

    #[test]
    fn with_logical_replication_a_standby_copies_slots_and_a_primary_says_whom_subscribers_are_behind() {
        let (layout, member) = (Layout::default(), MemberName("a-1".into()));
        let user = [("wal_level", "logical"), ("hot_standby_feedback", "off")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        let up = Upstream {
            member: MemberName("a-2".into()),
            term: holdfast_core::failover::Term(3),
            address: "10.0.0.2".into(),
        };
        let (dir, behind) = (
            DirId("a_1_ff".into()),
            ["a-2", "a-3"].map(|m| MemberName(m.into())).into(),
        );
        let alone = Conf {
            subscribers: Some(&behind),
            ..conf(&layout, &user, &member)
        };
        let text = render(&alone);
        assert!(text.contains("\nwal_level = 'logical'\n") && text.contains("\nsync_replication_slots = 'off'\n"));
        assert!(text.contains("\nsynchronized_standby_slots = 'a_2,a_3'\n"), "{text}");
        let candidate = Conf {
            upstream: Some((&up, &dir)),
            ..alone
        };
        let off = "\nsync_replication_slots = 'off'\n";
        assert!(render(&candidate).contains(off), "a standby gives no copies");
        let text = render(&Conf {
            upstream_leads: true,
            ..candidate
        });
        assert!(text.contains("\nsync_replication_slots = 'on'\n") && text.contains("\nhot_standby_feedback = 'on'\n"));
        assert!(text.contains("dbname=''postgres''"), "{text}");
    }
}
