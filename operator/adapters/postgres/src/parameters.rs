//! Checks a user's parameters against the real engine's own table.

use std::collections::BTreeMap;

use holdfast_wire::RejectedParameter;

use crate::catalog::{Catalog, Row};
use crate::files::{read_optional, write_whole};
use crate::layout::Layout;
use crate::managed;

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
    checked
}

/// A rejected parameter keeps the value with which the engine last came up.
pub fn keep_good(checked: &mut Checked, good: &Option<BTreeMap<String, String>>) {
    let Some(good) = good else { return };
    for r in &checked.rejected {
        let name = r.name.to_ascii_lowercase();
        if managed::reason(&name).is_none()
            && let Some(value) = good.get(&name)
        {
            checked.apply.insert(name, value.clone());
        }
    }
}

/// The engine did not come up: every value that it did not have before is refused.
pub fn distrust(checked: &mut Checked, good: &Option<BTreeMap<String, String>>, why: &str) {
    let none = BTreeMap::new();
    let good = good.as_ref().unwrap_or(&none);
    let new: Vec<String> = checked
        .apply
        .iter()
        .filter(|(k, v)| good.get(*k) != Some(*v))
        .map(|(k, _)| k.clone())
        .collect();
    for name in new {
        let value = checked.apply.remove(&name).unwrap_or_default();
        checked.rejected.push(RejectedParameter {
            name,
            value,
            why: format!("the engine does not start: {why}"),
        });
    }
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
    fn a_refused_value_leaves_the_last_good_one_in_force_and_one_that_stopped_a_start_is_refused() {
        let good = Some([("work_mem".to_owned(), "8MB".to_owned())].into());
        let wanted = [("work_mem".to_owned(), "lots".to_owned())].into();
        let mut checked = check(&wanted, Some(&catalog()));
        keep_good(&mut checked, &good);
        assert_eq!(checked.apply.get("work_mem").unwrap(), "8MB");

        let wanted = [("work_mem", "8MB"), ("shared_buffers", "900GB")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        let mut checked = check(&wanted, Some(&catalog()));
        distrust(&mut checked, &good, "could not map anonymous shared memory");
        assert_eq!(checked.apply.keys().collect::<Vec<_>>(), ["work_mem"]);
        assert!(checked.rejected[0].why.contains("could not map"));
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
