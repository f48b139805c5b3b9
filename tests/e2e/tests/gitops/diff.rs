//! `kubectl holdfast diff`, run as people run it: in their clone, before and after a push.

use std::process::Command;

use holdfast_e2e::house::binary;
use holdfast_e2e::{Repo, Source};
use serde_json::json;

use crate::support::in_namespace;

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_person_sees_in_a_clone_what_drifted_and_what_a_commit_would_do() {
    in_namespace("diff", |house, ns| {
        let repo = Repo::new(house, "diff").unwrap();
        for name in ["a", "b", "c"] {
            repo.config_map(name, "one").unwrap();
        }
        let first = repo.push("One").unwrap();
        let source = Source::over_ssh(house, ns, &repo, json!({"interval": "1h"})).unwrap();
        source.wait_applied(&first).unwrap();
        let program = binary().unwrap().with_file_name("kubectl-holdfast");
        // Exit code, and what was printed.
        let diff = |more: &[&str]| -> (i32, String) {
            let out = Command::new(&program)
                .args(["diff", "git", "--exit-code", "-n", ns])
                .args(more)
                .current_dir(repo.work())
                .env("KUBECONFIG", house.bed.kubeconfig().unwrap())
                .output()
                .unwrap();
            let text = [out.stdout, out.stderr].concat();
            (out.status.code().unwrap(), String::from_utf8(text).unwrap())
        };
        let (code, text) = diff(&[]);
        assert_eq!(code, 0, "{text}");
        assert!(
            text.contains("nothing differs") && text.contains(&first[..12]),
            "{text}"
        );

        // A commit that is not pushed yet: what it would do.
        repo.config_map("a", "two").unwrap().config_map("d", "new").unwrap();
        repo.remove("b.yaml").unwrap();
        repo.git(&["add", "-A"]).unwrap();
        repo.git(&["commit", "-qm", "Two"]).unwrap();
        let (code, text) = diff(&["--revision", "HEAD"]);
        assert_eq!(code, 2, "{text}");
        for part in [
            "-data.value: \"one\"\n+data.value: \"two\"",
            &format!("+++ ConfigMap {ns}/d (Git)"),
            &format!("ConfigMap {ns}/b: to be deleted"),
            "1 to create, 1 to change, 1 to delete",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert_eq!(source.value("a").unwrap(), "one", "looking changes nothing");
        assert_eq!(source.value("d").unwrap(), "");

        // Drift, while the source does not put it back.
        source.patch(json!({"suspend": true})).unwrap();
        source.wait_ready_says("Suspended").unwrap();
        let edit = r#"{"data":{"value":"edited","more":"of a person"}}"#;
        source
            .kubectl(&[
                "patch",
                "configmap",
                "c",
                "--type=merge",
                "--field-manager=kubectl-edit",
                "-p",
                edit,
            ])
            .unwrap();
        let (code, text) = diff(&[]);
        assert_eq!(code, 2, "{text}");
        assert!(
            text.contains("-data.value: \"edited\"    # by kubectl-edit\n+data.value: \"one\"")
                && text.contains("0 to create, 1 to change, 0 to delete"),
            "{text}"
        );

        // A bad commit is found before anybody sees it.
        repo.write("bad.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: 7\n")
            .unwrap();
        repo.git(&["add", "-A"]).unwrap();
        repo.git(&["commit", "-qm", "Bad"]).unwrap();
        let (code, text) = diff(&["--revision", "HEAD"]);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("bad.yaml:4:") && text.contains("metadata.name"), "{text}");

        // Another clone than the source's.
        let other = Repo::new(house, "diff-other").unwrap();
        other.push("Another").unwrap();
        let (code, text) = diff(&["-C", &other.work().display().to_string()]);
        assert_eq!(code, 1, "{text}");
        assert!(
            text.contains("does not have the commit") && text.contains("git fetch"),
            "{text}"
        );
    });
}
