//! Checks a user's parameters against the real engine's own table.

use std::collections::BTreeMap;

use holdfast_wire::RejectedParameter;

use crate::catalog::Catalog;
use crate::value::fits;
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

fn unknown(name: &str, catalog: &Catalog) -> String {
    let close = catalog.0.keys().map(|k| (distance(name, k), k)).min();
    match close {
        Some((d, k)) if d <= 3 => format!("this engine has no such parameter; did you mean {k}?"),
        _ => "this engine has no such parameter".to_owned(),
    }
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
    use crate::catalog::{Row, sample as catalog};

    fn why(name: &str, value: &str) -> Option<String> {
        let wanted = [(name.to_owned(), value.to_owned())].into();
        check(&wanted, Some(&catalog())).rejected.pop().map(|r| r.why)
    }

    #[test]
    fn names_are_those_of_this_engine_or_of_an_extension() {
        for (n, v) in [("Work_Mem", "1.5 GB"), ("pg_stat_statements.max", "anything")] {
            assert_eq!(why(n, v), None, "{n}={v}");
        }
        let says = |n: &str, v: &str, words: &str| {
            let said = why(n, v).unwrap_or_else(|| panic!("{n}={v} passed"));
            assert!(said.contains(words), "{said}");
        };
        says("work_men", "64MB", "did you mean work_mem?");
        says("nonsense_of_mine", "1", "no such parameter");
        says("fsync", "off", "acknowledged commits");
        says("work_mem", "lots", "must be a number");
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
}
