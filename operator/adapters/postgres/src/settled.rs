//! What the engine runs with: the wanted parameters that it takes, and the last good ones in place of the others.

use std::collections::BTreeMap;

use holdfast_wire::RejectedParameter;

use crate::catalog::Catalog;
use crate::files::{read_optional, write_whole};
use crate::layout::Layout;
use crate::managed;
use crate::parameters::{Checked, check};

/// What is known of the wanted parameters and of those before them.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// As the user wrote them.
    pub wanted: &'a BTreeMap<String, String>,
    /// The engine's own table, once it was read.
    pub catalog: Option<&'a Catalog>,
    /// What was decided last time.
    pub before: &'a BTreeMap<String, String>,
    /// What the engine is known to come up with.
    pub good: &'a BTreeMap<String, String>,
    /// What the running engine refused to take up.
    pub refused: &'a BTreeMap<String, String>,
    /// Why the engine did not come up with what it did not have before.
    pub distrusted: Option<&'a str>,
}

/// What the engine gets: each wanted value that nothing speaks against; in place of the others, the last good ones.
pub fn settle(known: &Known) -> Checked {
    let mut checked = check(known.wanted, known.catalog);
    let last = check(known.before, known.catalog).apply;
    let refused = |name: &str, value: &str| known.refused.get(name).is_some_and(|v| v == value);
    for name in lower_names(&checked.rejected) {
        let value = last.get(&name).filter(|value| !refused(&name, value));
        if let Some(value) = value
            .or(known.good.get(&name))
            .filter(|_| managed::reason(&name).is_none())
        {
            checked.apply.insert(name, value.clone());
        }
    }
    take_back(
        &mut checked,
        known.good,
        "the engine refuses it; its log says why",
        refused,
    );
    if let Some(why) = known.distrusted {
        let new = |name: &str, value: &str| known.good.get(name).is_none_or(|good| good != value);
        take_back(
            &mut checked,
            known.good,
            &format!("the engine does not start: {why}"),
            new,
        );
        put_back(&mut checked, known, why);
    }
    checked
}

/// Puts back what was taken away from an engine that does not start without it, such as the `wal_level` of its slots.
fn put_back(checked: &mut Checked, known: &Known, why: &str) {
    let wanted: Vec<String> = known.wanted.keys().map(|name| name.to_ascii_lowercase()).collect();
    for (name, value) in known.good {
        if wanted.contains(name) || managed::reason(name).is_some() {
            continue;
        }
        checked.apply.insert(name.clone(), value.clone());
        checked.rejected.push(RejectedParameter {
            name: name.clone(),
            value: String::new(),
            why: format!("the engine does not start without it: {why}"),
        });
    }
}

/// Puts good values in the place of bad ones.
fn take_back(checked: &mut Checked, good: &BTreeMap<String, String>, why: &str, bad: impl Fn(&str, &str) -> bool) {
    for (name, value) in std::mem::take(&mut checked.apply) {
        if !bad(&name, &value) {
            checked.apply.insert(name, value);
            continue;
        }
        if let Some(value) = good.get(&name).filter(|g| **g != value) {
            checked.apply.insert(name.clone(), value.clone());
        }
        // What was put in the place of a rejected value is not itself the user's.
        if !lower_names(&checked.rejected).contains(&name) {
            checked.rejected.push(RejectedParameter {
                name,
                value,
                why: why.to_owned(),
            });
        }
    }
}

fn lower_names(rejected: &[RejectedParameter]) -> Vec<String> {
    rejected.iter().map(|r| r.name.to_ascii_lowercase()).collect()
}

