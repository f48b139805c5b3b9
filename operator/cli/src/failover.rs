//! `kubectl holdfast failover --accept-data-loss`: the last resort, made hard to reach by accident.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use holdfast_api::HAReplicaSet;
use holdfast_core::failover::proof::proves;
use holdfast_core::failover::{DirId, Phase, Record, Seal};
use holdfast_core::instance::{Command, Version};
use holdfast_wire::{MemberStatus, Names, RECORD_ANNOTATION, SET_LABEL, STATUS_ANNOTATION, STATUS_EVERY};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::request::{ask, follow, fresh_id};

/// What to give up.
#[derive(clap::Args)]
pub struct Options {
    /// The replica set.
    name: String,
    /// Without this nothing is done: members fail over by themselves wherever that loses nothing.
    #[arg(long)]
    accept_data_loss: bool,
    /// How long to wait, in seconds.
    #[arg(long, default_value_t = 120)]
    timeout: u64,
}

/// Shows what would be lost, asks for the exact words, and follows the election.
pub async fn run(cluster: &Cluster, options: &Options) -> Result<(), Failure> {
    let name = &options.name;
    if !options.accept_data_loss {
        return Err(Failure::new("members fail over by themselves wherever no acknowledged commit is lost").next(format!(
            "to move a healthy primary: `kubectl holdfast switchover {name}`; to elect although commits may be lost: add --accept-data-loss"
        )));
    }
    // Before the members' words: if anybody leads after this, the request is void.
    let (record, seen) = record(cluster, name).await?;
    let members = members(cluster, name).await?;
    let loss = Loss::assess(name, &record, &members)?;
    let words = format!("lose commits of {name}");
    println!("{}\n\nTo go on, type exactly: {words}", loss.text());
    print!("> ");
    let _ = std::io::stdout().flush();
    let mut typed = String::new();
    let _ = std::io::stdin().read_line(&mut typed);
    if typed.trim_end_matches(['\r', '\n']) != words {
        return Err(Failure::new("these were not the words; nothing was done"));
    }
    let id = fresh_id();
    let command = Command::FailoverAcceptingLoss {
        id: id.clone(),
        seen: seen.clone(),
        without: loss.without.clone(),
    };
    ask(cluster, name, &command).await?;
    println!("asked the members to elect without {}", loss.names());
    let patience = Duration::from_secs(options.timeout);
    let done = |set: &HAReplicaSet| elected(&record, set);
    let set = tokio::select! {
        set = follow(cluster, name, patience, done) => set?,
        failure = overtaken(cluster, name, &seen, &id) => return Err(failure),
    };
    println!("{} leads", set.status.and_then(|s| s.primary).unwrap_or_default());
    println!("a member that comes back with commits of its own sets its old directory aside on its volume (aside/)");
    Ok(())
}

/// Whether somebody was elected after `record` was read. While it says that somebody leads, that is the one who is gone: only a
/// later term has another. An election that was open already is won in its own term.
fn elected(record: &Record, set: &HAReplicaSet) -> bool {
    let Some(status) = &set.status else { return false };
    let before = i64::from(record.term.0);
    let new = |term: i64| match record.phase {
        Phase::Leading => term > before,
        Phase::Sealing | Phase::Promoting => term >= before,
    };
    status.primary.is_some() && status.term.is_some_and(new)
}

/// Ends once the request is void.
async fn overtaken(cluster: &Cluster, name: &str, seen: &Version, id: &str) -> Failure {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if let Ok((now, version)) = record(cluster, name).await
            && void(&now, &version, seen, id)
        {
            return Failure::new("somebody has written the record since you looked: the request is void").next(
                format!(
                    "look again with `kubectl holdfast status {name} -n {}`",
                    cluster.namespace
                ),
            );
        }
    }
}

/// Whether the record is another than the one that a person has `seen`, and not because the request was carried out.
fn void(now: &Record, version: &Version, seen: &Version, id: &str) -> bool {
    version != seen && !now.has_done(id)
}

/// The authority record, which the members keep, and its version.
pub(crate) async fn record(cluster: &Cluster, name: &str) -> Result<(Record, Version), Failure> {
    let api: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let what = format!(
        "Lease {}/{} (the authority record)",
        cluster.namespace,
        Names(name).lease()
    );
    let lease = api.get(&Names(name).lease()).await.map_err(|e| Failure::of(&what, e))?;
    let json = lease.annotations().get(RECORD_ANNOTATION).cloned().unwrap_or_default();
    let record = serde_json::from_str(&json).map_err(|e| {
        Failure::new(format!("{what} cannot be read: {e}"))
            .next("somebody wrote into it; restore the annotation holdfast.dev/record from an audit log")
    })?;
    Ok((record, Version(lease.resource_version().unwrap_or_default())))
}

