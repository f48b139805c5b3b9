//! How much of a segment that waits for the archive is log, and whether that is all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use holdfast_core::archive;
use holdfast_core::failover::{Lsn, Term};

use crate::binaries::last_lines;
use crate::error::{Error, Result, file};
use crate::{control, history};

/// PostgreSQL's own reader of its log. The engine's environment has its folder in `PATH`.
pub const READER: &str = "pg_waldump";

/// What a page of the log begins with (`XLogPageHeaderData` and `XLogLongPageHeaderData` in `src/include/access/xlog_internal.h`, the same in
/// PostgreSQL 15 to 18; only `xlp_magic` differs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    /// `xlp_tli`: the timeline that wrote the page. A timeline's first segment begins with what its ancestor wrote.
    timeline: Term,
    /// `xlp_pageaddr`.
    at: Lsn,
}

/// Bytes of a page's header, and of a segment's first page's, which tells more.
const SHORT: usize = 24;
const LONG: usize = 40;

impl Page {
    fn parse(header: &[u8]) -> Option<Page> {
        Some(Page {
            timeline: Term(u32::try_from(number(header, 4, 4)?).ok()?),
            at: Lsn(number(header, 8, 8)?),
        })
    }

    fn is_at(&self, timeline: Term, at: Lsn) -> bool {
        self.at == at && (1..=timeline.0).contains(&self.timeline.0)
    }
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let mut eight = [0; 8];
    eight.get_mut(..length)?.copy_from_slice(bytes.get(at..at + length)?);
    Some(u64::from_le_bytes(eight))
}

/// A segment's place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its timeline.
    pub timeline: Term,
    /// Where it begins.
    pub begin: Lsn,
    /// Bytes in it.
    pub size: u64,
}

impl Segment {
    /// By a file's name and the size of segments.
    pub fn named(name: &str, size: u64) -> Option<Segment> {
        let part = |at: usize| u32::from_str_radix(name.get(at..at + 8)?, 16).ok();
        let (timeline, id, number) = (part(0)?, part(8)?, part(16)?);
        Some(Segment {
            timeline: Term(timeline),
            begin: Lsn(u64::from(number).checked_mul(size)?.checked_add(u64::from(id) << 32)?),
            size,
        })
    }

    /// Where it ends.
    pub fn end(&self) -> Lsn {
        Lsn(self.begin.0.saturating_add(self.size))
    }

    /// The file that begins where this one ends, of a timeline.
    pub fn next(&self, of: Term) -> Option<String> {
        control::segment_name(of, self.end(), self.size)
    }

    /// The file of the one before it, on the same timeline.
    pub fn previous(&self) -> Option<String> {
        let begin = Lsn(self.begin.0.checked_sub(self.size)?);
        control::segment_name(self.timeline, begin, self.size)
    }
}

/// What is in a segment's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Bytes of whole pages that are this segment's, from its beginning. What follows is never log: after a record that ends a segment
    /// early PostgreSQL writes zeros, and a standby may lack those and have what was in the file before.
    pub pages: u64,
}

impl Content {
    /// Reads the headers of all pages. None is this segment's in a file that is another database's, or of another size.
    pub fn of(file: &File, segment: Segment, system_identifier: u64) -> std::io::Result<Content> {
        let none = Content { pages: 0 };
        let mut first = [0; LONG];
        match file.read_exact_at(&mut first, 0) {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(none),
            read => read?,
        }
        let size = number(&first, 36, 4).filter(|size| size.is_power_of_two() && *size >= 512);
        let Some(page) = size.filter(|size| segment.size.is_multiple_of(*size)) else {
            return Ok(none);
        };
        if number(&first, 24, 8) != Some(system_identifier) || number(&first, 32, 4) != Some(segment.size) {
            return Ok(none);
        }
        let mut pages = 0;
        while pages < segment.size {
            let mut header = [0; SHORT];
            file.read_exact_at(&mut header, pages)?;
            let at = Lsn(segment.begin.0.saturating_add(pages));
            if !Page::parse(&header).is_some_and(|p| p.is_at(segment.timeline, at)) {
                break;
            }
            pages += page;
        }
        Ok(Content { pages })
    }

    /// Whether the log fills the segment, or was ended in it: the member's log goes on in the next one, or PostgreSQL's own reader gets
    /// to the end of this.
    pub fn is_whole(self, path: &Path, segment: Segment, known: &Histories, reader: &Path) -> Result<bool> {
        if self.pages == 0 {
            return Ok(false);
        }
        let full = self.pages == segment.size;
        if full && goes_on(path, segment, known)? {
            return Ok(true);
        }
        Ok(match read_by(reader, path)? {
            Seen::End => true,
            // One record fills it, or begins before it and another ends after it.
            Seen::NoRecord => full && !has_ended(segment, known),
            Seen::LogEnds => false,
        })
    }
}

