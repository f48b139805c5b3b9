//! Reads a parameter's value as the engine does: its kind, its unit and its bounds.

use crate::catalog::Row;

/// Whether the engine would take this value for this parameter; if not, what would be right.
pub(crate) fn fits(row: &Row, value: &str) -> Result<(), String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::sample;

    fn why(name: &str, value: &str) -> Option<String> {
        fits(&sample().0[name], value).err()
    }

    #[test]
    fn good_values_pass() {
        for (n, v) in [
            ("work_mem", "64MB"),
            ("work_mem", "1.5 GB"),
            ("shared_buffers", "16384"),
            ("shared_buffers", "256MB"),
            ("statement_timeout", "2min"),
            ("max_connections", "200"),
            ("max_connections", "0x10"),
            ("seq_page_cost", "1e-1"),
            ("jit", "OFF"),
            ("log_statement", "DDL"),
            ("search_path", "a, b"),
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
        says("work_mem", "64mb", "one of the units B, kB, MB");
        says("work_mem", "lots", "must be a number");
        says("work_mem", "1kB", "between 64 and 2147483647 (in kB)");
        says("max_connections", "10MB", "must be a number");
        says("max_connections", "0", "between 1 and 262143");
        says("jit", "maybe", "on or off");
        says("log_statement", "some", "one of none, ddl, mod, all");
        says("block_size", "8192", "nobody can set it");
    }
}