/// What a running engine runs with: of the parameters that need a restart those that it was started with, of the others
/// those that it was last told.
pub fn in_force(
    started: &BTreeMap<String, String>,
    told: &BTreeMap<String, String>,
    catalog: Option<&Catalog>,
) -> BTreeMap<String, String> {
    let at_start = |name: &str| {
        catalog
            .and_then(|c| c.0.get(name))
            .is_none_or(|row| row.context == "postmaster")
    };
    let kept = started.iter().filter(|(name, _)| at_start(name));
    let taken_up = told.iter().filter(|(name, _)| !at_start(name));
    kept.chain(taken_up).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Raises those that a standby must not be below.
pub fn raise(parameters: &mut BTreeMap<String, String>, floors: &BTreeMap<String, u64>) {
    for (name, floor) in floors {
        let preset = match name.as_str() {
            "max_connections" => 100,
            "max_wal_senders" => 20,
            "max_worker_processes" => 8,
            "max_locks_per_transaction" => 64,
            _ => 0,
        };
        let own = parameters
            .get(name)
            .and_then(|v| v.trim().parse().ok())
            .unwrap_or(preset);
        if own < *floor {
            parameters.insert(name.clone(), floor.to_string());
        }
    }
}

/// The parameters with which the engine last came up.
pub fn load_good(layout: &Layout) -> Option<BTreeMap<String, String>> {
    serde_json::from_slice(&read_optional(&layout.good_file()).ok()??).ok()
}

/// Keeps them.
pub fn save_good(layout: &Layout, good: &BTreeMap<String, String>) {
    if load_good(layout).as_ref() == Some(good) {
        return;
    }
    if let Ok(bytes) = serde_json::to_vec(good)
        && let Err(e) = write_whole(&layout.good_file(), &bytes, 0o600)
    {
        tracing::warn!("cannot keep the good parameters: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::sample as catalog;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_refused_value_leaves_the_last_good_one_in_force() {
        let (catalog, empty) = (catalog(), BTreeMap::new());
        let (wanted, before, good) = (
            map(&[("Work_mem", "lots")]),
            map(&[("work_mem", "16MB")]),
            map(&[("work_mem", "8MB")]),
        );
        let known = Known {
            wanted: &wanted,
            catalog: Some(&catalog),
            before: &before,
            good: &good,
            refused: &empty,
            distrusted: None,
        };
        let now = settle(&known);
        assert_eq!(now.apply, before, "what was in force a moment ago stays");
        assert_eq!(now.rejected.len(), 1);
        let now = settle(&Known {
            before: &empty,
            ..known
        });
        assert_eq!(
            now.apply, good,
            "after a restart of the agent: what the engine last ran with"
        );
        let now = settle(&Known {
            refused: &before,
            ..known
        });
        assert_eq!(now.apply, good, "what the engine refused is not what stays");
        let wanted = before.clone();
        let now = settle(&Known {
            wanted: &wanted,
            refused: &before,
            ..known
        });
        assert_eq!(now.apply, good, "a value that only the engine itself can judge");
        assert!(now.rejected[0].why.contains("refuses"));
    }

    #[test]
    fn new_values_with_which_the_engine_does_not_start_are_taken_back() {
        let (catalog, empty) = (catalog(), BTreeMap::new());
        let wanted = map(&[("work_mem", "8MB"), ("shared_buffers", "900GB")]);
        let good = map(&[("work_mem", "8MB"), ("shared_buffers", "1GB")]);
        let now = settle(&Known {
            wanted: &wanted,
            catalog: Some(&catalog),
            before: &wanted,
            good: &good,
            refused: &empty,
            distrusted: Some("could not map anonymous shared memory"),
        });
        assert_eq!(now.apply, good);
        assert_eq!(now.rejected[0].name, "shared_buffers");
        assert!(now.rejected[0].why.contains("could not map"));
    }

    #[test]
    fn a_parameter_without_which_the_engine_does_not_start_is_put_back() {
        let (catalog, empty) = (catalog(), BTreeMap::new());
        let good = map(&[("wal_level", "logical"), ("work_mem", "8MB")]);
        let wanted = map(&[("Work_mem", "8MB")]);
        let known = Known {
            wanted: &wanted,
            catalog: Some(&catalog),
            before: &empty,
            good: &good,
            refused: &empty,
            distrusted: None,
        };
        assert_eq!(settle(&known).apply, map(&[("work_mem", "8MB")]));
        let now = settle(&Known {
            distrusted: Some("a logical slot exists"),
            ..known
        });
        assert_eq!(now.apply, good);
        assert_eq!((now.rejected.len(), now.rejected[0].name.as_str()), (1, "wal_level"));
    }

    #[test]
    fn what_waits_for_a_restart_is_not_in_force() {
        let mut catalog = catalog();
        catalog.0.get_mut("shared_buffers").unwrap().context = "postmaster".into();
        let started = map(&[("shared_buffers", "1GB"), ("work_mem", "4MB")]);
        let told = map(&[("shared_buffers", "2GB"), ("jit", "off")]);
        let now = in_force(&started, &told, Some(&catalog));
        assert_eq!(now, map(&[("shared_buffers", "1GB"), ("jit", "off")]));
    }

    #[test]
    fn a_standby_is_raised_to_its_primary() {
        let mut p = [("max_connections".to_owned(), "50".to_owned())].into();
        raise(
            &mut p,
            &[("max_connections".to_owned(), 200), ("max_wal_senders".to_owned(), 10)].into(),
        );
        assert_eq!(p, [("max_connections".to_owned(), "200".to_owned())].into());
    }
}
