//! Checks a user's parameters against the real engine's own table.

use std::collections::BTreeMap;

use holdfast_wire::RejectedParameter;

use crate::catalog::{Catalog, Row};
use crate::files::{read_optional, write_whole};
use crate::layout::Layout;
use crate::{managed, subscribers};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// In force from now on.
    pub apply: BTreeMap<String, String>,
    /// Not in force, with what would be right.
    pub rejected: Vec<RejectedParameter>,
}

/// Sorts parameters into good and bad. Without a table only managed names are refused.
pub fn check(wanted: &BTreeMap<String, String>, catalog: Option<&Catalog>) -> Checked {
    let mut checked = Checked::default();
    for (name, value) in wanted {
        let lower = name.to_ascii_lowercase();
        let verdict = match (managed::reason(&lower), catalog) {
            (Some(why), _) => Err(format!("Holdfast manages it: {why}")),
            _ if lower == "wal_level" && !is_one_of(&managed::WAL_LEVELS, value) => Err(format!(
                "must be one of {}: failover relies on it",
                managed::WAL_LEVELS.join(", ")
            )),
            (None, None) => Ok(()),
            (None, Some(catalog)) => match catalog.0.get(&lower) {
                Some(row) => fits(row, value),
                // An extension's parameter; the engine takes any until the extension is loaded.
                None if lower.contains('.') => Ok(()),
                None => Err(unknown(&lower, catalog)),
            },
        };
        match verdict {
            Ok(()) => {
                checked.apply.insert(lower, value.clone());
            }
            Err(why) => checked.rejected.push(RejectedParameter {
                name: name.clone(),
                value: value.clone(),
                why,
            }),
        }
    }
    refuse_silent_standbys(&mut checked, catalog);
    checked
}

/// An engine that copies logical slots does so only with feedback from its standbys.
fn refuse_silent_standbys(checked: &mut Checked, catalog: Option<&Catalog>) {
    let copies = catalog.is_some_and(|c| c.0.contains_key("sync_replication_slots"));
    let name = "hot_standby_feedback";
    // Each way to write it that the engine takes: 0, f…, n…, of….
    let off = |v: &&String| {
        let v = v.trim().to_ascii_lowercase();
        v.starts_with(['0', 'f', 'n']) || v.starts_with("of")
    };
    if let (true, Some(value)) = (
        copies && subscribers::logical(&checked.apply),
        checked.apply.get(name).filter(off).cloned(),
    ) {
        checked.apply.remove(name);
        checked.rejected.push(RejectedParameter {
            name: name.to_owned(),
            value,
            why: managed::FEEDBACK.to_owned(),
        });
    }
}

fn is_one_of(values: &[&str], value: &str) -> bool {
    values.iter().any(|v| v.eq_ignore_ascii_case(value.trim()))
}

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

fn unknown(name: &str, catalog: &Catalog) -> String {
    let close = catalog.0.keys().map(|k| (distance(name, k), k)).min();
    match close {
        Some((d, k)) if d <= 3 => format!("this engine has no such parameter; did you mean {k}?"),
        _ => "this engine has no such parameter".to_owned(),
    }
}

fn fits(row: &Row, value: &str) -> Result<(), String> {
    if row.context == "internal" {
        return Err("it is a fact of the build or of the data directory; nobody can set it".to_owned());
    }
    match row.vartype.as_str() {
        "bool" => boolean(value),
        "enum" => {
            if row.values.iter().any(|v| v.eq_ignore_ascii_case(value))
                || (is_boolean(value) && row.values.iter().any(|v| v == "on"))
            {
                Ok(())
            } else {
                Err(format!("must be one of {}", row.values.join(", ")))
            }
        }
        "integer" | "real" => number(row, value),
        _ if value.contains('\0') || value.contains('\n') => Err("must be on one line".to_owned()),
        _ => Ok(()),
    }
}

fn is_boolean(value: &str) -> bool {
    let v = value.trim().to_ascii_lowercase();
    let begins = |word: &str, least: usize| v.len() >= least && word.starts_with(&v);
    v == "1"
        || v == "0"
        || begins("true", 1)
        || begins("false", 1)
        || begins("yes", 1)
        || begins("no", 1)
        || begins("on", 2)
        || begins("off", 2)
}