/// Whether the segment after this one is here, as its timeline wrote it: under its name, under the one that it gets when the timeline ends in
/// it, or as the beginning of a later timeline.
fn goes_on(path: &Path, segment: Segment, known: &Histories) -> Result<bool> {
    let (end, own) = (segment.end(), segment.next(segment.timeline));
    let partial = own.as_ref().map(|name| format!("{name}.partial"));
    let later = known.keys().map(|term| segment.next(*term));
    for name in [own, partial].into_iter().chain(later).flatten() {
        let next = path.with_file_name(name);
        let mut header = [0; SHORT];
        match File::open(&next).and_then(|mut f| f.read_exact(&mut header)) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => {}
            read => {
                read.map_err(file("read", &next))?;
                if Page::parse(&header).is_some_and(|p| p.at == end && p.timeline == segment.timeline) {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

/// What a reader finds in a segment.
enum Seen {
    /// It gets to its end.
    End,
    /// No record that begins in it ends in it.
    NoRecord,
    /// The log ends before.
    LogEnds,
}

/// Asks [`READER`], which ends with 1 where the log in a file ends before the file does, or has no record.
fn read_by(reader: &Path, path: &Path) -> Result<Seen> {
    let mut read = Command::new(reader);
    read.arg("--quiet").arg(path).env("LC_ALL", "C");
    let program = || reader.display().to_string();
    let out = read.stdin(Stdio::null()).stdout(Stdio::null()).output();
    let out = out.map_err(|source| Error::Spawn {
        program: program(),
        source,
    })?;
    let said = last_lines(&String::from_utf8_lossy(&out.stderr));
    match out.status.code() {
        Some(0) => Ok(Seen::End),
        Some(1) if said.contains("could not find a valid record") => Ok(Seen::NoRecord),
        Some(1) if said.contains("error in WAL record at") => {
            eprintln!("holdfast-agent wal-push: {} is not whole: {said}", path.display());
            Ok(Seen::LogEnds)
        }
        // It could not read the file, was killed, and so on: that says nothing of the log.
        _ => Err(Error::Program {
            program: program(),
            output: format!("{}: {said}", out.status),
        }),
    }
}

/// The ancestors of each timeline of which a member has the history.
pub type Histories = BTreeMap<Term, Vec<(Term, Lsn)>>;

/// Reads all histories in a data directory. One without an entry, which only keeps its number, says nothing.
pub fn histories(pgdata: &Path) -> Result<Histories> {
    let mut known = Histories::new();
    for (term, _) in history::list(pgdata).map_err(file("list", pgdata.join("pg_wal")))? {
        let path = history::path(pgdata, term);
        let text = std::fs::read(&path).map_err(file("read", &path))?;
        let ancestors = history::all(&String::from_utf8_lossy(&text));
        if !ancestors.is_empty() {
            known.insert(term, ancestors);
        }
    }
    Ok(known)
}

/// Whether a segment's timeline ended before the segment does.
pub fn has_ended(segment: Segment, known: &Histories) -> bool {
    archive::ended(segment.timeline, segment.end(), known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segments_place_is_in_its_name() {
        let size = 16 << 20;
        let segment = Segment::named("0000000500000016000000FF", size).unwrap();
        assert_eq!((segment.timeline, segment.begin), (Term(5), Lsn(0x16_FF00_0000)));
        assert_eq!(segment.next(Term(5)).unwrap(), "000000050000001700000000");
        assert_eq!(segment.previous().unwrap(), "0000000500000016000000FE");
        let first = Segment::named("000000010000000000000000", size).unwrap();
        assert_eq!(first.previous(), None);
        assert_eq!(Segment::named("00000005000000160000", size), None);
    }

    const SIZE: u64 = 4 * 8192;

    fn segment() -> Segment {
        Segment {
            timeline: Term(2),
            begin: Lsn(3 * SIZE),
            size: SIZE,
        }
    }

    /// Pages with headers as PostgreSQL 15 writes them, each of a timeline at a place, filled with one byte.
    fn written(pages: &[(u32, u64)]) -> Vec<u8> {
        let mut content = Vec::new();
        for (n, (timeline, at)) in pages.iter().enumerate() {
            content.resize(n * 8192, 7);
            content.extend([0x10, 0xd1, 0x06, 0]);
            content.extend(timeline.to_le_bytes());
            content.extend(at.to_le_bytes());
            content.extend([0; 8]);
            if n == 0 {
                content.extend(7_575_757_575_757_575_757_u64.to_le_bytes());
                content.extend(u32::try_from(SIZE).unwrap().to_le_bytes());
                content.extend(8192_u32.to_le_bytes());
            }
        }
        content.resize(pages.len() * 8192, 7);
        content
    }

    fn read(content: &[u8]) -> Content {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, content).unwrap();
        Content::of(&file, segment(), 7_575_757_575_757_575_757).unwrap()
    }

    #[test]
    fn log_ends_at_the_first_page_that_is_not_the_segments() {
        let at = |page: u64| segment().begin.0 + page * 8192;
        let full = [(1, at(0)), (1, at(1)), (2, at(2)), (2, at(3))];
        assert_eq!(read(&written(&full)), Content { pages: SIZE });
        let other = |page: usize, header| {
            let mut pages = full;
            pages[page] = header;
            read(&written(&pages)).pages
        };
        assert_eq!(other(2, (2, 0)), 2 * 8192, "left over from another segment");
        assert_eq!(other(3, (3, at(3))), 3 * 8192, "of a later timeline");
        assert_eq!(other(1, (0, at(1))), 8192);
        assert_eq!(other(0, (1, at(1))), 0);
        let mut empty = written(&full);
        empty[8192..].fill(0);
        assert_eq!(read(&empty).pages, 8192);
        // Another database's, of another size of segments or pages, cut off.
        for at in [24, 33, 36] {
            let mut other = written(&full);
            other[at] ^= 1;
            assert_eq!(read(&other).pages, 0, "{at}");
        }
        assert_eq!(read(&written(&full)[..35]).pages, 0);
        assert_eq!(read(&[]).pages, 0);
    }
}
