//! Where in a file a field was written.
//!
//! Found by indentation rather than by a second parser: it is only a pointer for people, and where it cannot tell (flow
//! style, anchors) it names the nearest enclosing line that it found.

/// The line (from 1) of a field such as `spec.containers[0].image` in the document that starts at `from`.
pub fn locate(text: &str, from: u32, field: &str) -> Option<u32> {
    let lines: Vec<&str> = text.lines().collect();
    let mut start = usize::try_from(from).ok()?.checked_sub(1)?;
    let mut end = lines.len();
    let mut found = None;
    let mut floor = 0;
    for segment in segments(field) {
        let range = lines.get(start..end)?;
        let hit = match &segment {
            Segment::Key(key) => range.iter().enumerate().find_map(|(i, line)| {
                let column = key_column(line, key)?;
                (column >= floor).then_some((start + i, column))
            }),
            Segment::Index(n) => range
                .iter()
                .enumerate()
                .filter_map(|(i, line)| {
                    let column = indent(line)?;
                    (line.trim_start().starts_with('-') && column + 1 >= floor).then_some((start + i, column))
                })
                .scan(None, |level, (i, column)| {
                    let level = *level.get_or_insert(column);
                    Some((column == level).then_some((i, column)))
                })
                .flatten()
                .nth(*n),
        };
        let Some((line, column)) = hit else { break };
        found = Some(line);
        // The block below belongs to this field as long as it is indented deeper (list items may stand at the same column).
        let is_index = matches!(segment, Segment::Index(_));
        end = lines
            .get(line + 1..end)
            .and_then(|rest| {
                rest.iter().position(|l| {
                    l.starts_with("---")
                        || indent(l).is_some_and(|i| {
                            i < column || (i == column && (is_index || !l.trim_start().starts_with('-')))
                        })
                })
            })
            .map_or(end, |n| line + 1 + n);
        start = if is_index { line } else { line + 1 };
        floor = if is_index { column + 1 } else { column };
    }
    found.and_then(|line| u32::try_from(line + 1).ok())
}

enum Segment {
    Key(String),
    Index(usize),
}

fn segments(field: &str) -> Vec<Segment> {
    let mut segments = Vec::new();
    for part in field.split('.').filter(|p| !p.is_empty()) {
        let (key, indices) = part.split_once('[').unwrap_or((part, ""));
        if !key.is_empty() {
            segments.push(Segment::Key(key.to_owned()));
        }
        for index in indices.split('[').filter_map(|i| i.trim_end_matches(']').parse().ok()) {
            segments.push(Segment::Index(index));
        }
    }
    segments
}

/// The column of a line's first character, counting the dash of a list item as indentation; none for blank lines and comments.
fn indent(line: &str) -> Option<usize> {
    let trimmed = line.trim_start();
    (!trimmed.is_empty() && !trimmed.starts_with('#')).then(|| line.len() - trimmed.len())
}

fn key_column(line: &str, key: &str) -> Option<usize> {
    let mut rest = line.trim_start();
    while let Some(after) = rest.strip_prefix("- ") {
        rest = after.trim_start();
    }
    let column = line.len() - rest.len();
    let rest = rest.strip_prefix(['"', '\'']).unwrap_or(rest);
    let after = rest.strip_prefix(key)?;
    let after = after.strip_prefix(['"', '\'']).unwrap_or(after);
    after.trim_start().starts_with(':').then_some(column)
}

#[cfg(test)]
mod tests {
    use super::locate;

    const TEXT: &str = "\
apiVersion: v1
kind: A
metadata:
  name: x
spec:
  name: y
  ports:
  - name: a
    port: 1
  - name: b
    port: 2
---
kind: B
spec:
  name: z
";

    #[test]
    fn fields_are_found_by_their_path() {
        assert_eq!(locate(TEXT, 1, "metadata.name"), Some(4));
        assert_eq!(locate(TEXT, 1, "spec.name"), Some(6));
        assert_eq!(locate(TEXT, 1, "spec.ports[1].port"), Some(11));
        assert_eq!(locate(TEXT, 1, "spec.ports[0].name"), Some(8));
        assert_eq!(locate(TEXT, 13, "spec.name"), Some(15));
    }

    #[test]
    fn what_is_missing_gives_the_enclosing_line() {
        assert_eq!(locate(TEXT, 1, "spec.members"), Some(5));
        assert_eq!(locate(TEXT, 1, "nothing"), None);
        assert_eq!(locate(TEXT, 13, "metadata.name"), None);
    }
}
