//! What becomes of a commit, good or bad.

use std::time::{Duration, Instant};

use holdfast_e2e::source::{condition, grant, text};
use holdfast_e2e::{Repo, Source};
use serde_json::json;

use crate::support::in_namespace;

/// An HAReplicaSet with its number of members on line 8.
pub fn replica_set(name: &str, members: &str) -> String {
    format!(
        "apiVersion: holdfast.dev/v1alpha1\nkind: HAReplicaSet\nmetadata:\n  name: {name}\nspec:\n  engine:\n    \
         postgresql: {{image: 'registry.bed:5000/bed/postgres:17'}}\n  members: {members}\n  storage: {{size: 512Mi}}\n"
    )
}

/// Nothing may start here: replica sets are objects and no more.
pub fn no_pods(source_house: &holdfast_e2e::House, namespace: &str) {
    source_house
        .apply(&format!(
            "{{apiVersion: v1, kind: ResourceQuota, metadata: {{name: none, namespace: {namespace}}}, \
             spec: {{hard: {{pods: '0', persistentvolumeclaims: '0'}}}}}}"
        ))
        .unwrap();
}

/// Waits for an Event about the source with these words.
pub fn told(source: &Source<'_>, reason: &str, words: &str) {
    source
        .wait(&format!("an Event {reason} with {words}"), |_| {
            let events = source.events().ok()?;
            events.into_iter().find(|(r, note)| r == reason && note.contains(words))
        })
        .unwrap();
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_push_is_applied_and_status_says_which_commit() {
    in_namespace("push", |house, ns| {
        let repo = Repo::new(house, "push").unwrap();
        let first = repo.config_map("a", "one").unwrap().push("The first").unwrap();
        let source = Source::over_ssh(house, ns, &repo, json!({})).unwrap();
        source.wait_applied(&first).unwrap();
        assert_eq!(source.value("a").unwrap(), "one");
        let ready = source.wait_ready_says("Healthy").unwrap();
        assert_eq!(ready.status, "True", "{ready:?}");

        let second = repo
            .config_map("a", "two")
            .unwrap()
            .push("The second\n\nand why")
            .unwrap();
        let start = Instant::now();
        source.wait_value("a", "two").unwrap();
        let took = start.elapsed();
        eprintln!(
            "  a push was applied after {:.1} s, polled every second",
            took.as_secs_f32()
        );
        assert!(took < Duration::from_secs(30), "{took:?}");
        let status = source.wait_applied(&second).unwrap();
        assert_eq!(text(&status, "/history/0/subject"), "The second");
        assert_eq!(text(&status, "/history/0/revision"), second);
        assert_eq!(status["history"][0]["changed"], 1, "{status:#}");
        assert_eq!(text(&status, "/history/1/revision"), first);
        // What a person sees without asking for more.
        let line = source.kubectl(&["get", "gitsource", "git", "--no-headers"]).unwrap();
        assert!(line.contains(&second) && line.contains("True"), "{line}");
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_bad_commit_is_refused_whole_and_the_next_one_mends_it() {
    in_namespace("bad", |house, ns| {
        no_pods(house, ns);
        let repo = Repo::new(house, "bad").unwrap();
        let good = repo.config_map("a", "good").unwrap().push("Good").unwrap();
        let source = Source::over_ssh(house, ns, &repo, json!({})).unwrap();
        source.wait_applied(&good).unwrap();
        source.wait_ready_says("Healthy").unwrap();

        // A value that the server refuses, beside changes that are fine.
        repo.config_map("a", "not yet")
            .unwrap()
            .config_map("b", "not yet")
            .unwrap();
        let bad = repo
            .write("db.yaml", &replica_set("db", "99"))
            .unwrap()
            .push("Too many")
            .unwrap();
        let status = source.wait_refused(&bad, "RefusedByServer").unwrap();
        let problem = &status["problems"][0];
        assert_eq!(problem["file"], "db.yaml", "{status:#}");
        assert_eq!(problem["line"], 8, "{status:#}");
        assert_eq!(problem["field"], "spec.members", "{status:#}");
        assert_eq!(problem["value"], "99", "{status:#}");
        assert_eq!(problem["object"], format!("HAReplicaSet.holdfast.dev {ns}/db"));
        let message = text(problem, "/message");
        assert!(message.contains("less than or equal to 7"), "{message}");
        // Nothing of it, and the last good one is in force and said to be.
        let ready = condition(&status, "Ready").message;
        assert!(ready.contains(&format!("{} stays in force", &good[..12])), "{ready}");
        assert_eq!(text(&status, "/appliedRevision"), good);
        assert_eq!(text(&status, "/lastGoodRevision"), good);
        assert_eq!(condition(&status, "Stalled").status, "True", "{status:#}");
        assert_eq!(source.value("a").unwrap(), "good");
        assert_eq!(source.value("b").unwrap(), "");
        assert_eq!(house.get(ns, "hareplicaset/db").unwrap(), None);
        told(&source, "RefusedByServer", &bad[..12]);
        // And it is kept: drift is put back although a newer commit stands refused.
        source
            .kubectl(&[
                "patch",
                "configmap",
                "a",
                "--type=merge",
                "-p",
                r#"{"data":{"value":"drift"}}"#,
            ])
            .unwrap();
        source.wait_value("a", "good").unwrap();

        // Mistakes that need no server, several at once.
        repo.write("db.yaml", &replica_set("db", "1").replace("members:", "member:"))
            .unwrap();
        let typo = repo.push("A typo").unwrap();
        let status = source.wait_refused(&typo, "RefusedByServer").unwrap();
        assert_eq!(status["problems"][0]["field"], "spec.member", "{status:#}");
        assert_eq!(status["problems"][0]["line"], 8, "{status:#}");
        told(&source, "RefusedByServer", &typo[..12]);
        repo.write("db.yaml", "kind: [HAReplicaSet\n").unwrap();
        repo.write("c.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: 7\n")
            .unwrap();
        let broken = repo.push("Broken").unwrap();
        let status = source.wait_refused(&broken, "Invalid").unwrap();
        assert_eq!(status["problemCount"], 2, "{status:#}");
        let places: Vec<(&str, u64)> = status["problems"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| (text(p, "/file"), p["line"].as_u64().unwrap()))
            .collect();
        assert!(places.contains(&("c.yaml", 4)), "{status:#}");
        assert!(places.iter().any(|(file, _)| *file == "db.yaml"), "{status:#}");

        // The next commit mends it.
        repo.remove("c.yaml").unwrap();
        let mended = repo
            .write("db.yaml", &replica_set("db", "1"))
            .unwrap()
            .push("Mended")
            .unwrap();
        let status = source.wait_applied(&mended).unwrap();
        assert_eq!(status.get("problems"), None, "{status:#}");
        assert_eq!(source.value("a").unwrap(), "not yet");
        assert_eq!(source.value("b").unwrap(), "not yet");
        let set = house.get(ns, "hareplicaset/db").unwrap().unwrap();
        assert_eq!(set["spec"]["members"], 1);
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn an_account_without_rights_is_told_what_it_lacks_and_goes_on_when_it_has_it() {
    in_namespace("rights", |house, ns| {
        let repo = Repo::new(house, "rights").unwrap();
        let commit = repo.config_map("a", "one").unwrap().push("One").unwrap();
        let source = Source::over_ssh(house, ns, &repo, json!({"suspend": true})).unwrap();
        grant(house, ns, &["get", "list", "watch"]).unwrap();
        source.patch(json!({"suspend": false})).unwrap();
        let status = source.wait_refused(&commit, "Forbidden").unwrap();
        let message = condition(&status, "Ready").message;
        for word in ["ServiceAccount holdfast-applier", "patch", "configmaps", ns] {
            assert!(message.contains(word), "{word}: {message}");
        }
        assert_eq!(status["problems"][0]["file"], "a.yaml", "{status:#}");
        assert_eq!(source.value("a").unwrap(), "");
        // Nobody has to push again.
        grant(house, ns, &["get", "list", "watch", "create", "patch"]).unwrap();
        source.wait_applied(&commit).unwrap();
        assert_eq!(source.value("a").unwrap(), "one");

        // An account that the operator's own rights do not let it act as.
        source.patch(json!({"serviceAccountName": "default"})).unwrap();
        let ready = source.wait_ready_says("Forbidden").unwrap();
        assert!(
            ready.message.contains("impersonate") && ready.message.contains("default"),
            "{ready:?}"
        );
        // What is refused is asked for ever more rarely.
        let mark = house.mark_requests().unwrap();
        std::thread::sleep(Duration::from_secs(12));
        let mut asked = house.requests_since(mark).unwrap();
        asked.retain(|r| r.uri.contains(&format!("/namespaces/{ns}/")) && r.code == 403);
        eprintln!("  {} refused requests in 12 s", asked.len());
        assert!((1..=5).contains(&asked.len()), "{asked:#?}");
    });
}
