//! The comparison, and how it looks.

use std::collections::BTreeMap;

use holdfast_api::git_source::{Prune, RECONCILE_ANNOTATION};
use holdfast_core::source::inventory::Inventory;
use holdfast_core::source::object::annotation;
use holdfast_core::source::{Manifest, ObjectKey, Why, diff, prune, why};
use serde_json::Value;

use super::revision::Wanted;
use crate::paint::{Paint, Tone};

/// What was compared with what.
pub struct Place {
    /// `namespace/name` of the GitSource.
    pub source: String,
    /// The commit.
    pub wanted: String,
    /// The commit in force.
    pub in_force: Option<String>,
}

/// What a commit would do to what is there.
#[derive(Debug, Default)]
pub struct Comparison {
    create: Vec<String>,
    change: Vec<String>,
    delete: Vec<ObjectKey>,
    /// Gone from Git, and kept because pruning is off.
    keep: Vec<ObjectKey>,
    /// Left alone by annotation.
    paused: Vec<ObjectKey>,
    /// Why the commit would be refused for what has gone from it.
    refused: Option<Why>,
}

impl Comparison {
    /// Whether anything is not as the commit wants it.
    pub fn differs(&self) -> bool {
        !(self.create.is_empty() && self.change.is_empty() && self.delete.is_empty() && self.refused.is_none())
    }
}

/// Compares what a commit wants with what is there.
pub fn compare(
    wanted: &Wanted,
    live: &BTreeMap<ObjectKey, Value>,
    inventory: &Inventory,
    prune: &Prune,
    manager: &str,
) -> Comparison {
    compare_objects(&wanted.objects, live, inventory, prune, manager)
}

fn compare_objects(
    wanted: &BTreeMap<ObjectKey, Manifest>,
    live: &BTreeMap<ObjectKey, Value>,
    inventory: &Inventory,
    prune: &Prune,
    manager: &str,
) -> Comparison {
    let mut found = Comparison::default();
    for (key, manifest) in wanted {
        let there = live.get(key);
        let paused = |value: &Value| annotation(value, RECONCILE_ANNOTATION) == Some("disabled");
        if paused(&manifest.value) || there.is_some_and(paused) {
            found.paused.push(key.clone());
            continue;
        }
        let text = diff::render(manifest, there, manager);
        match there {
            None => found.create.push(text),
            Some(_) if text.is_empty() => {}
            Some(_) => found.change.push(text),
        }
    }
    let held: Vec<&ObjectKey> = inventory
        .entries()
        .filter(|(_, orphan)| !orphan)
        .map(|(key, _)| key)
        .collect();
    let gone: Vec<ObjectKey> = held
        .iter()
        .filter(|key| !wanted.contains_key(**key))
        .map(|key| (*key).clone())
        .collect();
    match prune::judge(&gone, held.len(), prune) {
        Ok(doomed) => {
            found.keep = gone.into_iter().filter(|key| !doomed.contains(key)).collect();
            found.delete = doomed;
        }
        Err(why) => found.refused = Some(why),
    }
    found
}