fn boolean(value: &str) -> Result<(), String> {
    if is_boolean(value) {
        Ok(())
    } else {
        Err("must be on or off".to_owned())
    }
}

/// Units by family, each as a multiple of the family's smallest.
const MEMORY: &[(&str, f64)] = &[
    ("B", 1.0),
    ("kB", 1024.0),
    ("MB", 1_048_576.0),
    ("GB", 1_073_741_824.0),
    ("TB", 1_099_511_627_776.0),
];
const TIME: &[(&str, f64)] = &[
    ("us", 1.0),
    ("ms", 1e3),
    ("s", 1e6),
    ("min", 6e7),
    ("h", 3.6e9),
    ("d", 8.64e10),
];

fn number(row: &Row, value: &str) -> Result<(), String> {
    let text = value.trim();
    let at = text
        .char_indices()
        .find(|(i, c)| {
            !(c.is_ascii_digit()
                || matches!(c, '.' | '+' | '-')
                || (matches!(c, 'e' | 'E') && *i > 0 && row.vartype == "real"))
        })
        .map_or(text.len(), |(i, _)| i);
    let (digits, unit) = text.split_at(at);
    let unit = unit.trim();
    let shape = || match &row.unit {
        None => "must be a number".to_owned(),
        Some(u) => match family(u) {
            Some((f, _)) => {
                let names: Vec<&str> = f.iter().map(|(n, _)| *n).collect();
                format!(
                    "must be a number with one of the units {} (without one: {u})",
                    names.join(", ")
                )
            }
            None => format!("must be a number of {u}"),
        },
    };
    // Hexadecimal integers are the engine's to judge.
    if digits == "0" && unit.starts_with(['x', 'X']) {
        return Ok(());
    }
    let number: f64 = digits.parse().map_err(|_| shape())?;
    let scaled = if unit.is_empty() {
        number
    } else {
        let (units, base) = row.unit.as_deref().and_then(family).ok_or_else(shape)?;
        let (_, factor) = units.iter().find(|(n, _)| *n == unit).ok_or_else(shape)?;
        number * factor / base
    };
    let bound = |b: &Option<String>| b.as_ref().and_then(|b| b.parse::<f64>().ok());
    let (min, max) = (bound(&row.min).unwrap_or(f64::MIN), bound(&row.max).unwrap_or(f64::MAX));
    let rounded = if row.vartype == "integer" {
        scaled.round()
    } else {
        scaled
    };
    if rounded < min || rounded > max {
        let unit = row.unit.as_deref().map(|u| format!(" (in {u})")).unwrap_or_default();
        let show = |b: &Option<String>| b.clone().unwrap_or_default();
        return Err(format!(
            "must be between {} and {}{unit}",
            show(&row.min),
            show(&row.max)
        ));
    }
    Ok(())
}

/// The family of a unit of `pg_settings`, and its size in the family's smallest: `8kB` is 8192 bytes.
fn family(unit: &str) -> Option<(&'static [(&'static str, f64)], f64)> {
    let at = unit.find(|c: char| !c.is_ascii_digit())?;
    let (count, name) = unit.split_at(at);
    let count: f64 = if count.is_empty() { 1.0 } else { count.parse().ok()? };
    [MEMORY, TIME].into_iter().find_map(|f| {
        let (_, size) = f.iter().find(|(n, _)| *n == name)?;
        Some((f, count * size))
    })
}

