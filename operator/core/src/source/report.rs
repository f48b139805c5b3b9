//! Status, from what is known. No clock but `now`, so that the same facts write the same status and nothing is patched.

use holdfast_api::git_source::{Applied, GitSourceStatus, InventorySummary, Problem};

use super::{MAX_HISTORY, MAX_PROBLEMS, Why};
use crate::{
    plan::Reason,
    status::conditions::{Truth, Wanted, clip, merge},
};

/// Why the newest commit is not in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The commit.
    pub revision: String,
    /// Why.
    pub why: Why,
    /// In detail.
    pub problems: Vec<Problem>,
}

/// Everything that status speaks of.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// `spec.suspend`.
    pub suspended: bool,
    /// The spec, or something it names, cannot be used; or the server could not be asked.
    pub failure: Option<Why>,
    /// The newest commit seen.
    pub fetched: Option<String>,
    /// Whether signatures are asked for.
    pub verify: bool,
    /// The newest commit whose signatures were accepted, and by whom it was signed.
    pub verified: Option<(String, String)>,
    /// The newest commit is not in force.
    pub verdict: Option<Verdict>,
    /// The commit in force.
    pub applied: Option<String>,
    /// What has just come into force.
    pub entry: Option<Applied>,
    /// Counts of what is in force.
    pub inventory: InventorySummary,
    /// `None` while live objects have not been seen.
    pub health: Option<Why>,
    /// Problems with live objects.
    pub live_problems: Vec<Problem>,
}

/// The new status.
pub fn report(old: &GitSourceStatus, facts: &Facts, now: jiff::Timestamp) -> GitSourceStatus {
    let mut problems: Vec<Problem> = facts
        .verdict
        .iter()
        .flat_map(|v| v.problems.clone())
        .chain(facts.live_problems.clone())
        .collect();
    let count = problems.len();
    problems.truncate(MAX_PROBLEMS);
    let mut history = old.history.clone();
    if let Some(entry) = &facts.entry {
        history.insert(0, entry.clone());
        history.truncate(MAX_HISTORY);
    }
    let healthy = matches!(facts.health, Some(Why::Healthy { .. }));
    let in_force = facts.applied.clone();
    let settled = facts.verdict.is_none() && facts.failure.is_none();
    GitSourceStatus {
        observed_generation: facts.generation,
        fetched_revision: facts.fetched.clone(),
        verified_revision: if facts.verify {
            facts.verified.as_ref().map(|(revision, _)| revision.clone())
        } else {
            None
        },
        applied_revision: in_force.clone(),
        last_good_revision: if healthy && settled {
            in_force
        } else {
            old.last_good_revision.clone()
        },
        conditions: merge(&old.conditions, &conditions(old, facts), facts.generation, now),
        problems,
        problem_count: u32::try_from(count).ok().filter(|n| *n > 0),
        inventory: Some(facts.inventory.clone()),
        history,
    }
}

