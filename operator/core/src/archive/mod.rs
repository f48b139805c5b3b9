//! The log archive: which files belong into it, what is done where a name is taken, and when archiving fails.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::failover::{Lsn, MemberName, Term};
use crate::plan::{Reason, Severity};

/// A file that PostgreSQL archives, by its name. No other name is ever written to an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    name: String,
    /// What it is.
    pub kind: Kind,
}

/// What a file of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A segment of a timeline's log.
    Segment,
    /// The segment that a timeline ended in, as the member had it that began the next one.
    Partial,
    /// Where a base backup began and ended.
    Backup,
    /// Which timelines came before this one.
    History(Term),
}

impl LogFile {
    /// As PostgreSQL calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The history of a timeline.
    pub fn history(term: Term) -> LogFile {
        LogFile {
            name: format!("{:08X}.history", term.0),
            kind: Kind::History(term),
        }
    }
}

impl FromStr for LogFile {
    type Err = Why;

    fn from_str(name: &str) -> Result<LogFile, Why> {
        let digits = |text: &str, count: usize| {
            text.len() == count && text.bytes().all(|c| c.is_ascii_digit() || (b'A'..=b'F').contains(&c))
        };
        let kind = match name.split('.').collect::<Vec<_>>().as_slice() {
            [segment] if digits(segment, 24) => Some(Kind::Segment),
            [segment, "partial"] if digits(segment, 24) => Some(Kind::Partial),
            [segment, offset, "backup"] if digits(segment, 24) && digits(offset, 8) => Some(Kind::Backup),
            [timeline, "history"] if digits(timeline, 8) => {
                let number = u32::from_str_radix(timeline, 16).ok();
                number.map(|n| Kind::History(Term(n)))
            }
            _ => None,
        };
        match kind {
            Some(kind) => Ok(LogFile {
                name: name.to_owned(),
                kind,
            }),
            None => Err(Why::NoLogFile(name.to_owned())),
        }
    }
}

/// A file that is to be archived, as it is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Its name.
    pub file: LogFile,
    /// It has no content.
    pub empty: bool,
    /// For a segment, all of it is its timeline's log.
    ///
    /// A segment may wait for the archive although it is not whole: a standby hands over the last one of a timeline that it leaves
    /// (`walreceiver.c`), and one of a timeline that it left while nothing was received is handed over when its file is to be used again. What
    /// follows the log's end in such a file is left over from others.
    pub whole: bool,
    /// For a segment, a history on this member says that its timeline ended before the segment does ([`ended`]).
    pub ended: bool,
}

/// Whether a timeline ended before a position, or is no ancestor of a later one, by the histories that a member has.
///
/// One history is enough, even if it is a would-be primary's: what it says of a segment that is whole and not archived yet is never asked.
pub fn ended(timeline: Term, before: Lsn, histories: &BTreeMap<Term, Vec<(Term, Lsn)>>) -> bool {
    let mut later = histories.range((Bound::Excluded(timeline), Bound::Unbounded));
    later.any(|(_, ancestors)| {
        let named = ancestors.iter().find(|(term, _)| *term == timeline);
        named.is_none_or(|(_, ended)| *ended < before)
    })
}

/// What stands under a name in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Absent,
    /// A file with the same bytes.
    Same,
    /// A file without content.
    Empty,
    /// A file with other bytes.
    Different,
    /// Something that is no file: a folder, a link.
    NoFile,
}

/// What to do with a file that is to be archived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Put it there, where nothing is.
    Push,
    /// It counts as archived.
    Done(Why),
    /// It is not archived, and the engine keeps it.
    Refuse(Why),
}

