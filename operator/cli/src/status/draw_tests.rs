use super::super::gather::{RecordLine, ServiceLine};
use super::*;

fn set(status: serde_json::Value) -> HAReplicaSet {
    serde_json::from_value(serde_json::json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "HAReplicaSet",
        "metadata": {"name": "registry", "namespace": "civil", "generation": 2},
        "spec": {"engine": {"postgresql": {"image": "postgres:17.6"}}, "storage": {"size": "1Gi"}},
        "status": status
    }))
    .unwrap()
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> serde_json::Value {
    serde_json::json!({"type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

fn service(purpose: &str, name: &str, behind: &[&str]) -> ServiceLine {
    ServiceLine {
        purpose: purpose.into(),
        address: format!("{name}.civil.svc:5432"),
        behind: behind.iter().map(|m| (*m).to_owned()).collect(),
    }
}

fn drawn(picture: &Picture) -> String {
    draw(picture, Paint(false))
}

#[test]
fn a_healthy_set() {
    let member = |name: &str, role: &str, state: &str, lag: Option<i64>, node: &str| {
        serde_json::json!({"name": name, "role": role, "state": state, "ready": true, "lagBytes": lag, "node": node,
            "lsn": "0/5000060", "version": "17.6", "message": "follows registry-2 (term 4)"})
    };
    let picture = Picture {
        record: Some(RecordLine {
            term: 4,
            phase: failover::Phase::Leading,
            leader: "registry-2".into(),
        }),
        set: set(serde_json::json!({
            "observedGeneration": 2, "phase": "Ready", "message": "every member is as wanted", "primary": "registry-2",
            "term": 4, "ready": "3/3", "rule": "the primary and any 1 of registry-1, registry-3",
            "image": "postgres:17.6@sha256:9f3c",
            "members": [
                member("registry-1", "Replica", "Streaming", Some(0), "node-a"),
                member("registry-2", "Primary", "Serving", None, "node-b"),
                member("registry-3", "Replica", "Streaming", Some(35_000_000), "node-c"),
            ],
            "conditions": [condition("Ready", "True", "AsWanted", "every member is as wanted"),
                condition("Stalled", "False", "AsWanted", "every member is as wanted"),
                condition("Serving", "True", "PrimaryServes", "the primary accepts writes")],
        })),
        services: Some(vec![
            service("writes", "registry-rw", &["registry-2"]),
            service("reads", "registry-ro", &["registry-1", "registry-3"]),
        ]),
        events: Some(vec![EventLine {
            at: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            warning: false,
            about: "registry".into(),
            reason: "AsWanted".into(),
            message: "every member is as wanted".into(),
        }]),
        now: "2026-01-01T00:03:00Z".parse().unwrap(),
    };
    let expected = "\
civil/registry  Ready  3/3 members fit
  every member is as wanted
  primary              registry-2
  term                 4
  a commit is held by  the primary and any 1 of registry-1, registry-3
  image                postgres:17.6@sha256:9f3c

  MEMBER           ROLE     STATE      LAG       LSN        NODE    VERSION
  ● registry-2     Primary  Serving    -         0/5000060  node-b  17.6
  ├─ ○ registry-1  Replica  Streaming  0 B       0/5000060  node-a  17.6
  └─ ○ registry-3  Replica  Streaming  33.3 MiB  0/5000060  node-c  17.6

Connect to
  writes       registry-rw.civil.svc:5432  → registry-2
  reads        registry-ro.civil.svc:5432  → registry-1, registry-3
  credentials  Secret registry-app         `kubectl holdfast connect registry` shows how

Lately
  3m  registry  AsWanted  every member is as wanted
";
    assert_eq!(drawn(&picture), expected);
}

#[test]
fn without_a_primary_nobody_is_drawn_on_top_and_the_reason_is_said_once() {
    let picture = Picture {
        record: None,
        set: set(serde_json::json!({
            "observedGeneration": 1, "phase": "Unavailable", "message": "1 of 3 members are fit; waits", "term": 5,
            "ready": "0/3",
            "members": [
                {"name": "registry-1", "role": "Unknown", "state": "Absent", "ready": false, "message": "no pod"},
                {"name": "registry-2", "role": "Sealed", "state": "Sealed", "ready": false,
                 "message": "no member can prove it", "pendingRestart": ["shared_buffers"]},
            ],
            "conditions": [condition("Ready", "False", "WaitsForMembers", "1 of 3 members are fit; waits"),
                condition("Stalled", "True", "WaitsForMembers", "1 of 3 members are fit; waits"),
                condition("Serving", "False", "NoPrimary", "no primary accepts writes")],
        })),
        services: Some(vec![service("writes", "registry-rw", &[])]),
        events: None,
        now: Timestamp::UNIX_EPOCH,
    };
    let text = drawn(&picture);
    assert!(text.contains("the spec was changed after this was seen"), "{text}");
    assert!(text.contains("primary  nobody"), "{text}");
    assert!(!text.contains("├─") && !text.contains("└─"), "{text}");
    assert!(
        text.contains("✗ registry-1  Unknown  Absent") && text.contains("no pod"),
        "{text}"
    );
    assert!(text.contains("Stalled=True") && !text.contains("Ready=False"), "{text}");
    assert!(text.contains("→ nobody") && text.contains("shared_buffers"), "{text}");
}

#[test]
fn a_set_that_no_operator_saw_says_so() {
    let mut unseen = set(serde_json::Value::Null);
    unseen.status = None;
    let picture = Picture {
        record: None,
        set: unseen,
        services: None,
        events: None,
        now: Timestamp::UNIX_EPOCH,
    };
    assert!(drawn(&picture).contains("the operator has not seen it yet"));
}

#[test]
fn colours_only_where_asked() {
    assert_eq!(Paint(false).text(Tone::Bad, "x"), "x");
    assert_eq!(Paint(true).text(Tone::Bad, "x"), "\u{1b}[31mx\u{1b}[0m");
}

#[test]
fn a_status_that_an_election_has_overtaken_is_called_old() {
    let picture = |term, phase| Picture {
        record: Some(RecordLine {
            term,
            phase,
            leader: "registry-3".into(),
        }),
        set: set(serde_json::json!({"observedGeneration": 2, "phase": "Ready", "primary": "registry-2", "term": 4})),
        services: None,
        events: None,
        now: "2026-01-01T00:03:00Z".parse().unwrap(),
    };
    for (phase, said) in [
        (failover::Phase::Leading, "registry-3 leads term 5"),
        (
            failover::Phase::Sealing,
            "an election for term 5 is open and nobody leads yet",
        ),
        (
            failover::Phase::Promoting,
            "registry-3 was elected for term 5 and is being promoted",
        ),
    ] {
        let old = drawn(&picture(5, phase));
        assert!(old.contains(&format!("by the authority record {said}, and")), "{old}");
    }
    assert!(!drawn(&picture(4, failover::Phase::Leading)).contains("authority record"));
}