fn conditions(old: &GitSourceStatus, facts: &Facts) -> Vec<Wanted> {
    if facts.suspended {
        return vec![Wanted::because("Ready", Truth::Unknown, &Why::Suspended)];
    }
    let blocker = facts.failure.as_ref().or(facts.verdict.as_ref().map(|v| &v.why));
    let mut wanted = Vec::new();

    // Ready, Reconciling, Stalled: for tools.
    match (blocker, &facts.applied, &facts.health) {
        (Some(why), _, _) => {
            let mut ready = Wanted::because("Ready", Truth::False, why);
            if let Some(applied) = &facts.applied {
                ready.message = clip(format!("{why}; {} stays in force", super::why::short(applied)), 1024);
            }
            wanted.push(ready);
            let kind = if why.needs_a_person() { "Stalled" } else { "Reconciling" };
            wanted.push(Wanted::because(kind, Truth::True, why));
        }
        (None, Some(revision), Some(health @ Why::Healthy { objects })) => {
            let mut ready = Wanted::because("Ready", Truth::True, health);
            ready.message = format!(
                "{} is in force: {objects} objects, all healthy",
                super::why::short(revision)
            );
            wanted.push(ready);
        }
        (None, Some(_), Some(health)) => {
            wanted.push(Wanted::because("Ready", Truth::False, health));
            wanted.push(Wanted::because("Reconciling", Truth::True, health));
        }
        (None, Some(revision), None) => {
            let seen_before = old
                .conditions
                .iter()
                .find(|c| c.type_ == "Ready")
                .map(|c| c.status.clone());
            let why = Why::NothingNew {
                revision: revision.clone(),
            };
            // After a restart nothing is known of live objects for a moment; what was true stays so until seen otherwise.
            wanted.push(Wanted::because(
                "Ready",
                if seen_before.as_deref() == Some("True") {
                    Truth::True
                } else {
                    Truth::Unknown
                },
                &why,
            ));
        }
        (None, None, _) => {
            let why = Why::Applying {
                revision: facts.fetched.clone().unwrap_or_default(),
            };
            wanted.push(Wanted::because("Ready", Truth::False, &why));
            wanted.push(Wanted::because("Reconciling", Truth::True, &why));
        }
    }

    // Fetched, Verified, Applied, Healthy: for people.
    match (&facts.failure, &facts.fetched) {
        (Some(why), _) => wanted.push(Wanted::because("Fetched", Truth::False, why)),
        (None, Some(revision)) => wanted.push(Wanted::because(
            "Fetched",
            Truth::True,
            &Why::Fetched {
                revision: revision.clone(),
            },
        )),
        (None, None) => {}
    }
    match (&facts.verdict, &facts.verified) {
        (Some(v), _) if is_trust(&v.why) => wanted.push(Wanted::because("Verified", Truth::False, &v.why)),
        _ if !facts.verify => wanted.push(Wanted::because("Verified", Truth::Unknown, &Why::NotVerified)),
        (_, Some((revision, signer))) => wanted.push(Wanted::because(
            "Verified",
            Truth::True,
            &Why::Verified {
                revision: revision.clone(),
                signer: signer.clone(),
            },
        )),
        (_, None) => {}
    }
    match (&facts.verdict, &facts.applied) {
        (Some(v), _) if !is_trust(&v.why) => wanted.push(Wanted::because("Applied", Truth::False, &v.why)),
        (_, Some(revision)) => {
            let mut applied = Wanted::because(
                "Applied",
                Truth::True,
                &Why::NothingNew {
                    revision: revision.clone(),
                },
            );
            applied.reason = "InForce";
            applied.message = format!("{} is in force", super::why::short(revision));
            wanted.push(applied);
        }
        (_, None) => {}
    }
    match &facts.health {
        Some(why) => wanted.push(Wanted::because("Healthy", matches!(why, Why::Healthy { .. }), why)),
        None => {
            if let Some(before) = old.conditions.iter().find(|c| c.type_ == "Healthy") {
                let truth = match before.status.as_str() {
                    "True" => Truth::True,
                    "False" => Truth::False,
                    _ => Truth::Unknown,
                };
                let mut kept = Wanted::because("Healthy", truth, &Why::Healthy { objects: 0 });
                kept.message.clone_from(&before.message);
                kept.reason = if truth == Truth::True {
                    "Healthy"
                } else {
                    Why::WaitsForHealth {
                        unhealthy: 0,
                        first: String::new(),
                    }
                    .reason()
                };
                wanted.push(kept);
            }
        }
    }
    wanted
}

fn is_trust(why: &Why) -> bool {
    matches!(
        why,
        Why::Unsigned { .. } | Why::SignerUnknown { .. } | Why::SignatureBroken { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            generation: Some(1),
            fetched: Some("b".repeat(40)),
            applied: Some("b".repeat(40)),
            health: Some(Why::Healthy { objects: 3 }),
            ..Facts::default()
        }
    }

    #[test]
    fn a_refused_commit_leaves_the_last_good_one_in_force_and_says_so() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let good = report(&GitSourceStatus::default(), &facts(), now);
        assert_eq!(good.last_good_revision, good.applied_revision);
        let refused = Facts {
            fetched: Some("c".repeat(40)),
            verdict: Some(Verdict {
                revision: "c".repeat(40),
                why: Why::Invalid {
                    revision: "c".repeat(40),
                    problems: 30,
                },
                problems: vec![Problem::default(); 30],
            }),
            ..facts()
        };
        let status = report(&good, &refused, now);
        let ready = status.conditions.iter().find(|c| c.type_ == "Ready").unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "Invalid"));
        assert!(
            ready.message.contains("bbbbbbbbbbbb stays in force"),
            "{}",
            ready.message
        );
        assert_eq!(status.last_good_revision, good.applied_revision);
        assert_eq!((status.problems.len(), status.problem_count), (20, Some(30)));
        assert!(
            status
                .conditions
                .iter()
                .any(|c| c.type_ == "Stalled" && c.status == "True")
        );
    }

    #[test]
    fn the_same_facts_write_the_same_status() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let first = report(&GitSourceStatus::default(), &facts(), now);
        let again = report(&first, &facts(), now + jiff::SignedDuration::from_hours(1));
        assert_eq!(first, again);
    }
}
