//! Promises of the source room: plans come to rest, order is kept, and nothing that holds data goes without a word.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_api::git_source::{Allow, AllowedKind, Prune};
use proptest::prelude::*;
use serde_json::json;

use super::{
    Digest, ObjectKey, Why,
    check::{Policy, check, duplicates},
    kinds::{Kinds, holds_data},
    order::rank,
    plan::{self, Step, View},
    yaml,
};
use crate::plan::Decision;

/// What the cluster holds for a source, moved by steps as the controller would.
#[derive(Clone, Debug, Default)]
struct World {
    held: BTreeMap<ObjectKey, Option<Digest>>,
    orphans: BTreeSet<ObjectKey>,
}

impl World {
    fn decide(
        &self,
        wanted: &BTreeMap<ObjectKey, Digest>,
        paused: &BTreeSet<ObjectKey>,
        prune: &Prune,
    ) -> Decision<Step, Why> {
        plan::decide(&View {
            revision: "r",
            wanted: &wanted.iter().map(|(key, digest)| (key, *digest)).collect(),
            held: &self.held.iter().map(|(key, digest)| (key, *digest)).collect(),
            orphans: &self.orphans,
            drifted: &BTreeSet::new(),
            paused,
            prune,
        })
    }

    fn act(&mut self, wanted: &BTreeMap<ObjectKey, Digest>, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Try(_) | Step::Prune(_) => {}
                Step::Record(keys) => keys.iter().for_each(|k| {
                    self.held.entry(k.clone()).or_default();
                    self.orphans.remove(k);
                }),
                Step::Apply(keys) => keys.iter().for_each(|k| {
                    self.held.insert(k.clone(), wanted.get(k).copied());
                }),
                Step::Forget(keys) => keys.iter().for_each(|k| {
                    self.held.remove(k);
                }),
                Step::Keep(keys) => self.orphans.extend(keys.iter().cloned()),
            }
        }
    }
}

fn key() -> impl Strategy<Value = ObjectKey> {
    let kinds = [
        ("", "ConfigMap"),
        ("", "Namespace"),
        ("", "PersistentVolumeClaim"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("holdfast.dev", "HAReplicaSet"),
        ("holdfast.dev", "BackupPolicy"),
        ("apps", "Deployment"),
    ];
    (proptest::sample::select(kinds.to_vec()), 0_u8..6).prop_map(|((group, kind), n)| ObjectKey {
        group: group.into(),
        kind: kind.into(),
        namespace: Some("n".into()),
        name: format!("o{n}"),
    })
}

fn wishes() -> impl Strategy<Value = BTreeMap<ObjectKey, Digest>> {
    proptest::collection::btree_map(key(), (0_u8..3).prop_map(|n| Digest([n; 32])), 0..30)
}

fn prunes() -> impl Strategy<Value = Prune> {
    (any::<bool>(), 0_u8..=100, any::<bool>()).prop_map(|(enabled, max_share, data_bearing)| Prune {
        enabled,
        max_share,
        data_bearing,
    })
}

proptest! {
    #[test]
    fn deciding_again_after_success_is_stay(before in wishes(), wanted in wishes(), paused in proptest::collection::btree_set(key(), 0..3), prune in prunes()) {
        let mut world = World { held: before.iter().map(|(k, d)| (k.clone(), Some(*d))).collect(), ..World::default() };
        if let Decision::Do { steps, .. } = world.decide(&wanted, &paused, &prune) {
            world.act(&wanted, &steps);
            let again = world.decide(&wanted, &paused, &prune);
            prop_assert!(matches!(again, Decision::Stay(Why::NothingNew { .. })), "{again:?}");
        }
    }

    #[test]
    fn nothing_that_holds_data_is_deleted_without_a_word(before in wishes(), wanted in wishes(), prune in prunes()) {
        let world = World { held: before.iter().map(|(k, d)| (k.clone(), Some(*d))).collect(), ..World::default() };
        let decision = world.decide(&wanted, &BTreeSet::new(), &prune);
        let doomed: Vec<&ObjectKey> = decision.steps().iter().filter_map(|s| if let Step::Prune(keys) = s { Some(keys) } else { None }).flatten().collect();
        prop_assert!(prune.data_bearing || doomed.iter().all(|k| !holds_data(&k.group, &k.kind)));
        prop_assert!(prune.enabled || doomed.is_empty());
        prop_assert!(doomed.len() <= 5 || doomed.len() * 100 <= before.len() * usize::from(prune.max_share));
        prop_assert!(doomed.is_empty() || doomed.len() < before.len() || prune.max_share == 100);
        prop_assert!(doomed.iter().all(|k| !wanted.contains_key(*k)));
    }

    #[test]
    fn everything_is_tried_and_recorded_before_anything_is_applied_and_ranks_are_kept(before in wishes(), wanted in wishes(), prune in prunes()) {
        let world = World { held: before.iter().map(|(k, d)| (k.clone(), Some(*d))).collect(), ..World::default() };
        let decision = world.decide(&wanted, &BTreeSet::new(), &prune);
        let (mut tried, mut recorded, mut applied_rank, mut pruned_rank) = (BTreeSet::new(), BTreeSet::new(), None, None);
        for step in decision.steps() {
            match step {
                Step::Try(keys) => tried.extend(keys.clone()),
                Step::Record(keys) => recorded.extend(keys.clone()),
                Step::Apply(keys) => {
                    for k in keys {
                        prop_assert!(tried.contains(k));
                        prop_assert!(recorded.contains(k) || before.contains_key(k));
                        prop_assert!(applied_rank <= Some(rank(k)));
                        applied_rank = Some(rank(k));
                        prop_assert!(pruned_rank.is_none(), "nothing is applied after something was deleted");
                    }
                }
                Step::Prune(keys) => {
                    for k in keys {
                        prop_assert!(pruned_rank.is_none_or(|r| r >= rank(k)));
                        pruned_rank = Some(rank(k));
                    }
                }
                Step::Forget(_) | Step::Keep(_) => {}
            }
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = yaml::parse("a.yaml", &bytes);
    }

    #[test]
    fn no_document_makes_the_checker_panic(text in "[a-z:{}\\[\\]\"' \n&*!|>-]{0,200}") {
        if let Ok(documents) = yaml::parse("a.yaml", text.as_bytes()) {
            for document in &documents {
                let _ = check("a.yaml", &text, document, &policy(), &Kinds::default());
            }
        }
    }
}

fn policy() -> Policy {
    Policy::new("civil", "civil", &Allow::default())
}

#[allow(clippy::result_large_err)]
fn checked(text: &str) -> Result<super::Manifest, super::Problem> {
    let documents = yaml::parse("dir/a.yaml", text.as_bytes()).map_err(|p| *p)?;
    check("dir/a.yaml", text, &documents[0], &policy(), &Kinds::default()).map_err(|p| *p)
}

#[test]
fn an_object_is_placed_labelled_and_stripped_of_what_servers_write() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, uid: x, resourceVersion: '1', labels: {mine: '1'}}\nstatus: {}\ndata: {k: v}\n";
    let manifest = checked(text).unwrap();
    assert_eq!(manifest.key.namespace.as_deref(), Some("civil"));
    let metadata = &manifest.value["metadata"];
    assert_eq!(
        metadata["labels"],
        json!({"mine": "1", "holdfast.dev/source": "civil", "holdfast.dev/source-namespace": "civil"})
    );
    assert!(metadata.get("uid").is_none() && manifest.value.get("status").is_none());
    assert_eq!(
        metadata["annotations"]["holdfast.dev/digest"],
        json!(manifest.digest.to_string())
    );
}

