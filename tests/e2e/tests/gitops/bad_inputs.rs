//! The page about bad inputs says what the API server answers: each row of its tables is tried.

use std::fs;

use holdfast_e2e::House;
use serde_json::{Value, json};

use crate::commits::no_pods;
use crate::support::in_namespace;

const PAGE: &str = include_str!("../../../../operator/docs/users/bad-inputs.md");

/// The code spans of each row below a heading, by column.
fn rows(heading: &str) -> Vec<Vec<Vec<&'static str>>> {
    let section = PAGE.split("\n## ").find(|s| s.starts_with(heading)).unwrap();
    let rows: Vec<_> = section
        .lines()
        .filter(|l| l.starts_with('|'))
        .skip(2)
        .map(|row| {
            let cells = row.trim_matches('|').split('|');
            cells.map(|cell| cell.split('`').skip(1).step_by(2).collect()).collect()
        })
        .collect();
    assert!(rows.len() > 2, "{heading}: {} rows", rows.len());
    rows
}

/// The object that the section merges its rows into.
fn base(heading: &str, kind: &str, namespace: &str) -> Value {
    let section = PAGE.split("\n## ").find(|s| s.starts_with(heading)).unwrap();
    let text = section
        .split("merged into `")
        .nth(1)
        .unwrap()
        .split('`')
        .next()
        .unwrap();
    let mut object = yaml(text);
    merge(
        &mut object,
        json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": kind, "metadata": {"namespace": namespace}}),
    );
    object
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// RFC 7396.
fn merge(into: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *into = patch;
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    let Value::Object(fields) = into else { return };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(&name);
        } else {
            merge(fields.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// What the server says to an object, which it does not keep.
fn try_it(house: &House, object: &Value, keep: bool) -> Result<String, String> {
    let file = house.bed.kubeconfig().unwrap().with_file_name("bad-input.json");
    fs::write(&file, object.to_string()).unwrap();
    let file = file.display().to_string();
    let mut args = vec!["apply", "--server-side", "-f", &file];
    if !keep {
        args.push("--dry-run=server");
    }
    house.kubectl(&args).map_err(|e| format!("{e:#}"))
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn the_api_server_answers_as_the_page_says() {
    in_namespace("inputs", |house, ns| {
        no_pods(house, ns);
        let mut wrong = Vec::new();
        for (heading, kind) in [
            ("HAReplicaSet: refused by the API server", "HAReplicaSet"),
            ("GitSource: refused by the API server", "GitSource"),
        ] {
            let good = base(heading, kind, ns);
            try_it(house, &good, false).unwrap();
            for row in rows(heading) {
                let mut object = good.clone();
                merge(&mut object, yaml(row[0][0]));
                compare(&mut wrong, row[0][0], try_it(house, &object, false), &row[1]);
            }
        }
        let good = base("HAReplicaSet: refused by the API server", "HAReplicaSet", ns);
        for (n, row) in rows("HAReplicaSet: changes").into_iter().enumerate() {
            let mut object = good.clone();
            object["metadata"]["name"] = json!(format!("db-{n}"));
            merge(&mut object, yaml(row[0][0]));
            try_it(house, &object, true).unwrap();
            merge(&mut object, yaml(row[1][0]));
            compare(&mut wrong, row[1][0], try_it(house, &object, false), &row[2]);
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

fn compare(wrong: &mut Vec<String>, input: &str, answer: Result<String, String>, pieces: &[&str]) {
    match answer {
        Ok(_) => wrong.push(format!("{input} is taken")),
        Err(said) => wrong.extend(
            pieces
                .iter()
                .filter(|piece| !said.contains(**piece))
                .map(|piece| format!("{input}\n  wants {piece}\n  gets  {said}")),
        ),
    }
}