/// Decides. Whatever is in an archive stays as it is; guard by guard:
///
/// 1. A history without content only keeps its number ([`crate::failover::Term`]s are skipped, timelines must not be); whoever archives
///    the history that comes after it puts such ones there.
/// 2. A segment that is not whole never comes into the archive: what follows the log's end in it differs from member to member, and the whole
///    one would be refused from then on. If its timeline ended there, nobody needs it: all of the log in it is at the beginning of the next
///    timeline's first segment, or on no line that anybody followed. If another's is there, what is here can never come there, and must not
///    hold up what can.
/// 3. What is free is taken, and what is there with the same bytes is archived. For the same reason as in 2 the last segment of a timeline that
///    ended holds nothing up if another's is there.
/// 4. A real history may come late to a number that counted as skipped: a would-be primary's, which nobody followed, or one that was made
///    before there was an archive. No restore to a later timeline reads it, because the later one's history names all before it. To refuse
///    it would hold up all that its member has to archive.
/// 5. Two would-be primaries may each have begun a timeline of their own within one segment. Either's `.partial` is good, by 2, and what
///    no restore reads must not hold up what it does.
/// 6. Anything else that is there is refused.
pub fn decide(own: &Own, found: Found) -> Verdict {
    let kind = own.file.kind;
    let history = matches!(kind, Kind::History(_));
    match found {
        _ if history && own.empty => Verdict::Done(Why::KeepsANumber),
        Found::Same => Verdict::Done(Why::Archived),
        _ if kind == Kind::Segment && !own.whole && own.ended => Verdict::Done(Why::EndedWithin),
        Found::Different if kind == Kind::Segment && !own.whole => Verdict::Done(Why::OtherAndTorn),
        _ if kind == Kind::Segment && !own.whole => Verdict::Refuse(Why::Torn),
        Found::Absent => Verdict::Push,
        Found::Different | Found::Empty if kind == Kind::Segment && own.ended => Verdict::Done(Why::EndedWithin),
        Found::Empty if history => Verdict::Done(Why::NumberTaken),
        Found::Different | Found::Empty if kind == Kind::Partial => Verdict::Done(Why::OtherPartial),
        Found::Different | Found::Empty => Verdict::Refuse(Why::OtherContent),
        Found::NoFile => Verdict::Refuse(Why::NoFile),
    }
}

/// The histories, newest first, that must be in an archive beside one that has just come to it: PostgreSQL looks for the newest timeline
/// by counting up until a number is missing. Newest first, so that a restore finds either all or none of the new ones.
pub fn before(file: &LogFile) -> impl Iterator<Item = LogFile> {
    let first = match file.kind {
        Kind::History(term) => term.0,
        _ => 0,
    };
    (2..first).rev().map(|n| LogFile::history(Term(n)))
}

/// The history of an ancestor, as it stands in a later one's text: PostgreSQL makes a history by copying that of the timeline before and
/// adding a line for it, after an empty one (`writeTimeLineHistory`). `None` if the text does not name it.
pub fn ancestor(history: &[u8], term: Term) -> Option<&[u8]> {
    let mut at = 0;
    for line in history.split_inclusive(|c| *c == b'\n') {
        let number = line.split(u8::is_ascii_whitespace).find(|field| !field.is_empty());
        if number.and_then(|n| std::str::from_utf8(n).ok()?.parse().ok()) == Some(term.0) {
            let before = history.get(..at)?;
            // The empty line is the later history's.
            let own = before.strip_suffix(b"\n").filter(|text| text.ends_with(b"\n"));
            return Some(own.unwrap_or(before));
        }
        at += line.len();
    }
    None
}

/// What a member says of its archiving.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Archiving {
    /// The file that is not archived although it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
    /// When a file was archived last (RFC 3339), as far as the engine's statistics reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// Files that wait.
    pub waiting: u64,
}

impl Archiving {
    /// What a person has to know of a member that fails, with the next step.
    pub fn problem(&self, member: &MemberName, claim: &str) -> Option<String> {
        let file = self.failing.as_ref()?;
        let last = match &self.last {
            Some(time) => format!("the last was archived at {time}"),
            None => "none has been archived".to_owned(),
        };
        Some(format!(
            "{member} cannot archive {file} on the claim {claim}: {} files wait, {last}; the log of Pod {member} says why (wal-push); until \
             then log is kept on the member's volume",
            self.waiting
        ))
    }
}

