//! Bytes of a file → JSON values with their lines, bounded against bombs, and read the way kubectl reads.

use serde_json::{Number, Value};
use serde_saphyr::{Options, Spanned};

use super::Problem;
use crate::status::conditions::clip;

/// One document of a file, or one item of a `List` in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// First line, from 1.
    pub line: u32,
    /// The value.
    pub value: Value,
}

/// Reads all documents of a file. Empty documents are skipped, and a `List` becomes its items.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Vec<Document>, Box<Problem>> {
    let problem = |line: Option<u32>, message: String| {
        Box::new(Problem {
            file: Some(file.to_owned()),
            line,
            message,
            ..Problem::default()
        })
    };
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = bytes
            .get(..e.valid_up_to())
            .map(|head| 1 + head.iter().filter(|b| **b == b'\n').count());
        problem(
            line.and_then(|l| u32::try_from(l).ok()),
            "not UTF-8: save the file as UTF-8 text".into(),
        )
    })?;
    let documents: Vec<Spanned<Value>> =
        serde_saphyr::from_multiple_with_options(text, options(bytes.len())).map_err(|e| {
            let line = e
                .location()
                .map(|at| at.line())
                .filter(|l| *l > 0)
                .and_then(|l| u32::try_from(l).ok());
            problem(
                line,
                clip(format!("not readable as YAML: {}", e.without_snippet()), 512),
            )
        })?;
    let mut found = Vec::with_capacity(documents.len());
    for document in documents {
        let line = u32::try_from(document.defined.line()).unwrap_or(0).max(1);
        let mut value = document.value;
        if value.is_null() {
            continue;
        }
        whole_numbers(&mut value);
        expand(line, value, &mut found);
    }
    Ok(found)
}

/// kubectl (sigs.k8s.io/yaml) reads `1e3` and `0899` as integers; so that both mean the same object, integral floats
/// become integers here. 2^53 is where a double stops telling integers apart.
fn whole_numbers(value: &mut Value) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(n) if n.is_f64() => {
            if let Some(float) = n.as_f64()
                && float.fract() == 0.0
                && float.abs() <= EXACT
            {
                #[allow(clippy::cast_possible_truncation)] // integral and within 2^53: checked above
                let whole = float as i64;
                *value = Value::Number(Number::from(whole));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

fn expand(line: u32, value: Value, found: &mut Vec<Document>) {
    let is_list =
        value.get("kind").and_then(Value::as_str) == Some("List") && value.get("items").is_some_and(Value::is_array);
    if !is_list {
        found.push(Document { line, value });
        return;
    }
    if let Value::Object(mut fields) = value
        && let Some(Value::Array(items)) = fields.remove("items")
    {
        found.extend(items.into_iter().map(|value| Document { line, value }));
    }
}

/// Bounds grow with the file, whose size is bounded already: a value cannot be larger than a few times its text.
fn options(bytes: usize) -> Options {
    let scale = bytes.max(4096);
    let mut options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    let mut budget = serde_saphyr::Budget::default();
    budget.max_events = scale;
    budget.max_nodes = scale;
    budget.max_depth = 64;
    budget.max_documents = 10_000;
    budget.max_aliases = 1_000;
    budget.max_anchors = 1_000;
    budget.max_merge_keys = 1_000;
    budget.max_total_scalar_bytes = scale * 4;
    options.budget = Some(budget);
    options.alias_limits.max_total_replayed_events = scale;
    options.alias_limits.max_replay_stack_depth = 16;
    options.alias_limits.max_alias_expansions_per_anchor = 1_000;
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(text: &str) -> Value {
        parse("a.yaml", text.as_bytes()).unwrap().remove(0).value
    }

    /// What kubectl 1.32 makes of the same text, and where we differ on purpose.
    #[test]
    fn reads_like_kubectl() {
        assert_eq!(one("a: 0644"), json!({"a": 420}));
        assert_eq!(one("a: [yes, on, NO]"), json!({"a": [true, true, false]}));
        assert_eq!(one("a: 1_000"), json!({"a": 1000}));
        assert_eq!(one("a: 0899"), json!({"a": 899}));
        assert_eq!(one("a: 1e3"), json!({"a": 1000}));
        assert_eq!(one("a: 1.5"), json!({"a": 1.5}));
        assert_eq!(
            one("x: &x {b: 1}\ny: {<<: *x, c: 2}"),
            json!({"x": {"b": 1}, "y": {"b": 1, "c": 2}})
        );
        assert_eq!(one("a: '0644'"), json!({"a": "0644"}));
        // kubectl makes the key "true" of this; nobody means that.
        assert_eq!(one("yes: 1"), json!({"yes": 1}));
        // kubectl lets the last one win; here it is a mistake.
        assert!(parse("a.yaml", b"a: 1\na: 2").is_err());
    }

    #[test]
    fn documents_have_lines_and_lists_are_expanded() {
        let text = "# head\n---\na: 1\n---\n---\nkind: List\nitems:\n- {b: 1}\n- {b: 2}\n";
        let found = parse("a.yaml", text.as_bytes()).unwrap();
        assert_eq!(
            found.iter().map(|d| (d.line, d.value.clone())).collect::<Vec<_>>(),
            vec![(3, json!({"a": 1})), (6, json!({"b": 1})), (6, json!({"b": 2}))]
        );
        assert!(parse("a.yaml", b"# nothing\n").unwrap().is_empty());
        assert!(parse("a.yaml", b"").unwrap().is_empty());
    }

    #[test]
    fn a_mistake_has_a_line() {
        let p = parse("dir/a.yaml", b"a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert_eq!(p.file.as_deref(), Some("dir/a.yaml"));
        assert!(p.line.is_some_and(|l| (2..=4).contains(&l)), "{p:?}");
        let p = parse("a.yaml", b"a: 1\nb: \xff\n").unwrap_err();
        assert_eq!(p.line, Some(2));
    }

    #[test]
    fn bombs_are_refused() {
        let mut laughs = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
        for i in 1..12 {
            let previous = format!("*a{}", i - 1);
            laughs += &format!("a{i}: &a{i} [{}]\n", vec![previous; 9].join(", "));
        }
        assert!(parse("bomb.yaml", laughs.as_bytes()).is_err());
        assert!(parse("deep.yaml", "[".repeat(20_000).as_bytes()).is_err());
        assert!(
            parse(
                "deep.yaml",
                format!("{}{}", "[".repeat(200), "]".repeat(200)).as_bytes()
            )
            .is_err()
        );
    }
}
