//! What a person touches first: the charts and the examples.

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_e2e::house::{SYSTEM, root, run};
use holdfast_e2e::sql::Access;
use holdfast_e2e::{House, Set, Source};

use crate::support::house;

const START: Duration = Duration::from_secs(240);

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

/// Every file that people copy is one that the API server takes, to the last field.
#[test]
#[ignore = "needs root and a bed: make test"]
fn every_example_is_accepted() {
    let files: Vec<PathBuf> = ["examples", "examples/repository"]
        .iter()
        .flat_map(|folder| yaml(folder))
        .collect();
    assert!(files.len() >= 7, "{files:?}");
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let namespaces = text.lines().filter_map(|l| l.trim().strip_prefix("namespace: "));
        for namespace in namespaces.map(|n| n.split_whitespace().next().unwrap_or_default()) {
            make(house(), namespace);
        }
        apply(file, &["--dry-run=server"]);
    }
}

/// And one that does what it says. Those of a repository over ssh are walked by the test of the whole way.
#[test]
#[ignore = "needs root and a bed: make test"]
fn every_example_runs() {
    for file in yaml("examples") {
        let text = std::fs::read_to_string(&file).unwrap();
        let found = |kind: &str| text.contains(&format!("kind: {kind}\n"));
        let name = |of: &str| {
            let (_, rest) = text.split_once(&format!("kind: {of}\n")).unwrap();
            let (_, rest) = rest.split_once("name: ").unwrap();
            rest.split_whitespace().next().unwrap().to_owned()
        };
        if !found("Namespace") {
            assert!(
                file.ends_with("gitsource-ssh.yaml"),
                "{} names no Namespace",
                file.display()
            );
            continue;
        }
        let namespace = name("Namespace");
        apply(&file, &[]);
        if found("HAReplicaSet") {
            let set = Set::named(house(), &namespace, &name("HAReplicaSet"));
            set.wait_ready(START).unwrap();
            assert_eq!(Access::to(&set, "rw").unwrap().query("select 1").unwrap(), "1");
        } else {
            // Its Secrets are the reader's own to make.
            let source = Source {
                house: house(),
                namespace: namespace.clone(),
                name: name("GitSource"),
            };
            source.wait_ready_says("CredentialsUnusable").unwrap();
        }
        house()
            .kubectl(&["delete", "namespace", &namespace, "--wait=false"])
            .unwrap();
    }
}

fn yaml(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    files
        .filter(|file| file.extension().is_some_and(|e| e == "yaml"))
        .collect()
}

fn apply(file: &Path, more: &[&str]) {
    let path = file.display().to_string();
    let args = ["apply", "--server-side", "--validate=strict", "-f", &path];
    house()
        .kubectl(&[&args[..], more].concat())
        .unwrap_or_else(|error| panic!("{path}: {error:#}"));
}

fn make(house: &House, namespace: &str) {
    house
        .apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}"
        ))
        .unwrap();
}

/// Two replicas, an own disruption budget, and Pods that a namespace of the standard `restricted` takes (the house makes it so).
#[test]
#[ignore = "needs root and a bed: make test"]
fn the_operator_is_installed_as_the_chart_promises() {
    let field = |what: &str, path: &str| {
        let path = format!("jsonpath={path}");
        house().kubectl(&["-n", SYSTEM, "get", what, "-o", &path]).unwrap()
    };
    assert_eq!(field("deployment/holdfast", "{.spec.replicas}"), "2");
    assert_eq!(field("poddisruptionbudget/holdfast", "{.spec.maxUnavailable}"), "1");
    let label = "{.metadata.labels.pod-security\\.kubernetes\\.io/enforce}";
    assert_eq!(field(&format!("namespace/{SYSTEM}"), label), "restricted");
    let container = "{.spec.template.spec.containers[0]";
    assert_eq!(
        field(
            "deployment/holdfast",
            &format!("{container}.securityContext.readOnlyRootFilesystem}}")
        ),
        "true"
    );
    for part in ["requests.cpu", "requests.memory", "limits.memory"] {
        assert!(
            !field("deployment/holdfast", &format!("{container}.resources.{part}}}")).is_empty(),
            "{part}"
        );
    }
    assert!(field("deployment/holdfast", &format!("{container}.image}}")).contains("@sha256:"));
    let chart = root().join("charts/holdfast").display().to_string();
    let said = |set: &str| {
        run(house()
            .program("helm")
            .unwrap()
            .args(["template", "x", &chart, "--set", set]))
    };
    assert!(said("replicas=3").unwrap().contains("replicas: 3"));
    for (wrong, named) in [
        ("repilcas=3", "repilcas"),
        ("replicas=many", "replicas"),
        ("replicas=0", "replicas"),
    ] {
        let error = said(wrong).unwrap_err().to_string();
        assert!(error.contains(named), "{wrong}: {error}");
    }
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
