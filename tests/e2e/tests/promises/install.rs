//! What a person touches first: the charts and the examples.

use std::path::PathBuf;

use holdfast_e2e::House;
use holdfast_e2e::house::{SYSTEM, root, run};

use crate::support::house;

#[test]
#[ignore = "needs root and a bed: make test"]
fn helm_test_finds_kinds_rights_and_a_leader() {
    let mut helm = house().program("helm").unwrap();
    let said = run(helm.args(["test", "holdfast", "-n", SYSTEM, "--logs", "--timeout", "120s"])).unwrap();
    for right in [
        "ok    the kinds are served",
        "ok    the operator has the rights that it needs",
        "ok    a replica of the operator leads",
        "ok    the operator is ready",
        "ok    the operator tells metrics",
    ] {
        assert!(said.contains(right), "{said}");
    }
}

/// Every file that people copy is one that the API server takes, to the last field. Those that start something are tried
/// without doing it: three members each would not fit on one machine at once.
#[test]
#[ignore = "needs root and a bed: make test"]
fn every_example_is_accepted() {
    let files: Vec<PathBuf> = ["examples", "examples/repository"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(root().join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|file| file.extension().is_some_and(|e| e == "yaml"))
        .collect();
    assert!(files.len() >= 7, "{files:?}");
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let namespaces = text.lines().filter_map(|l| l.trim().strip_prefix("namespace: "));
        for namespace in namespaces.map(|n| n.split_whitespace().next().unwrap_or_default()) {
            make(house(), namespace);
        }
        let path = file.display().to_string();
        let args = [
            "apply",
            "--server-side",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            &path,
        ];
        house()
            .kubectl(&args)
            .unwrap_or_else(|error| panic!("{path}: {error:#}"));
    }
}

fn make(house: &House, namespace: &str) {
    house
        .apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}"
        ))
        .unwrap();
}

/// The operator has no right that is not written down in the chart, so a database that comes up in any other test came up
/// with exactly these; here: that nothing was refused on the way.
#[test]
#[ignore = "needs root and a bed: make test"]
fn the_operator_was_refused_nothing() {
    let log = house()
        .kubectl(&[
            "-n",
            SYSTEM,
            "logs",
            "-l",
            "app.kubernetes.io/component=operator",
            "--tail=-1",
        ])
        .unwrap();
    let refused: Vec<&str> = log
        .lines()
        .filter(|l| l.contains("is forbidden") && l.contains(&format!("system:serviceaccount:{SYSTEM}:")))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}