async fn members(cluster: &Cluster, name: &str) -> Result<Vec<(String, MemberStatus)>, Failure> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let ours = ListParams::default().labels(&format!("{SET_LABEL}={name}"));
    let pods = api.list(&ours).await.map_err(|e| Failure::of("Pods", e))?;
    let read = |pod: Pod| {
        let status: MemberStatus = serde_json::from_str(pod.annotations().get(STATUS_ANNOTATION)?).ok()?;
        Some((pod.name_any(), status))
    };
    Ok(pods.items.into_iter().filter_map(read).collect())
}

/// What an election without proof would mean.
#[derive(Debug)]
struct Loss {
    without: Vec<DirId>,
    /// The directories given up, by member where that is known.
    given_up: Vec<String>,
    best: String,
    bound: String,
}

/// One whose status is this much older than the newest is not there.
const SILENT: Duration = STATUS_EVERY.saturating_mul(3);

impl Loss {
    /// In this order: there must have been a leader; a member must say that proof is impossible; what is given up are the
    /// directories of the rule that nobody who is there holds; and by that, who is there could elect, which it could not
    /// before. Otherwise somebody who is gone is still taken for present.
    fn assess(name: &str, record: &Record, members: &[(String, MemberStatus)]) -> Result<Loss, Failure> {
        let Some(leader) = &record.rule.leader else {
            return Err(
                Failure::new(format!("{name} never had a primary: there is no commit to lose")).next(format!(
                    "`kubectl holdfast status {name}` says what the first member waits for"
                )),
            );
        };
        let time = |s: &MemberStatus| s.at.parse::<jiff::Timestamp>().unwrap_or_default();
        let newest = members.iter().map(|(_, s)| time(s)).max().unwrap_or_default();
        let silent = |s: &MemberStatus| newest.duration_since(time(s)).unsigned_abs();
        let present: Vec<&(String, MemberStatus)> = members.iter().filter(|(_, s)| silent(s) <= SILENT).collect();
        if !present.iter().any(|(_, s)| s.reason == "ProofImpossible") {
            return Err(
                Failure::new("no member says that an election without loss is impossible").next(format!(
                    "members elect by themselves; `kubectl holdfast status {name}` says what they wait for"
                )),
            );
        }
        let held: BTreeSet<&DirId> = present.iter().filter_map(|(_, s)| s.dir.as_ref()).collect();
        let rule = record.rule.standbys.iter().chain([leader]);
        let without: Vec<DirId> = rule
            .filter(|d| !held.contains(d))
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        // Nobody is known to have led: a leader's directory that proves would have proved already.
        let seal = |s: &MemberStatus| {
            let (dir, position) = (s.dir.clone()?, s.position);
            Some(Seal {
                dir,
                position,
                led: None,
            })
        };
        let seals: Vec<Seal> = present.iter().filter_map(|(_, s)| seal(s)).collect();
        let by_the_loss = proves(&record.rule, &seals, &without) && !proves(&record.rule, &seals, &[]);
        if without.is_empty() || !by_the_loss {
            let heard: Vec<String> = present
                .iter()
                .map(|(m, s)| format!("{m} was last heard {} s ago", silent(s).as_secs()))
                .collect();
            return Err(Failure::new(format!(
                "it is too early to say who is gone; taken as present: {}",
                heard.join(", ")
            ))
            .next(format!(
                "one that is gone is known to be so after {} s: ask again then; `kubectl holdfast status {name}` says whose return would do instead",
                SILENT.as_secs()
            )));
        }
        let owner = |dir: &DirId| members.iter().find(|(_, s)| s.dir.as_ref() == Some(dir));
        let given_up = without
            .iter()
            .map(|d| owner(d).map_or_else(|| d.0.clone(), |(m, _)| m.clone()))
            .collect();
        let Some((best, status)) = present
            .iter()
            .filter(|(_, s)| s.dir.is_some())
            .max_by_key(|(_, s)| s.position)
        else {
            return Err(
                Failure::new("no member that is there has data").next("bring one back, or restore from a backup")
            );
        };
        let far = without.iter().filter_map(owner).max_by_key(|(_, s)| s.position);
        let bound = match far {
            Some((gone, last)) => format!(
                "{gone} last said that its log ends at {} (term {}), {}: at least {} bytes that {best} lacks, and whatever was acknowledged after that",
                last.position.lsn,
                last.position.term,
                last.at,
                last.position.lsn.0.saturating_sub(status.position.lsn.0),
            ),
            None => "none of the missing members left a word: there is no bound to what is lost".to_owned(),
        };
        Ok(Loss {
            bound,
            best: format!(
                "{best}, whose log ends at {} (term {})",
                status.position.lsn, status.position.term
            ),
            without,
            given_up,
        })
    }

    fn names(&self) -> String {
        self.given_up.join(", ")
    }

