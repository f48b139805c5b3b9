//! The log archive: a folder on a mounted volume, to which PostgreSQL's archiver hands each file of the log.
//!
//! `FOLDER/SYSTEM IDENTIFIER/FILE`, with PostgreSQL's own names and plain contents, so that `cp` restores. Several members push at the
//! same time, one of them perhaps without knowing that it leads no more: so nothing there is ever replaced or removed
//! ([`holdfast_core::archive`] decides).

mod command;
mod look;
mod part;
mod stop;
mod store;
pub(crate) mod waiting;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use holdfast_core::archive::{self, Found, Kind, LogFile, Own, Verdict, Why};

use crate::error::{Error, Result, file};
use part::{Content, Segment};
use store::Source;

pub use command::wal_push;
pub(crate) use look::look;

/// Where all of a member's log goes, and what brings it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// The replica set's folder. It is made where it is missing; what it is in must be there.
    pub folder: PathBuf,
    /// The program whose subcommand `wal-push` it is.
    pub program: PathBuf,
}

impl Archive {
    /// `archive_command`. The shell that runs it is replaced, so that nothing but the program itself waits for the archive.
    pub fn command(&self, member: &str) -> String {
        // PostgreSQL replaces %p and %f, and takes %% for a per cent sign.
        let word = |text: &str| format!("'{}'", text.replace('\'', r"'\''").replace('%', "%%"));
        format!(
            "exec {} wal-push {} {} \"%p\" \"%f\"",
            word(&self.program.to_string_lossy()),
            word(&self.folder.to_string_lossy()),
            word(member)
        )
    }
}

/// One call of `archive_command`.
#[derive(Clone, Debug)]
pub struct Push {
    /// The data directory that the file is of.
    pub pgdata: PathBuf,
    /// [`Archive::folder`].
    pub folder: PathBuf,
    /// Who pushes; its unfinished files bear its name, and only it replaces them.
    pub member: String,
    /// The file, `%p`.
    pub from: PathBuf,
    /// Its name, `%f`.
    pub name: String,
    /// What reads a segment to its end, or fails: `pg_waldump`.
    pub reader: PathBuf,
}

/// What came of a push that need not be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The place in the archive.
    pub place: PathBuf,
    /// Why it counts as archived.
    pub why: Why,
}

/// How often a name may be taken between a look and a push, and the same be looked at again: nobody takes names away.
const LOOKS: usize = 3;

/// Bytes of a history; a line has some 60.
const LONGEST_HISTORY: u64 = 16 << 20;

impl Push {
    /// Brings the file to the archive. Returns once it is there durably, or need not be. A crash at any instant leaves nothing under its
    /// name or all of it.
    pub fn run(&self) -> Result<Pushed> {
        let name: LogFile = self.name.parse().map_err(|why: Why| Error::State(why.to_string()))?;
        let database = system_identifier(&self.pgdata)?;
        let dir = self.folder.join(database.to_string());
        store::make_folder(&self.folder)?;
        store::make_folder(&dir)?;
        let mut source = Source::open(&self.from)?;
        let segment = Segment::named(name.name(), source.len).filter(|_| name.kind == Kind::Segment);
        let content = match segment {
            Some(segment) => Some((
                segment,
                Content::of(&source.file, segment, database).map_err(file("read", &self.from))?,
            )),
            None => None,
        };
        if let Some((_, content)) = content {
            source.log = content.pages;
        }
        let mut own = Own {
            file: name,
            empty: source.len == 0,
            whole: true,
            ended: false,
        };
        let place = dir.join(own.file.name());
        // Left by a push of this member that died.
        let new = self.unfinished(&dir, own.file.name());
        store::remove(&new)?;
        for _ in 0..LOOKS {
            let found = store::compare(&source, &place)?;
            if let Some((segment, content)) = content.filter(|_| found != Found::Same) {
                let known = part::histories(&self.pgdata)?;
                own.whole = content.is_whole(&self.from, segment, &known, &self.reader)?;
                own.ended = part::has_ended(segment, &known);
            }
            let why = match archive::decide(&own, found) {
                Verdict::Push if !store::put(&source, &new, &place)? => continue,
                Verdict::Push => Why::Archived,
                Verdict::Done(why) => why,
                Verdict::Refuse(why) => return Err(Error::State(format!("{} {why}", place.display()))),
            };
            if why == Why::Archived {
                self.archived(&dir, &own.file, found)?;
                if let Some(previous) = segment.and_then(|s| s.previous())
                    && let Err(e) = waiting::have_it_wait(&self.pgdata, &previous)
                {
                    // It waits until its place is needed.
                    eprintln!("holdfast-agent wal-push: {previous} may have to be pushed, too: {e}");
                }
            }
            return Ok(Pushed { place, why });
        }
        Err(Error::State(format!("{} comes and goes", place.display())))
    }

    /// Makes sure of a file that is there, and of what must be there beside it.
    fn archived(&self, dir: &Path, name: &LogFile, found: Found) -> Result<()> {
        if found == Found::Same {
            // Who wrote it may have died before it did this itself.
            store::sync(&dir.join(name.name()))?;
        }
        let mut history = Vec::new();
        for older in archive::before(name) {
            let place = dir.join(older.name());
            if store::is_free(&place)? {
                if history.is_empty() {
                    history = self.history()?;
                }
                let Kind::History(term) = older.kind else { continue };
                let mut content: Box<dyn Read + '_> = match archive::ancestor(&history, term) {
                    Some(text) => Box::new(text),
                    None => self.known(older.name())?,
                };
                let new = self.unfinished(dir, older.name());
                store::remove(&new)?;
                store::put_new(&mut content, &new, &place, |_| Ok(()))?;
            }
        }
        // Each was perhaps made by a push that died before it was durable.
        for dir in [Some(dir), Some(self.folder.as_path()), self.folder.parent()] {
            dir.map_or(Ok(()), store::sync_dir)?;
        }
        Ok(())
    }

    /// Never a name that PostgreSQL or a restore looks for.
    fn unfinished(&self, dir: &Path, name: &str) -> PathBuf {
        dir.join(format!(".{name}.{}", self.member))
    }

    /// The text of the history that is pushed.
    fn history(&self) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        File::open(&self.from)
            .and_then(|f| f.take(LONGEST_HISTORY).read_to_end(&mut text))
            .map_err(file("read", &self.from))?;
        Ok(text)
    }

    /// A history that this member has, or nothing.
    fn known(&self, name: &str) -> Result<Box<dyn Read>> {
        let known = self.pgdata.join("pg_wal").join(name);
        match File::open(&known) {
            Ok(known) => Ok(Box::new(known)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Box::new(io::empty())),
            Err(e) => Err(file("open", known)(e)),
        }
    }
}

/// Which database a data directory is: the first field of its control file, which never changes.
fn system_identifier(pgdata: &Path) -> Result<u64> {
    let path = pgdata.join("global/pg_control");
    let mut first = [0; 8];
    File::open(&path)
        .and_then(|mut f| f.read_exact(&mut first))
        .map_err(file("read", &path))?;
    match u64::from_ne_bytes(first) {
        0 => Err(Error::State(format!("{} names no database", path.display()))),
        identifier => Ok(identifier),
    }
}

#[cfg(test)]
mod tests;