#[test]
fn mistakes_say_where_what_and_what_would_be_right() {
    let cases = [
        ("kind: ConfigMap\nmetadata: {name: a}\n", "apiVersion", 1, "write"),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: 5\n",
            "metadata.name",
            4,
            "quote",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  generateName: x-\n",
            "metadata.generateName",
            4,
            "metadata.name",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ../x\n",
            "metadata.name",
            4,
            "a-z",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  namespace: kube-system\n",
            "metadata.namespace",
            5,
            "spec.allow.namespaces",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n",
            "kind",
            2,
            "spec.allow.kinds",
        ),
        (
            "apiVersion: holdfast.dev/v1alpha1\nkind: GitSource\nmetadata: {name: a}\n",
            "kind",
            2,
            "spec.allow.kinds",
        ),
        (
            "apiVersion: v2\nkind: ConfigMap\nmetadata: {name: a}\n",
            "apiVersion",
            1,
            "check the spelling",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  annotations:\n    x: 5\n",
            "metadata.annotations.x",
            6,
            "quotes",
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData:\n  p: 5\n",
            "stringData.p",
            5,
            "quotes",
        ),
    ];
    for (text, field, line, says) in cases {
        let problem = checked(text).unwrap_err();
        assert_eq!(
            (problem.field.as_deref(), problem.line),
            (Some(field), Some(line)),
            "{text}: {problem:?}"
        );
        assert!(problem.message.contains(says), "{text}: {problem:?}");
        assert_eq!(problem.file.as_deref(), Some("dir/a.yaml"));
    }
}

#[test]
fn cluster_scoped_kinds_need_to_be_listed() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n";
    assert!(checked(text).is_err());
    let allow = Allow {
        kinds: Some(vec![AllowedKind {
            group: String::new(),
            kind: "Namespace".into(),
        }]),
        ..Allow::default()
    };
    let documents = yaml::parse("a.yaml", text.as_bytes()).unwrap();
    let manifest = check(
        "a.yaml",
        text,
        &documents[0],
        &Policy::new("s", "n", &allow),
        &Kinds::default(),
    )
    .unwrap();
    assert_eq!(manifest.key.namespace, None);
}

#[test]
fn the_same_object_in_two_places_is_named_with_both() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: civil}\n";
    let documents = yaml::parse("a.yaml", text.as_bytes()).unwrap();
    let manifests: Vec<_> = documents
        .iter()
        .map(|d| check("a.yaml", text, d, &policy(), &Kinds::default()).unwrap())
        .collect();
    let problems = duplicates(manifests.iter().map(|m| (&m.key, &m.origin)));
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].message.contains("a.yaml line 1") && problems[0].line == Some(5),
        "{problems:?}"
    );
}

#[test]
fn a_secrets_text_is_owned_as_data() {
    let manifest = checked("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {p: geheim}\n").unwrap();
    assert_eq!(manifest.value["data"], json!({"p": "Z2VoZWlt"}));
    assert!(manifest.value.get("stringData").is_none());
}
