//! What a commit wants, read and checked exactly as the operator does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use holdfast_api::GitSource;
use holdfast_core::source::check::{Policy, check, duplicates, type_of};
use holdfast_core::source::kinds::{Kinds, definitions};
use holdfast_core::source::yaml::{self, Document};
use holdfast_core::source::{Manifest, ObjectKey, Problem, why};
use holdfast_git::{Bounds, Store};
use holdfast_kube::source::learn;
use kube::ResourceExt;

use crate::cluster::Cluster;
use crate::failure::Failure;

/// The objects of a commit, and the kinds that they are of.
pub struct Wanted {
    /// By identity.
    pub objects: BTreeMap<ObjectKey, Manifest>,
    /// Everything that is known of kinds.
    pub kinds: Kinds,
    /// Kinds that the commit itself brings, which the server may not have yet.
    pub provided: BTreeSet<(String, String)>,
}

/// Reads a commit. One with mistakes is refused with all of them.
pub async fn read(cluster: &Cluster, source: &GitSource, store: &Store, commit: &str) -> Result<Wanted, Failure> {
    let failed = |e: holdfast_git::GitError| Failure::new(e.to_string());
    let bounds = bounds(source);
    let tree = store.tree(commit, &source.spec.path, &bounds).map_err(failed)?;
    let mut problems = tree.problems;
    let mut files: Vec<(String, String, Vec<Document>)> = Vec::new();
    for file in tree.files {
        let read = store.blob(&file, &bounds).map_err(failed)?;
        match read.and_then(|bytes| {
            let documents = yaml::parse(&file.path, &bytes)?;
            Ok((String::from_utf8_lossy(&bytes).into_owned(), documents))
        }) {
            Ok((text, documents)) => files.push((file.path, text, documents)),
            Err(problem) => problems.push(*problem),
        }
    }
    let mut kinds = Kinds::default();
    let documents = || files.iter().flat_map(|(_, _, documents)| documents);
    let provided = definitions(documents(), &mut kinds);
    let types: BTreeSet<(&str, &str)> = documents().filter_map(type_of).collect();
    for (api_version, kind) in types {
        learn(&cluster.client, &mut kinds, api_version, kind)
            .await
            .map_err(|e| Failure::new(format!("asking for the kind {kind} of {api_version}: {e}")))?;
    }
    let policy = Policy::new(&source.name_any(), &cluster.namespace, &source.spec.allow);
    let mut found: Vec<Manifest> = Vec::new();
    for (path, text, documents) in &files {
        for document in documents {
            match check(path, text, document, &policy, &kinds) {
                Ok(manifest) => found.push(manifest),
                Err(problem) => problems.push(*problem),
            }
        }
    }
    problems.extend(duplicates(found.iter().map(|m| (&m.key, &m.origin))));
    if !problems.is_empty() {
        problems.sort();
        return Err(
            Failure::new(refusal(commit, &problems)).next("mend them: the operator refuses such a commit whole")
        );
    }
    Ok(Wanted {
        objects: found.into_iter().map(|m| (m.key.clone(), m)).collect(),
        kinds,
        provided,
    })
}

/// What the source's own bounds allow.
fn bounds(source: &GitSource) -> Bounds {
    let limits = &source.spec.limits;
    let size = |n: u32, unit: usize| usize::try_from(n).unwrap_or(usize::MAX).saturating_mul(unit);
    Bounds {
        fetch_bytes: 0,
        file_bytes: size(limits.file_kib, 1024),
        files: size(limits.files, 1),
        commits: 0,
        timeout: Duration::ZERO,
    }
}

/// `a.yaml:6: ConfigMap civil/a: metadata.name (7): not text…`, a line each.
fn refusal(commit: &str, problems: &[Problem]) -> String {
    let mut text = format!("{} has {} problem(s)", why::short(commit), problems.len());
    for problem in problems {
        let part = |part: &Option<String>| part.as_ref().map_or_else(String::new, |p| format!(" {p}:"));
        let line = problem.line.map_or_else(String::new, |line| format!("{line}:"));
        let value = problem
            .value
            .as_ref()
            .map_or_else(String::new, |v| format!(" found {v};"));
        // A String takes whatever is written to it.
        let _ = write!(
            text,
            "\n{}:{line}{}{}{value} {}",
            problem.file.as_deref().unwrap_or("-"),
            part(&problem.object),
            part(&problem.field),
            problem.message
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_each_place() {
        let problem = Problem {
            file: Some("a.yaml".into()),
            line: Some(4),
            object: Some("ConfigMap civil/a".into()),
            field: Some("metadata.name".into()),
            value: Some("7".into()),
            message: "not text".into(),
        };
        let bare = Problem {
            message: "m".into(),
            ..Problem::default()
        };
        assert_eq!(
            refusal(&"c".repeat(40), &[problem, bare]),
            "cccccccccccc has 2 problem(s)\na.yaml:4: ConfigMap civil/a: metadata.name: found 7; not text\n-: m"
        );
    }
}
