//! `kubectl holdfast switchover` and `restart`.

use std::time::Duration;

use holdfast_api::HAReplicaSet;
use holdfast_api::replica_set::Phase;
use holdfast_core::failover::MemberName;
use holdfast_core::instance::Command;

use crate::cluster::{Cluster, member};
use crate::failover::record;
use crate::failure::Failure;
use crate::request::{ask, follow, fresh_id};

/// What to move.
#[derive(clap::Args)]
pub struct Options {
    /// The replica set.
    name: String,
    /// The member that is to lead, by name or number. Default: the one that is furthest ahead.
    #[arg(long)]
    to: Option<String>,
    /// Only ask; do not wait until it is done.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait, in seconds.
    #[arg(long, default_value_t = 120)]
    timeout: u64,
}

/// Whom to restart.
#[derive(clap::Args)]
pub struct RestartOptions {
    /// The replica set.
    name: String,
    /// The member, by name or number.
    member: String,
}

/// Checks what can be seen, asks, and follows.
pub async fn run(cluster: &Cluster, options: &Options) -> Result<(), Failure> {
    let name = &options.name;
    let set = cluster.set(name).await?;
    let to = options.to.as_deref().map(|text| member(&set, text)).transpose()?;
    let Some(from) = possible(&set, to.as_deref())? else {
        println!("{} leads already", to.unwrap_or_default());
        return Ok(());
    };
    let term = set.status.as_ref().and_then(|s| s.term).unwrap_or(0);
    let id = fresh_id();
    let command = Command::Switchover {
        id: id.clone(),
        to: to.clone().map(MemberName),
    };
    ask(cluster, name, &command).await?;
    println!(
        "asked {from} to hand over to {}",
        to.as_deref().unwrap_or("the member furthest ahead")
    );
    if options.no_wait {
        return Ok(());
    }
    let moved = |set: &HAReplicaSet| moved(set, &from, term);
    let set = follow(cluster, name, Duration::from_secs(options.timeout), moved).await?;
    let now = set.status.and_then(|s| s.primary).unwrap_or_default();
    if now == from && to.as_ref() != Some(&now) {
        // The record remembers what was carried out. Not everybody may read it: then the terms have to do.
        let done = record(cluster, name)
            .await
            .map_or(true, |(record, _)| record.has_done(&id));
        return if done {
            println!("{from} handed over, and was elected again since; it leads");
            Ok(())
        } else {
            Err(
                Failure::new(format!("{from} was elected again before it could hand over"))
                    .next("the request stands, and is carried out when a member is fit to take over"),
            )
        };
    }
    match to {
        Some(to) if to != now => Err(Failure::new(format!("{now} leads, not {to}")).next(format!(
            "{to} was not the furthest ahead when the primary stopped; ask again once it streams"
        ))),
        _ => {
            println!("{now} leads");
            Ok(())
        }
    }
}

/// Whether somebody was elected since: another member, or the same one after another.
fn moved(set: &HAReplicaSet, from: &str, before: i64) -> bool {
    let Some(status) = &set.status else { return false };
    let serves = !matches!(status.phase, Some(Phase::Electing | Phase::Unavailable) | None);
    let term = status.term.unwrap_or(0);
    let other = status.primary.as_deref().is_some_and(|primary| primary != from);
    let again = status.primary.as_deref() == Some(from) && term >= before.saturating_add(2);
    serves && term > before && (other || again)
}

/// Refuses what the members would refuse after a wait. `None`: nothing to do. Else: who leads now.
fn possible(set: &HAReplicaSet, to: Option<&str>) -> Result<Option<String>, Failure> {
    let status = set.status.clone().unwrap_or_default();
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let Some(primary) = status.primary else {
        return Err(Failure::new(format!(
            "{name} has no primary to hand over: {}",
            status.message.unwrap_or_default()
        ))
        .next(format!(
            "`kubectl holdfast status {name}` says what it waits for; members elect by themselves where they can"
        )));
    };
    if to == Some(primary.as_str()) {
        return Ok(None);
    }
    let ready: Vec<&str> = status
        .members
        .iter()
        .filter(|m| m.ready && m.name != primary)
        .map(|m| m.name.as_str())
        .collect();
    let other = if ready.is_empty() {
        "no other member is".to_owned()
    } else {
        format!("fit: {}", ready.join(", "))
    };
    match to {
        Some(to) if !ready.contains(&to) => Err(Failure::new(format!(
            "{to} is not fit to lead: it does not stream, or is not caught up"
        ))
        .next(other)),
        None if ready.is_empty() => Err(Failure::new("no member is fit to take over")
            .next("wait until a member streams; `kubectl holdfast status` shows it")),
        _ => Ok(Some(primary)),
    }
}

/// Asks one member to restart its engine.
pub async fn restart(cluster: &Cluster, options: &RestartOptions) -> Result<(), Failure> {
    let set = cluster.set(&options.name).await?;
    let who = member(&set, &options.member)?;
    let command = Command::Restart {
        id: fresh_id(),
        member: MemberName(who.clone()),
    };
    ask(cluster, &options.name, &command).await?;
    println!(
        "asked {who} to restart its engine; `kubectl holdfast status {}` shows it",
        options.name
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(primary: Option<&str>, replica_ready: bool) -> HAReplicaSet {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "holdfast.dev/v1alpha1", "kind": "HAReplicaSet",
            "metadata": {"name": "pg", "namespace": "a"},
            "spec": {"engine": {"postgresql": {"image": "postgres:17"}}, "storage": {"size": "1Gi"}},
            "status": {"primary": primary, "members": [
                {"name": "pg-1", "role": "Primary", "state": "Serving", "ready": true},
                {"name": "pg-2", "role": "Replica", "state": "CatchingUp", "ready": replica_ready},
            ]}
        }))
        .unwrap()
    }

    #[test]
    fn done_is_another_primary_or_the_same_one_after_another() {
        let now = |primary: Option<&str>, term: i64, phase: &str| {
            let mut set = set(primary, true);
            let status = set.status.as_mut().unwrap();
            status.term = Some(term);
            status.phase = serde_json::from_value(phase.into()).unwrap();
            moved(&set, "pg-1", 4)
        };
        assert!(!now(Some("pg-1"), 4, "Ready"), "nothing happened yet");
        assert!(now(Some("pg-2"), 5, "Degraded"));
        assert!(
            !now(Some("pg-1"), 5, "Ready"),
            "its engine ended, and it was elected again"
        );
        assert!(now(Some("pg-1"), 6, "Ready"), "it led again after another");
        assert!(!now(Some("pg-2"), 5, "Electing"));
        assert!(!now(None, 6, "Ready"));
    }

    #[test]
    fn only_a_fit_member_can_take_over() {
        assert_eq!(
            possible(&set(Some("pg-1"), true), Some("pg-2")),
            Ok(Some("pg-1".into()))
        );
        assert_eq!(possible(&set(Some("pg-1"), true), Some("pg-1")), Ok(None));
        assert!(possible(&set(Some("pg-1"), false), Some("pg-2")).is_err());
        assert!(possible(&set(Some("pg-1"), false), None).is_err());
        assert!(possible(&set(None, true), None).is_err());
    }

    #[test]
    fn members_go_by_number_too() {
        assert_eq!(member(&set(None, true), "2"), Ok("pg-2".into()));
        assert!(
            member(&set(None, true), "3")
                .unwrap_err()
                .to_string()
                .contains("pg-1, pg-2")
        );
    }
}
