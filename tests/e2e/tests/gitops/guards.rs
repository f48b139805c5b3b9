//! What may be deleted, and by which word.

use holdfast_e2e::source::condition;
use holdfast_e2e::{Repo, Source};
use serde_json::json;

use crate::commits::{no_pods, replica_set};
use crate::support::in_namespace;

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_commit_that_removes_a_big_share_is_stopped_until_it_is_allowed() {
    in_namespace("share", |house, ns| {
        let repo = Repo::new(house, "share").unwrap();
        let names: Vec<String> = (1..=12).map(|n| format!("c{n}")).collect();
        for name in &names {
            repo.config_map(name, "here").unwrap();
        }
        repo.config_map("kept", "here").unwrap();
        let full = repo.push("Thirteen").unwrap();
        let source = Source::over_ssh(house, ns, &repo, json!({})).unwrap();
        source.wait_applied(&full).unwrap();

        for name in &names[..8] {
            repo.remove(&format!("{name}.yaml")).unwrap();
        }
        let fewer = repo.config_map("kept", "changed").unwrap().push("Eight go").unwrap();
        let status = source.wait_refused(&fewer, "PruneShareExceeded").unwrap();
        let message = condition(&status, "Ready").message;
        for word in ["8 of 13", "20 %", "spec.prune.maxShare", &full[..12]] {
            assert!(message.contains(word), "{word}: {message}");
        }
        assert_eq!(source.value("c1").unwrap(), "here");
        assert_eq!(
            source.value("kept").unwrap(),
            "here",
            "nothing of the commit is applied"
        );

        source.patch(json!({"prune": {"maxShare": 70}})).unwrap();
        let status = source.wait_applied(&fewer).unwrap();
        assert_eq!(status["history"][0]["pruned"], 8, "{status:#}");
        assert_eq!(status["inventory"]["objects"], 5, "{status:#}");
        assert_eq!(source.value("c1").unwrap(), "");
        assert_eq!(source.value("c12").unwrap(), "here");
        assert_eq!(source.value("kept").unwrap(), "changed");

        // Everything at once needs its own word: an empty folder is more often a mistake.
        for name in &names[8..] {
            repo.remove(&format!("{name}.yaml")).unwrap();
        }
        let empty = repo
            .remove("kept.yaml")
            .unwrap()
            .write("README", "empty")
            .unwrap()
            .push("All")
            .unwrap();
        let status = source.wait_refused(&empty, "PruneOfEverything").unwrap();
        assert!(
            condition(&status, "Ready").message.contains("maxShare to 100"),
            "{status:#}"
        );
        assert_eq!(source.value("kept").unwrap(), "changed");
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_database_is_never_pruned_without_the_word_for_it() {
    in_namespace("data", |house, ns| {
        no_pods(house, ns);
        let repo = Repo::new(house, "data").unwrap();
        repo.write("db.yaml", &replica_set("db", "1")).unwrap();
        repo.write("other.yaml", &replica_set("other", "1")).unwrap();
        let both = repo.config_map("a", "one").unwrap().push("Two databases").unwrap();
        // Even where everything may go.
        let source = Source::over_ssh(house, ns, &repo, json!({"prune": {"maxShare": 100}})).unwrap();
        source.wait_applied(&both).unwrap();
        let uid = |name: &str| {
            let set = house.get(ns, &format!("hareplicaset/{name}")).unwrap();
            set.map(|s| s["metadata"]["uid"].clone())
        };
        let before = uid("db");
        assert!(before.is_some());

        let gone = repo.remove("db.yaml").unwrap().push("The database goes").unwrap();
        let status = source.wait_refused(&gone, "PruneHoldsData").unwrap();
        let message = condition(&status, "Ready").message;
        for word in [
            &format!("HAReplicaSet.holdfast.dev {ns}/db"),
            "holds data",
            "spec.prune.dataBearing",
        ] {
            assert!(message.contains(word), "{word}: {message}");
        }
        assert_eq!(uid("db"), before);

        // One that says so itself is kept even then.
        source
            .kubectl(&["annotate", "hareplicaset", "other", "holdfast.dev/prune=disabled"])
            .unwrap();
        let all = repo.remove("other.yaml").unwrap().push("Both go").unwrap();
        source.wait_refused(&all, "PruneHoldsData").unwrap();
        source.patch(json!({"prune": {"dataBearing": true}})).unwrap();
        let status = source.wait_applied(&all).unwrap();
        assert_eq!(uid("db"), None);
        assert!(uid("other").is_some(), "kept by its own annotation");
        assert_eq!(status["inventory"]["orphans"], 1, "{status:#}");
    });
}
