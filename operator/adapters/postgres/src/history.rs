//! Timeline history files: which term wrote the log up to where.

use std::path::{Path, PathBuf};

use holdfast_core::failover::{Lsn, Term};

/// How many ancestors are told; older ones decide nothing.
const KEPT: usize = 64;

/// The history file of a timeline in a data directory.
pub fn path(pgdata: &Path, term: Term) -> PathBuf {
    pgdata.join("pg_wal").join(format!("{:08X}.history", term.0))
}

/// The newest ancestors of [`all`].
pub fn parse(text: &str) -> Vec<(Term, Lsn)> {
    let mut entries = all(text);
    let extra = entries.len().saturating_sub(KEPT);
    entries.drain(..extra);
    entries
}

/// Each ancestor with the position at which it ended, oldest first, of a history file's text. Lines that are no entry
/// (comments, blanks) are passed over, as PostgreSQL does.
pub fn all(text: &str) -> Vec<(Term, Lsn)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let term = fields.next()?.parse().ok()?;
            let lsn = fields.next()?.parse().ok()?;
            Some((Term(term), lsn))
        })
        .collect()
}

/// The history of a timeline, empty if its file is not here (timeline 1 has none).
pub fn read(pgdata: &Path, term: Term) -> Vec<(Term, Lsn)> {
    std::fs::read_to_string(path(pgdata, term))
        .map(|t| parse(&t))
        .unwrap_or_default()
}

/// The numbers of all history files in a data directory with whether they are empty, lowest first.
pub fn list(pgdata: &Path) -> std::io::Result<Vec<(Term, bool)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(pgdata.join("pg_wal"))? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(number) = name.to_string_lossy().strip_suffix(".history").map(str::to_owned) else {
            continue;
        };
        if let (8, Ok(n)) = (number.len(), u32::from_str_radix(&number, 16)) {
            found.push((Term(n), entry.metadata()?.len() == 0));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_file_names_each_ancestor_and_its_end() {
        let text = "1\t0/3000148\tno recovery target specified\n\n# comment\n4\t16/B374D848\tx y\n";
        assert_eq!(
            parse(text),
            [(Term(1), Lsn(0x300_0148)), (Term(4), Lsn(0x16_B374_D848))]
        );
        assert_eq!(parse(""), []);
    }

    #[test]
    fn only_the_newest_ancestors_are_told() {
        let text: String = (1..=100).map(|n| format!("{n}\t0/{n:X}\tx\n")).collect();
        let read = parse(&text);
        assert_eq!(
            (read.len(), read.first().unwrap().0, read.last().unwrap().0),
            (64, Term(37), Term(100))
        );
    }
}