/// Draws it: a diff for each object, then what it comes to.
pub fn draw(place: &Place, comparison: &Comparison, paint: Paint) -> String {
    let is_in_force = place.in_force.as_deref() == Some(place.wanted.as_str());
    let mut text = match &place.in_force {
        Some(_) if is_in_force => format!(
            "{}: the cluster against {}, which is in force\n",
            place.source,
            why::short(&place.wanted)
        ),
        Some(in_force) => format!(
            "{}: the cluster against {}; in force is {}\n",
            place.source,
            why::short(&place.wanted),
            why::short(in_force)
        ),
        None => format!("{}: the cluster against {}\n", place.source, why::short(&place.wanted)),
    };
    for diff in comparison.change.iter().chain(&comparison.create) {
        text += "\n";
        for line in diff.lines() {
            let tone = match line.as_bytes().first() {
                Some(b'+') => Tone::Good,
                Some(b'-') => Tone::Bad,
                Some(b'@') => Tone::Faint,
                _ => Tone::Plain,
            };
            text += &(paint.text(tone, line) + "\n");
        }
    }
    text += "\n";
    for (keys, tone, what) in [
        (&comparison.delete, Tone::Bad, "to be deleted: gone from Git"),
        (
            &comparison.keep,
            Tone::Plain,
            "kept: gone from Git, and spec.prune.enabled is false",
        ),
        (
            &comparison.paused,
            Tone::Plain,
            "left alone: holdfast.dev/reconcile is disabled",
        ),
    ] {
        for key in keys {
            text += &(paint.text(tone, &format!("{key}: {what}")) + "\n");
        }
    }
    if let Some(why) = &comparison.refused {
        text += &(paint.text(Tone::Bad, &format!("this commit is refused: {why}")) + "\n");
    }
    if comparison.differs() {
        text += &format!(
            "{} to create, {} to change, {} to delete\n",
            comparison.create.len(),
            comparison.change.len(),
            comparison.delete.len()
        );
    } else {
        text += "nothing differs\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_api::git_source::Allow;
    use holdfast_core::source::check::{Policy, check};
    use holdfast_core::source::kinds::Kinds;
    use holdfast_core::source::yaml;
    use serde_json::json;

    const US: &str = "holdfast-source:civil/git";

    fn manifests(text: &str) -> BTreeMap<ObjectKey, Manifest> {
        let policy = Policy::new("git", "civil", &Allow::default());
        let documents = yaml::parse("a.yaml", text.as_bytes()).unwrap();
        documents
            .iter()
            .map(|d| check("a.yaml", text, d, &policy, &Kinds::default()).unwrap())
            .map(|m| (m.key.clone(), m))
            .collect()
    }

    fn config_map(name: &str, value: &str) -> String {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{value: {value}}}\n---\n")
    }

    /// As the server has it after we applied it.
    fn applied(manifest: &Manifest) -> Value {
        let mut live = manifest.value.clone();
        live["metadata"]["managedFields"] = json!([{"manager": US, "operation": "Apply", "fieldsV1": {
            "f:metadata": {"f:labels": {}, "f:annotations": {}}, "f:data": {"f:value": {}, "f:password": {}}}}]);
        live
    }

    fn picture(
        wanted: &str,
        live: &BTreeMap<ObjectKey, Value>,
        held: &BTreeMap<ObjectKey, Manifest>,
        prune: &Prune,
    ) -> String {
        let mut inventory = Inventory::default();
        inventory.add(held.keys(), false);
        let comparison = compare_objects(&manifests(wanted), live, &inventory, prune, US);
        let place = Place {
            source: "civil/git".into(),
            wanted: "a".repeat(40),
            in_force: Some("b".repeat(40)),
        };
        draw(&place, &comparison, Paint(false))
    }

    #[test]
    fn what_is_as_git_wants_it_does_not_differ() {
        let wanted = config_map("a", "one");
        let held = manifests(&wanted);
        let live = held.iter().map(|(k, m)| (k.clone(), applied(m))).collect();
        let text = picture(&wanted, &live, &held, &Prune::default());
        assert!(text.ends_with("\nnothing differs\n"), "{text}");
    }

    #[test]
    fn changes_creations_and_deletions_are_told_apart() {
        let held = manifests(&(config_map("a", "one") + &config_map("b", "one") + &config_map("p", "one")));
        let mut live: BTreeMap<_, _> = held.iter().map(|(k, m)| (k.clone(), applied(m))).collect();
        for (key, object) in &mut live {
            if key.name == "p" {
                object["metadata"]["annotations"][RECONCILE_ANNOTATION] = json!("disabled");
            }
        }
        let wanted = config_map("a", "two") + &config_map("c", "new") + &config_map("p", "two");
        let text = picture(&wanted, &live, &held, &Prune::default());
        for part in [
            "civil/git: the cluster against aaaaaaaaaaaa; in force is bbbbbbbbbbbb",
            "-data.value: \"one\"\n+data.value: \"two\"\n",
            "+++ ConfigMap civil/c (Git)",
            "ConfigMap civil/b: to be deleted",
            "ConfigMap civil/p: left alone",
            "1 to create, 1 to change, 1 to delete",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(
            !text.contains("holdfast.dev/digest: "),
            "our own mark is no difference: {text}"
        );
    }

    #[test]
    fn a_commit_that_removes_too_much_is_said_to_be_refused() {
        let held = manifests(&(1..=12).map(|n| config_map(&format!("c{n}"), "x")).collect::<String>());
        let live = held.iter().map(|(k, m)| (k.clone(), applied(m))).collect();
        let text = picture(&config_map("c1", "x"), &live, &held, &Prune::default());
        assert!(
            text.contains("this commit is refused: 11 of 12 objects have gone from Git"),
            "{text}"
        );
        let off = Prune {
            enabled: false,
            ..Prune::default()
        };
        let text = picture(&config_map("c1", "x"), &live, &held, &off);
        assert!(
            text.contains("ConfigMap civil/c2: kept") && text.ends_with("nothing differs\n"),
            "{text}"
        );
    }

    #[test]
    fn a_secret_differs_without_being_shown() {
        let secret = |password: &str| {
            format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData: {{password: {password}}}\n")
        };
        let held = manifests(&secret("hunter2"));
        let live: BTreeMap<_, _> = held.iter().map(|(k, m)| (k.clone(), applied(m))).collect();
        let text = picture(&secret("correcthorse"), &live, &held, &Prune::default());
        assert!(
            text.contains("+data.password") && text.contains("-data.password"),
            "{text}"
        );
        let new = picture(&secret("correcthorse"), &BTreeMap::new(), &held, &Prune::default());
        for text in [text, new] {
            for shown in ["hunter2", "correcthorse", "aHVudGVyMg", "Y29ycmVjdGhvcnNl"] {
                assert!(!text.contains(shown), "{text}");
            }
        }
    }
}
