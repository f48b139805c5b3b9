//! `kubectl holdfast connect`.

use holdfast_wire::{Names, POSTGRES_PORT};

use crate::cluster::Cluster;
use crate::failure::Failure;

/// To what.
#[derive(clap::Args)]
pub struct Options {
    /// The replica set.
    name: String,
}

/// Prints commands; reads no Secret, so no password lands on a screen or in a log.
pub async fn run(cluster: &Cluster, options: &Options) -> Result<(), Failure> {
    let set = cluster.set(&options.name).await?;
    let initdb = set.spec.bootstrap.initdb.clone().unwrap_or_default();
    let primary = set.status.and_then(|s| s.primary);
    print!(
        "{}",
        advice(
            &cluster.namespace,
            &options.name,
            &initdb.database,
            &initdb.owner,
            primary.as_deref()
        )
    );
    Ok(())
}

fn advice(namespace: &str, name: &str, database: &str, user: &str, primary: Option<&str>) -> String {
    let names = Names(name);
    let (rw, app, port) = (names.rw(), names.app(), POSTGRES_PORT);
    let read = |key: &str| {
        format!("kubectl get secret -n {namespace} {app} -o go-template='{{{{index .data \"{key}\" | base64decode}}}}'")
    };
    let mut out = format!(
        "In a Pod of the cluster: host {rw}.{namespace}.svc, port {port}, everything else in Secret {namespace}/{app}.\n"
    );
    match primary {
        Some(primary) => out.push_str(&format!(
            "From here, in two terminals (a Service without selector cannot be forwarded, so this goes to today's primary):\n  \
             kubectl port-forward -n {namespace} pod/{primary} {port}:{port}\n  \
             PGPASSWORD=$({}) psql \"host=localhost port={port} dbname={database} user={user} sslmode=require\"\n",
            read("password")
        )),
        None => out.push_str(&format!(
            "Nobody leads at present, so there is nothing to connect to; `kubectl holdfast status {name} -n {namespace}` says why.\n"
        )),
    }
    out.push_str(&format!(
        "To check the server's certificate: {} > ca.crt, then sslmode=verify-full sslrootcert=ca.crt (the names of the Services are in it).\n",
        read("ca.crt")
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_the_primary_and_shows_no_password() {
        let text = advice("a", "pg", "app", "app", Some("pg-2"));
        assert!(text.contains("kubectl port-forward -n a pod/pg-2 5432:5432"), "{text}");
        assert!(
            text.contains("pg-rw.a.svc") && text.contains("{{index .data \"password\" | base64decode}}"),
            "{text}"
        );
        assert!(advice("a", "pg", "app", "app", None).contains("Nobody leads"));
    }
}