/// What an engine tells of its archiving.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Seconds since a file was archived last.
    pub archived: Option<u64>,
    /// The file that failed last, and seconds since.
    pub failed: Option<(String, u64)>,
    /// Files that wait.
    pub waiting: u64,
    /// The one that has waited longest, and for how many seconds.
    pub oldest: Option<(String, u64)>,
}

/// A file that waits for so many seconds while none is archived waits in vain, though nothing was said to have failed: the archive does
/// not answer. A segment of 32 MiB takes less on anything that keeps up with a database.
const STUCK: u64 = 60;

/// The file that is not archived although it should be.
pub fn failing(counts: &Counts) -> Option<&str> {
    let since = |limit: u64| counts.archived.is_none_or(|archived| archived > limit);
    if let Some((file, failed)) = &counts.failed
        && since(*failed)
    {
        return Some(file);
    }
    let (file, waits) = counts.oldest.as_ref()?;
    (*waits > STUCK && since(STUCK)).then_some(file)
}

/// Why a file is archived, or is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is there, byte by byte.
    Archived,
    /// A history that only keeps a number.
    KeepsANumber,
    /// A history whose number counted as skipped.
    NumberTaken,
    /// A segment of a timeline that ended before the segment does.
    EndedWithin,
    /// A part of a segment, without a reason for it.
    Torn,
    /// The same, and another one's segment is there.
    OtherAndTorn,
    /// Another one's partial segment is there.
    OtherPartial,
    /// No name that PostgreSQL gives to what it archives.
    NoLogFile(String),
    /// The name has other content.
    OtherContent,
    /// What has the name is no file.
    NoFile,
}

impl Reason for Why {
    fn reason(&self) -> &'static str {
        match self {
            Why::Archived => "Archived",
            Why::KeepsANumber => "KeepsANumber",
            Why::NumberTaken => "NumberTaken",
            Why::EndedWithin => "EndedWithin",
            Why::Torn => "Torn",
            Why::OtherAndTorn => "OtherAndTorn",
            Why::OtherPartial => "OtherPartial",
            Why::NoLogFile(_) => "NoLogFile",
            Why::OtherContent => "OtherContent",
            Why::NoFile => "NoFile",
        }
    }

    fn severity(&self) -> Severity {
        match self {
            Why::NoLogFile(_) | Why::OtherContent | Why::NoFile | Why::Torn | Why::OtherAndTorn => Severity::Warning,
            _ => Severity::Normal,
        }
    }
}

/// What is said of the place in the archive.
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Archived => f.write_str("is there"),
            Why::KeepsANumber => f.write_str("is not needed: this history is empty and only keeps its number"),
            Why::NumberTaken => f.write_str(
                "is an empty history, put there when a later one came, whose timeline does not need this one; it stays",
            ),
            Why::EndedWithin => {
                f.write_str("is not needed from here: the timeline ended before this segment does, and the next one begins with what is in it")
            }
            Why::OtherAndTorn => f.write_str(
                "is another member's and stays; the log in this member's file does not reach the file's end, so it is not compared: if the disk \
                 may be damaged, look at both with pg_waldump",
            ),
            Why::Torn => f.write_str(
                "is not made: the log in the member's file does not reach the file's end, and no history says that the timeline ended there; if \
                 this is said again and again, look at the file with pg_waldump: its disk may be damaged",
            ),
            Why::OtherPartial => f.write_str(
                "is another member's end of this timeline; it stays, and the next timeline begins with all of this one",
            ),
            Why::NoLogFile(name) => write!(
                f,
                "{name:?} is no name of a file that PostgreSQL archives, such as 0000000100000000000000A3 or 00000002.history"
            ),
            Why::OtherContent => f.write_str(
                "is there with other content, and stays as it is: another primary or another cluster wrote it; look at both with \
                 pg_waldump, and if the one there is wrong, move it out of the archive: this one follows by itself",
            ),
            Why::NoFile => f.write_str(
                "is no file, and stays as it is: nothing but PostgreSQL's log belongs there; move it away, and the log follows by itself",
            ),
        }
    }
}

#[cfg(test)]
mod tests;
