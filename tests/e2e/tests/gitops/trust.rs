//! Whose commits are taken, and whose history.

use holdfast_e2e::source::{condition, text};
use holdfast_e2e::{Repo, Source};
use serde_json::json;

use crate::support::in_namespace;

#[test]
#[ignore = "needs root and a bed: make test"]
fn only_commits_of_known_signers_are_taken() {
    in_namespace("signed", |house, ns| {
        let repo = Repo::new(house, "signed").unwrap();
        let ada = repo.public_key("ada").unwrap();
        let unsigned = repo.config_map("a", "unsigned").unwrap().push("Unsigned").unwrap();
        let verify = json!({"verify": {"mode": "Head", "signers": [{"name": "Ada", "key": ada}]}});
        let source = Source::over_ssh(house, ns, &repo, verify).unwrap();
        let status = source.wait_refused(&unsigned, "Unsigned").unwrap();
        let verified = condition(&status, "Verified");
        assert_eq!(
            (verified.status.as_str(), verified.reason.as_str()),
            ("False", "Unsigned")
        );
        let message = condition(&status, "Ready").message;
        assert!(
            message.contains(&unsigned[..12]) && message.contains("git commit -S"),
            "{message}"
        );
        assert_eq!(source.value("a").unwrap(), "");

        let signed = repo
            .config_map("a", "signed")
            .unwrap()
            .push_signed("Signed", "ada")
            .unwrap();
        let status = source.wait_applied(&signed).unwrap();
        assert_eq!(text(&status, "/verifiedRevision"), signed);
        assert_eq!(text(&status, "/history/0/signer"), "Ada", "{status:#}");
        assert!(
            condition(&status, "Verified").message.contains("signed by Ada"),
            "{status:#}"
        );
        assert_eq!(source.value("a").unwrap(), "signed");

        let foreign = repo
            .config_map("a", "foreign")
            .unwrap()
            .push_signed("Foreign", "mallory")
            .unwrap();
        let status = source.wait_refused(&foreign, "SignerUnknown").unwrap();
        let message = condition(&status, "Ready").message;
        assert!(
            message.contains("SHA256:") && message.contains(&format!("{} stays in force", &signed[..12])),
            "{message}"
        );
        assert_eq!(text(&status, "/verifiedRevision"), signed, "{status:#}");
        assert_eq!(source.value("a").unwrap(), "signed");

        // Every commit: one that slipped in under a good one is found.
        let key = repo.public_key("ada").unwrap();
        source
            .patch(json!({"verify": {"mode": "EveryCommit", "signers": [{"name": "Ada", "key": key}]}}))
            .unwrap();
        let top = repo
            .config_map("a", "on top")
            .unwrap()
            .push_signed("On top", "ada")
            .unwrap();
        let status = source.wait_refused(&top, "SignerUnknown").unwrap();
        assert!(
            condition(&status, "Ready").message.contains(&foreign[..12]),
            "{status:#}"
        );
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_rewritten_history_is_refused_unless_it_is_allowed() {
    in_namespace("rewrite", |house, ns| {
        let repo = Repo::new(house, "rewrite").unwrap();
        repo.config_map("a", "one").unwrap().push("One").unwrap();
        let old = repo.config_map("a", "two").unwrap().push("Two").unwrap();
        let source = Source::over_ssh(house, ns, &repo, json!({})).unwrap();
        source.wait_applied(&old).unwrap();
        repo.git(&["reset", "-q", "--hard", "HEAD~1"]).unwrap();
        let new = repo
            .config_map("a", "another two")
            .unwrap()
            .push("Another two")
            .unwrap();
        let status = source.wait_refused(&new, "HistoryRewritten").unwrap();
        let message = condition(&status, "Ready").message;
        assert!(
            message.contains(&old[..12])
                && message.contains(&new[..12])
                && message.contains("spec.allowHistoryRewrite"),
            "{message}"
        );
        assert_eq!(source.value("a").unwrap(), "two");
        source.patch(json!({"allowHistoryRewrite": true})).unwrap();
        source.wait_applied(&new).unwrap();
        assert_eq!(source.value("a").unwrap(), "another two");
    });
}
