//! What people change beside Git, and what belongs to others.

use std::time::{Duration, Instant};

use holdfast_e2e::house::wait_for;
use holdfast_e2e::source::{condition, text};
use holdfast_e2e::{Repo, Source};
use serde_json::json;

use crate::support::{house, in_namespace};

#[test]
#[ignore = "needs root and a bed: make test"]
fn drift_is_put_back_and_told_with_field_and_manager() {
    in_namespace("drift", |house, ns| {
        let repo = Repo::new(house, "drift").unwrap();
        let commit = repo
            .config_map("a", "git")
            .unwrap()
            .config_map("b", "git")
            .unwrap()
            .push("Two")
            .unwrap();
        let source = Source::over_ssh(house, ns, &repo, json!({"interval": "1h"})).unwrap();
        source.wait_applied(&commit).unwrap();
        source.wait_ready_says("Healthy").unwrap();
        let edit = r#"{"data":{"value":"edited","more":"of a person"}}"#;
        source
            .kubectl(&[
                "patch",
                "configmap",
                "a",
                "--type=merge",
                "--field-manager=kubectl-edit",
                "-p",
                edit,
            ])
            .unwrap();
        source.wait_value("a", "git").unwrap();
        let told = |needle: &[&str]| {
            source
                .wait("an Event tells of it", |_| {
                    let events = source.events().ok()?;
                    events
                        .into_iter()
                        .find(|(reason, note)| reason == "DriftPutBack" && needle.iter().all(|n| note.contains(n)))
                })
                .unwrap()
        };
        told(&[&format!("ConfigMap {ns}/a"), "data.value", "kubectl-edit"]);
        // What Git says nothing about is a person's own.
        let object = house.get(ns, "configmap/a").unwrap().unwrap();
        assert_eq!(object["data"]["more"], "of a person");

        source.kubectl(&["delete", "configmap", "b"]).unwrap();
        source.wait_value("b", "git").unwrap();
        told(&[&format!("ConfigMap {ns}/b"), "deleted"]);
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn what_somebody_else_owns_is_shown_and_not_taken() {
    in_namespace("owned", |house, ns| {
        let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": ns}, "data": {"value": "theirs"}});
        let file = house.bed.kubeconfig().unwrap().with_file_name("theirs.json");
        std::fs::write(&file, theirs.to_string()).unwrap();
        let file = file.display().to_string();
        house
            .kubectl(&["apply", "--server-side", "--field-manager=billing-team", "-f", &file])
            .unwrap();
        let repo = Repo::new(house, "owned").unwrap();
        let commit = repo
            .config_map("a", "ours")
            .unwrap()
            .config_map("b", "ours")
            .unwrap()
            .push("Ours")
            .unwrap();
        let source = Source::over_ssh(house, ns, &repo, json!({})).unwrap();
        let status = source.wait_refused(&commit, "OwnedByOthers").unwrap();
        let problem = &status["problems"][0];
        assert_eq!(
            (text(problem, "/file"), problem["line"].as_u64()),
            ("a.yaml", Some(6)),
            "{status:#}"
        );
        assert_eq!(text(problem, "/field"), "data.value");
        assert!(text(problem, "/message").contains("billing-team"), "{status:#}");
        assert_eq!(source.value("a").unwrap(), "theirs");
        assert_eq!(source.value("b").unwrap(), "", "nothing of the commit is applied");

        // Another source is somebody else too, even for the same value.
        let second = Source {
            name: "second".into(),
            ..source.clone()
        };
        let mine = repo.remove("a.yaml").unwrap().push("Only b").unwrap();
        source.wait_applied(&mine).unwrap();
        let spec = house.get(ns, "gitsource/git").unwrap().unwrap()["spec"].clone();
        second.apply(&spec).unwrap();
        let status = second.wait_refused(&mine, "OwnedByOthers").unwrap();
        assert!(
            text(&status["problems"][0], "/message").contains(&format!("holdfast-source:{ns}/git")),
            "{status:#}"
        );
        assert_eq!(condition(&source.status().unwrap(), "Ready").status, "True");
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_pause_leaves_one_object_or_a_whole_source_alone() {
    in_namespace("pause", |house, ns| {
        let repo = Repo::new(house, "pause").unwrap();
        let commit = repo
            .config_map("a", "one")
            .unwrap()
            .config_map("b", "one")
            .unwrap()
            .push("One")
            .unwrap();
        let source = Source::over_ssh(house, ns, &repo, json!({})).unwrap();
        source.wait_applied(&commit).unwrap();

        // One object: neither drift nor a commit touches it; the rest of the commit goes on.
        source
            .kubectl(&["annotate", "configmap", "a", "holdfast.dev/reconcile=disabled"])
            .unwrap();
        let edit = |name: &str, value: &str| {
            let patch = json!({"data": {"value": value}}).to_string();
            source
                .kubectl(&["patch", "configmap", name, "--type=merge", "-p", &patch])
                .unwrap();
        };
        edit("a", "by hand");
        let second = repo
            .config_map("a", "two")
            .unwrap()
            .config_map("b", "two")
            .unwrap()
            .push("Two")
            .unwrap();
        let status = source.wait_applied(&second).unwrap();
        assert_eq!(source.value("b").unwrap(), "two");
        assert_eq!(source.value("a").unwrap(), "by hand");
        assert_eq!(status["inventory"]["paused"], 1, "{status:#}");
        source
            .kubectl(&["annotate", "configmap", "a", "holdfast.dev/reconcile-"])
            .unwrap();
        source.wait_value("a", "two").unwrap();

        // The whole source.
        source.patch(json!({"suspend": true})).unwrap();
        source.wait_ready_says("Suspended").unwrap();
        edit("b", "by hand");
        let third = repo
            .config_map("a", "three")
            .unwrap()
            .config_map("b", "three")
            .unwrap()
            .push("Three")
            .unwrap();
        std::thread::sleep(Duration::from_secs(4));
        assert_eq!(
            (source.value("a").unwrap().as_str(), source.value("b").unwrap().as_str()),
            ("two", "by hand")
        );
        source.patch(json!({"suspend": false})).unwrap();
        source.wait_applied(&third).unwrap();
        assert_eq!(
            (source.value("a").unwrap().as_str(), source.value("b").unwrap().as_str()),
            ("three", "three")
        );
    });
}

/// Polls cost the API server nothing: its own audit log has no request of the operator, in its own name or as the source's
/// account, while the Git server is asked every second.
#[test]
#[ignore = "needs root and a bed: make test"]
fn a_source_where_nothing_moves_asks_the_api_server_nothing() {
    const WATCHED: Duration = Duration::from_secs(12);
    const POLLS: usize = 6;
    /// A poll is a handshake of ssh, which takes long on a busy machine: longer than that nobody waits for them.
    const PATIENCE: Duration = Duration::from_secs(60);
    in_namespace("quiet", |house, ns| {
        let repo = Repo::new(house, "quiet").unwrap();
        for n in 0..50 {
            repo.config_map(&format!("c{n}"), "here").unwrap();
        }
        let commit = repo.push("Fifty").unwrap();
        let source = Source::over_ssh(house, ns, &repo, json!({})).unwrap();
        let mark = house.mark_requests().unwrap();
        source.wait_applied(&commit).unwrap();
        source.wait_ready_says("Healthy").unwrap();
        std::thread::sleep(Duration::from_secs(3));
        let at_first = about(ns, mark).len();
        assert!(
            at_first >= 100,
            "the log misses requests: {at_first} for fifty objects tried and applied"
        );

        let polls = |house: &holdfast_e2e::House| {
            let log = std::fs::read_to_string(house.bed.log("git-ssh").unwrap()).unwrap();
            log.matches("Accepted publickey").count()
        };
        let watch = || {
            let (mark, before, runs) = (
                house.mark_requests().unwrap(),
                polls(house),
                house.operator_runs().unwrap(),
            );
            let start = Instant::now();
            std::thread::sleep(WATCHED);
            while polls(house) < before + POLLS && start.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(250));
            }
            let (asked, polled) = (about(ns, mark), polls(house) - before);
            let requests = asked.len();
            eprintln!(
                "  {polled} polls in {} s, {requests} requests to the API server",
                start.elapsed().as_secs()
            );
            (asked, polled, runs == house.operator_runs().unwrap())
        };
        let mut seen = watch();
        for _ in 0..2 {
            if seen.2 {
                break;
            }
            // Whoever leads anew reads everything once: no poll of a source where nothing moves.
            eprintln!("  another operator leads, or the same one anew: watched again");
            source.wait_ready_says("Healthy").unwrap();
            seen = watch();
        }
        let (asked, polled, one_reign) = seen;
        assert!(one_reign, "operators began anew in each of three times");
        assert!(polled >= POLLS, "{polled} polls");
        assert_eq!(asked, []);

        // It was not asleep.
        let next = repo.config_map("c7", "changed").unwrap().push("One of fifty").unwrap();
        let mark = house.mark_requests().unwrap();
        source.wait_applied(&next).unwrap();
        let asked = about(ns, mark);
        eprintln!("  one of fifty objects changed: {} requests", asked.len());
        assert!(asked.len() <= 5, "{asked:#?}");
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_deleted_source_leaves_its_objects_and_watches_nothing_any_more() {
    in_namespace("deleted-source", |house, ns| {
        let repo = Repo::new(house, "deleted-source").unwrap();
        let commit = repo.config_map("a", "one").unwrap().push("One").unwrap();
        let source = Source::over_ssh(house, ns, &repo, json!({})).unwrap();
        source.wait_applied(&commit).unwrap();
        source.wait_ready_says("Healthy").unwrap();
        let mark = house.mark_requests().unwrap();
        source.kubectl(&["delete", "gitsource", "git"]).unwrap();
        // By itself a watch goes on for minutes.
        wait_for("its watch ends", Duration::from_secs(20), || {
            let ended = house.ended_watches_since(mark)?;
            let ours = ended.iter().any(|w| w.acts_as.contains(&format!(":{ns}:")));
            Ok(if ours { Ok(()) } else { Err(format!("{ended:?}")) })
        })
        .unwrap();
        assert_eq!(source.value("a").unwrap(), "one");
    });
}

fn about(namespace: &str, mark: holdfast_e2e::requests::Mark) -> Vec<holdfast_e2e::requests::Request> {
    let mut requests = house().requests_since(mark).unwrap();
    let (path, account) = (format!("/namespaces/{namespace}/"), format!(":{namespace}:"));
    requests.retain(|r| r.uri.contains(&path) || r.acts_as.contains(&account));
    requests
}
