//! What a source has applied, written down in ConfigMaps of at most 1,000 entries each.
//!
//! One object for all entries would meet etcd's limit of about 1.5 MiB; 1,000 entries are at most some 400 KiB. An entry
//! stays in its shard, so a change of membership rewrites one or two shards and a change of content none.

use std::collections::{BTreeMap, BTreeSet};

use super::ObjectKey;

/// Entries per ConfigMap.
pub const SHARD: usize = 1_000;

/// All entries, by shard. An entry says whether the object was kept after it had gone from Git.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    shards: BTreeMap<u32, BTreeMap<ObjectKey, bool>>,
}

impl Inventory {
    /// Reads one shard from the text in its ConfigMap. Lines that cannot be read are dropped: a person edited them.
    pub fn read(&mut self, shard: u32, text: &str) {
        let entries = text.lines().filter_map(parse).collect();
        self.shards.insert(shard, entries);
    }

    /// The text of one shard.
    pub fn text(&self, shard: u32) -> String {
        let mut text = String::new();
        for (key, orphan) in self.shards.get(&shard).into_iter().flatten() {
            text += &format!(
                "{}/{}/{}/{}{}\n",
                key.group,
                key.kind,
                key.namespace.as_deref().unwrap_or(""),
                key.name,
                if *orphan { "/orphan" } else { "" }
            );
        }
        text
    }

    /// All objects, with whether each is an orphan.
    pub fn entries(&self) -> impl Iterator<Item = (&ObjectKey, bool)> {
        self.shards.values().flatten().map(|(key, orphan)| (key, *orphan))
    }

    /// How many shards have entries or had them.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Whether the object is in it.
    pub fn contains(&self, key: &ObjectKey) -> bool {
        self.shards.values().any(|s| s.contains_key(key))
    }

    /// Adds objects (or makes orphans of them, or takes that back); returns the shards that must be written.
    pub fn add<'a>(&mut self, keys: impl IntoIterator<Item = &'a ObjectKey>, orphan: bool) -> BTreeSet<u32> {
        let mut dirty = BTreeSet::new();
        for key in keys {
            if let Some((shard, entry)) = self
                .shards
                .iter_mut()
                .find_map(|(n, s)| s.get_mut(key).map(|e| (*n, e)))
            {
                if *entry != orphan {
                    *entry = orphan;
                    dirty.insert(shard);
                }
                continue;
            }
            let roomy = self.shards.iter().find(|(_, s)| s.len() < SHARD).map(|(n, _)| *n);
            let shard = roomy.unwrap_or_else(|| self.shards.keys().next_back().map_or(0, |n| n + 1));
            self.shards.entry(shard).or_default().insert(key.clone(), orphan);
            dirty.insert(shard);
        }
        dirty
    }

    /// Takes objects out; returns the shards that must be written.
    pub fn remove<'a>(&mut self, keys: impl IntoIterator<Item = &'a ObjectKey>) -> BTreeSet<u32> {
        let mut dirty = BTreeSet::new();
        for key in keys {
            for (n, shard) in &mut self.shards {
                if shard.remove(key).is_some() {
                    dirty.insert(*n);
                }
            }
        }
        dirty
    }
}

fn parse(line: &str) -> Option<(ObjectKey, bool)> {
    let mut parts = line.split('/');
    let (group, kind, namespace, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if kind.is_empty() || name.is_empty() {
        return None;
    }
    let key = ObjectKey {
        group: group.to_owned(),
        kind: kind.to_owned(),
        namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
        name: name.to_owned(),
    };
    Some((key, parts.next() == Some("orphan")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> ObjectKey {
        ObjectKey {
            group: String::new(),
            kind: "ConfigMap".into(),
            namespace: Some("a".into()),
            name: format!("c{n}"),
        }
    }

    #[test]
    fn entries_stay_in_their_shard_and_survive_the_text() {
        let keys: Vec<_> = (0..2_500).map(key).collect();
        let mut inventory = Inventory::default();
        assert_eq!(inventory.add(&keys, false).len(), 3);
        assert!(inventory.add(&keys, false).is_empty(), "nothing to write twice");
        assert_eq!(inventory.remove([&keys[1_500]]).into_iter().collect::<Vec<_>>(), [1]);
        assert_eq!(
            inventory.add([&key(9_999)], true).into_iter().collect::<Vec<_>>(),
            [1],
            "the hole is filled"
        );
        let mut again = Inventory::default();
        for n in 0..3 {
            again.read(n, &inventory.text(n));
        }
        assert_eq!(again, inventory);
    }

    #[test]
    fn cluster_scoped_and_broken_lines() {
        let mut i = Inventory::default();
        i.read(0, "/Namespace//a\n\nrubbish\napps/Deployment/n/d\n");
        assert_eq!(
            i.entries().map(|(k, _)| k.to_string()).collect::<Vec<_>>(),
            ["Namespace a", "Deployment.apps n/d"]
        );
    }
}
