//! The page about bad inputs says what this code answers: each row of the tables that need no server is tried here. (The
//! others are tried by the tests on the bed, and those about Secrets in the Git adapter.)

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is the assertion")]

use std::sync::Arc;

use holdfast_api::git_source::Allow;
use holdfast_core::source::check::{Policy, check, duplicates};
use holdfast_core::source::kinds::Kinds;
use holdfast_core::source::url::RepositoryUrl;
use holdfast_core::source::{Origin, Problem, yaml};

const PAGE: &str = include_str!("../../docs/users/bad-inputs.md");

/// The code spans of each row below a heading, by column.
fn rows(heading: &str) -> Vec<Vec<Vec<String>>> {
    let section = PAGE.split("\n## ").find(|s| s.starts_with(heading)).unwrap();
    let rows: Vec<Vec<Vec<String>>> = section
        .lines()
        .filter(|l| l.starts_with('|'))
        .skip(2)
        .map(|row| {
            let cells = row.trim_matches('|').split('|');
            cells
                .map(|cell| cell.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect())
                .collect()
        })
        .collect();
    assert!(rows.len() > 4, "{heading}: {} rows", rows.len());
    rows
}

fn holds(input: &str, answer: &str, pieces: &[String]) {
    assert!(!pieces.is_empty(), "{input}: the page expects nothing");
    for piece in pieces {
        assert!(
            answer.contains(piece.as_str()),
            "{input}\n  wants {piece:?}\n  gets  {answer:?}"
        );
    }
}

#[test]
fn addresses_get_what_the_page_says() {
    for row in rows("GitSource: addresses") {
        let why = RepositoryUrl::parse(&row[0][0]).unwrap_err();
        holds(&row[0][0], &why.to_string(), &row[1]);
        assert!(!why.to_string().contains("secret@"), "{why}");
    }
}

#[test]
fn files_get_what_the_page_says() {
    for row in rows("Files in a repository") {
        let text = row[0][0].replace("\\n", "\n");
        let problems = read(&text);
        assert_eq!(problems.len(), 1, "{text}: {problems:#?}");
        let p = &problems[0];
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        let line = p.line.map_or_else(String::new, |line| format!("line {line}"));
        let answer = [line, part(&p.object), part(&p.field), part(&p.value), p.message.clone()].join(" ");
        assert_eq!(p.file.as_deref(), Some("a.yaml"));
        holds(&text, &answer, &row[1]);
    }
}

/// As the operator reads a file.
fn read(text: &str) -> Vec<Problem> {
    let policy = Policy::new("git", "civil", &Allow::default());
    let documents = match yaml::parse("a.yaml", text.as_bytes()) {
        Ok(documents) => documents,
        Err(problem) => return vec![*problem],
    };
    let mut problems = Vec::new();
    let mut found = Vec::new();
    for document in &documents {
        match check("a.yaml", text, document, &policy, &Kinds::default()) {
            Ok(manifest) => found.push((
                manifest.key,
                Origin {
                    file: Arc::from("a.yaml"),
                    line: document.line,
                },
            )),
            Err(problem) => problems.push(*problem),
        }
    }
    problems.extend(duplicates(found.iter().map(|(key, origin)| (key, origin))));
    problems
}

#[test]
fn tests_that_the_page_names_are_there() {
    const TESTS: &str = concat!(
        include_str!("../../../tests/e2e/tests/gitops/commits.rs"),
        include_str!("../../../tests/e2e/tests/gitops/drift.rs"),
        include_str!("../../../tests/e2e/tests/gitops/guards.rs"),
        include_str!("../../../tests/e2e/tests/gitops/trust.rs"),
        include_str!("../../../tests/e2e/tests/gitops/ways_in.rs"),
    );
    for row in rows("A commit as a whole") {
        let name = &row[2][0];
        assert!(TESTS.contains(&format!("fn {name}()")), "{name}");
        for reason in row[1].iter().filter(|r| !r.contains('.')) {
            assert!(TESTS.contains(&format!("\"{reason}\"")), "no test waits for {reason}");
        }
    }
}