/// Edit distance, to guess what was meant.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut before = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (above, y) in row.iter().skip(1).zip(b.chars()) {
            left = (before + usize::from(x != y)).min(above + 1).min(left + 1);
            next.push(left);
            before = *above;
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        let row = |vartype: &str, unit: Option<&str>, min: &str, max: &str| Row {
            vartype: vartype.into(),
            unit: unit.map(Into::into),
            min: Some(min.into()),
            max: Some(max.into()),
            values: Vec::new(),
            context: "user".into(),
        };
        let mut all: BTreeMap<String, Row> = [
            ("work_mem", row("integer", Some("kB"), "64", "2147483647")),
            ("shared_buffers", row("integer", Some("8kB"), "16", "1073741823")),
            ("statement_timeout", row("integer", Some("ms"), "0", "2147483647")),
            ("max_connections", row("integer", None, "1", "262143")),
            ("seq_page_cost", row("real", None, "0", "1.79769e+308")),
            ("jit", row("bool", None, "", "")),
            ("search_path", row("string", None, "", "")),
            (
                "block_size",
                Row {
                    context: "internal".into(),
                    ..row("integer", None, "8192", "8192")
                },
            ),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into();
        let values = ["none", "ddl", "mod", "all"].map(str::to_owned).to_vec();
        all.insert(
            "log_statement".into(),
            Row {
                values,
                ..row("enum", None, "", "")
            },
        );
        Catalog(all)
    }

    fn why(name: &str, value: &str) -> Option<String> {
        let wanted = [(name.to_owned(), value.to_owned())].into();
        check(&wanted, Some(&catalog())).rejected.pop().map(|r| r.why)
    }

    #[test]
    fn good_values_pass() {
        for (n, v) in [
            ("work_mem", "64MB"),
            ("Work_Mem", "1.5 GB"),
            ("shared_buffers", "16384"),
            ("shared_buffers", "256MB"),
            ("statement_timeout", "2min"),
            ("max_connections", "200"),
            ("max_connections", "0x10"),
            ("seq_page_cost", "1e-1"),
            ("jit", "OFF"),
            ("log_statement", "DDL"),
            ("search_path", "a, b"),
            ("pg_stat_statements.max", "anything"),
        ] {
            assert_eq!(why(n, v), None, "{n}={v}");
        }
    }

    #[test]
    fn bad_values_are_refused_with_what_would_be_right() {
        let says = |n: &str, v: &str, words: &str| {
            let said = why(n, v).unwrap_or_else(|| panic!("{n}={v} passed"));
            assert!(said.contains(words), "{said}");
        };
        says("work_men", "64MB", "did you mean work_mem?");
        says("work_mem", "64mb", "one of the units B, kB, MB");
        says("work_mem", "lots", "must be a number");
        says("work_mem", "1kB", "between 64 and 2147483647 (in kB)");
        says("max_connections", "10MB", "must be a number");
        says("max_connections", "0", "between 1 and 262143");
        says("jit", "maybe", "on or off");
        says("log_statement", "some", "one of none, ddl, mod, all");
        says("block_size", "8192", "nobody can set it");
        says("fsync", "off", "acknowledged commits");
        says("nonsense_of_mine", "1", "no such parameter");
    }

    #[test]
    fn logical_replication_can_be_asked_for_and_needs_standbys_that_answer() {
        assert_eq!(
            why("wal_level", "logical").as_deref(),
            Some("this engine has no such parameter")
        );
        assert!(why("wal_level", "minimal").unwrap().contains("replica, logical"));
        let row = |vartype: &str| Row {
            vartype: vartype.into(),
            values: ["minimal", "replica", "logical"].map(str::to_owned).to_vec(),
            ..catalog().0["jit"].clone()
        };
        let mut engine = catalog();
        engine.0.insert("wal_level".into(), row("enum"));
        engine.0.insert("hot_standby_feedback".into(), row("bool"));
        let silent = map(&[("wal_level", "logical"), ("hot_standby_feedback", "off")]);
        assert_eq!(
            check(&silent, Some(&engine)).rejected,
            [],
            "an engine that copies no slots"
        );
        engine.0.insert("sync_replication_slots".into(), row("bool"));
        let now = check(&silent, Some(&engine));
        assert_eq!(now.apply, map(&[("wal_level", "logical")]));
        assert!(now.rejected[0].why.contains("copy the primary's slots"));
        for fine in [
            map(&[("wal_level", "logical"), ("hot_standby_feedback", "on")]),
            map(&[("wal_level", "replica"), ("hot_standby_feedback", "off")]),
        ] {
            assert_eq!(check(&fine, Some(&engine)).apply, fine);
        }
    }

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
