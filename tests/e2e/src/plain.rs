//! PostgreSQL as it comes, one primary and two standbys, for comparison: the same image, settings and quorum, and nobody who looks
//! after it.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::house::{House, POSTGRES, run, wait_for};
use crate::sql::Access;

/// The `postgres` user of Debian's image.
const UID: &str = "100";
/// Known to this bed only, which goes with the run.
pub const PASSWORD: &str = "benchmark-only";

/// SQL for the lines of postgresql.conf that make another server like the one that answers. What is about places, names and the set
/// itself is left out.
pub const SETTINGS: &str = "SELECT string_agg(format('%s = %L', name, current_setting(name)), E'\\n' ORDER BY name) FROM pg_settings \
     WHERE source IN ('configuration file', 'command line') AND context <> 'internal' \
     AND name !~ '^(ssl|primary_|synchronous_standby|recovery_|restore_|archive_|log|unix_socket|listen|port|cluster_name|data_dir|hba_|ident_|config_|external|event_|allow_alter|stats_temp|jit_provider|sync_replication|synchronized)' \
     AND name NOT IN ('hot_standby', 'shared_preload_libraries', 'krb_server_keyfile', 'dynamic_library_path')";

/// Brings it up in a new namespace, with settings by [`SETTINGS`]; gives the address of its primary's Service.
pub fn apply(house: &House, namespace: &str, settings: &str) -> Result<String> {
    house.namespace(namespace)?;
    let folder = tempfile::tempdir()?;
    let (key, certificate) = (folder.path().join("tls.key"), folder.path().join("tls.crt"));
    run(Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=pg", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate))?;
    let secret = ["-n", namespace, "create", "secret", "tls", "pg-tls"];
    let files = [
        format!("--key={}", key.display()),
        format!("--cert={}", certificate.display()),
    ];
    house.kubectl(&[&secret[..], &files.iter().map(String::as_str).collect::<Vec<_>>()].concat())?;
    let settings: String = settings.lines().map(|line| format!("    {line}\n")).collect();
    house.apply(
        &include_str!("plain.yaml")
            .replace("@NAMESPACE@", namespace)
            .replace("@IMAGE@", POSTGRES)
            .replace("@UID@", UID)
            .replace("@PASSWORD@", PASSWORD)
            .replace("@SETTINGS@\n", &settings),
    )?;
    let path = "jsonpath={.spec.clusterIP}";
    let address = house.kubectl(&["-n", namespace, "get", "service", "pg", "-o", path])?;
    let access = Access::unverified(&address, "postgres", PASSWORD)?;
    wait_for("two standbys stream", Duration::from_secs(180), || {
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'";
        Ok(match access.query(sql) {
            Ok(count) if count == "2" => Ok(()),
            Ok(count) => Err(format!("{count} stream")),
            Err(error) => Err(format!("{error:#}")),
        })
    })?;
    Ok(address)
}