    fn text(&self) -> String {
        format!(
            "No member that is there can prove that it holds every acknowledged commit.\n\
             Would be elected: {}\n\
             Given up:         {}\n\
             Bound:            {}\n\
             If one of those can be brought back, do that instead: nothing is lost then.",
            self.best,
            self.names(),
            self.bound
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        serde_json::from_value(serde_json::json!({
            "term": 4, "phase": "Sealing", "leader": "pg-2",
            "rule": {"leader": "da", "standbys": ["db", "dc"], "quorum": 1}
        }))
        .unwrap()
    }

    fn member(name: &str, dir: &str, at: &str, reason: &str, lsn: &str) -> (String, MemberStatus) {
        let status = serde_json::json!({
            "wire": 1, "agent": "0.1.0", "podUid": "u", "at": at, "specGeneration": 1, "role": "Sealed", "state": "Sealed",
            "reason": reason, "message": "", "term": 4, "dir": dir, "position": {"term": 3, "lsn": lsn},
            "replayed": lsn, "lagBytes": null, "leader": null, "engineVersion": null, "systemIdentifier": null,
            "certificateExpires": null, "volumeFreeBytes": null, "volumeBytes": null
        });
        (name.into(), serde_json::from_value(status).unwrap())
    }

    #[test]
    fn gives_up_who_is_not_there_and_says_the_bound() {
        let members = [
            member("pg-1", "da", "2026-01-01T00:00:00Z", "Leading", "0/5000"),
            member("pg-2", "db", "2026-01-01T00:05:00Z", "ProofImpossible", "0/4000"),
        ];
        let loss = Loss::assess("pg", &record(), &members).unwrap();
        assert_eq!(loss.without, [DirId("da".into()), DirId("dc".into())]);
        assert_eq!(loss.names(), "pg-1, dc");
        assert!(
            loss.text().contains("at least 4096 bytes that pg-2 lacks"),
            "{}",
            loss.text()
        );
    }

    #[test]
    fn refuses_while_one_who_may_be_gone_is_taken_as_present() {
        let dead = member("pg-1", "da", "2026-01-01T00:04:20Z", "Leading", "0/5000");
        let alive = member("pg-2", "db", "2026-01-01T00:05:00Z", "ProofImpossible", "0/4000");
        let text = Loss::assess("pg", &record(), &[dead.clone(), alive.clone()])
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("pg-1 was last heard 40 s ago, pg-2 was last heard 0 s ago"),
            "{text}"
        );
        assert!(text.contains("after 90 s: ask again then"), "{text}");
        let third = member("pg-3", "dc", "2026-01-01T00:04:20Z", "Sealed", "0/4000");
        assert!(
            Loss::assess("pg", &record(), &[alive.clone(), third.clone()]).is_err(),
            "two standbys would prove without any loss"
        );
        assert!(
            Loss::assess("pg", &record(), &[dead, alive, third]).is_err(),
            "nobody is missing"
        );
    }

    #[test]
    fn the_dead_leader_of_the_term_that_was_read_is_not_elected() {
        let set = |primary: Option<&str>, term: i64| -> HAReplicaSet {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "holdfast.dev/v1alpha1", "kind": "HAReplicaSet",
                "metadata": {"name": "pg", "namespace": "a"},
                "spec": {"engine": {"postgresql": {"image": "postgres:17"}}, "storage": {"size": "1Gi"}},
                "status": {"primary": primary, "term": term}
            }))
            .unwrap()
        };
        let leading = Record {
            phase: Phase::Leading,
            ..record()
        };
        assert!(!elected(&leading, &set(Some("pg-1"), 4)));
        assert!(elected(&leading, &set(Some("pg-2"), 5)));
        assert!(elected(&record(), &set(Some("pg-2"), 4)), "the open election was won");
        assert!(!elected(&record(), &set(Some("pg-1"), 3)) && !elected(&record(), &set(None, 5)));
    }

    #[test]
    fn a_request_is_void_once_the_record_was_written_for_another_reason() {
        let (seen, later) = (Version("7".into()), Version("8".into()));
        let carried_out = Record {
            last_command: Some("id".into()),
            ..record()
        };
        assert!(!void(&record(), &seen, &seen, "id"));
        assert!(!void(&carried_out, &later, &seen, "id"));
        assert!(void(&record(), &later, &seen, "id"));
    }

    #[test]
    fn refuses_while_members_can_still_elect_by_themselves() {
        let members = [member("pg-2", "db", "2026-01-01T00:05:00Z", "Sealed", "0/4000")];
        assert!(Loss::assess("pg", &record(), &members).is_err());
        let stale = [
            member("pg-2", "db", "2026-01-01T00:00:00Z", "ProofImpossible", "0/4000"),
            member("pg-3", "dc", "2026-01-01T00:05:00Z", "Following", "0/4000"),
        ];
        assert!(
            Loss::assess("pg", &record(), &stale).is_err(),
            "an old word counts for nothing"
        );
    }
}
