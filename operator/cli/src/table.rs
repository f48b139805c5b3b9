//! Columns as wide as their widest cell.

use crate::paint::{Paint, Tone};

/// A text and how it is meant.
#[derive(Clone, Debug)]
pub struct Cell(pub Tone, pub String);

impl Cell {
    /// As it is.
    pub fn plain(text: impl Into<String>) -> Cell {
        Cell(Tone::Plain, text.into())
    }
    /// Of less weight.
    pub fn faint(text: impl Into<String>) -> Cell {
        Cell(Tone::Faint, text.into())
    }
}

/// Lays out rows, two spaces between columns, nothing after the last cell of a row.
pub fn layout(rows: &[Vec<Cell>], indent: usize, paint: Paint) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|r| r.get(column))
            .map(|c| c.1.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let last = row.iter().rposition(|c| !c.1.is_empty());
        out.push_str(&" ".repeat(indent));
        for (i, (Cell(tone, text), width)) in row.iter().zip(&widths).enumerate() {
            if last.is_none_or(|last| i > last) {
                break;
            }
            out.push_str(&paint.text(*tone, text));
            if last != Some(i) {
                out.push_str(&" ".repeat(width.saturating_sub(text.chars().count()) + 2));
            }
        }
        out.push('\n');
    }
    out
}
