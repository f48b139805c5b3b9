//! The log archive: a folder on a mounted volume, to which PostgreSQL's archiver hands each file of the log.
//!
//! `FOLDER/SYSTEM IDENTIFIER/FILE`, with PostgreSQL's own names and plain contents, so that `cp` restores. Several members push at the
//! same time, one of them perhaps without knowing that it leads no more: so nothing there is ever replaced or removed
//! ([`holdfast_core::archive`] decides).

mod command;
mod look;
mod stop;
mod store;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use holdfast_core::archive::{self, Found, Kind, LogFile, Own, Verdict, Why};
use holdfast_core::failover::Term;

use crate::error::{Error, Result, file};
use crate::{control, history};

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

impl Push {
    /// Brings the file to the archive. Returns once it is there durably, or need not be. A crash at any instant leaves nothing under its
    /// name or all of it.
    pub fn run(&self) -> Result<Pushed> {
        let name: LogFile = self.name.parse().map_err(|why: Why| Error::State(why.to_string()))?;
        let dir = self.folder.join(system_identifier(&self.pgdata)?.to_string());
        store::make_folder(&self.folder)?;
        store::make_folder(&dir)?;
        let mut source = File::open(&self.from).map_err(file("open", &self.from))?;
        let len = source.metadata().map_err(file("look at", &self.from))?.len();
        let own = Own {
            ended: name.kind == Kind::Segment && self.ended_within(len)?,
            file: name,
            empty: len == 0,
        };
        let place = dir.join(own.file.name());
        // Left by a push of this member that died.
        let new = self.unfinished(&dir, own.file.name());
        store::remove(&new)?;
        for _ in 0..LOOKS {
            let found = store::compare(&mut source, len, &place)?;
            let why = match archive::decide(&own, found) {
                Verdict::Push if !store::put(&mut source, &self.from, &new, &place)? => continue,
                Verdict::Push => Why::Archived,
                Verdict::Done(why) => why,
                Verdict::Refuse(why) => return Err(Error::State(format!("{} {why}", place.display()))),
            };
            if why == Why::Archived {
                self.archived(&dir, &own.file, found)?;
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
        for older in archive::before(name) {
            let place = dir.join(older.name());
            if store::is_free(&place)? {
                let known = self.pgdata.join("pg_wal").join(older.name());
                let mut content: Box<dyn Read> = match File::open(&known) {
                    Ok(known) => Box::new(known),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => Box::new(io::empty()),
                    Err(e) => return Err(file("open", known)(e)),
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

    /// Whether the segment's timeline ended in it, by the newest history that is here: that is the one which this member is on.
    fn ended_within(&self, segment: u64) -> Result<bool> {
        let known = history::list(&self.pgdata).map_err(file("list", self.pgdata.join("pg_wal")))?;
        let newest = known.iter().rev().find(|(_, empty)| !empty).map(|(term, _)| *term);
        let timeline = self.name.get(..8).and_then(|t| u32::from_str_radix(t, 16).ok());
        let ends = newest.map(|term| history::read(&self.pgdata, term)).unwrap_or_default();
        Ok(ends.iter().any(|(term, end)| {
            Some(*term) == timeline.map(Term)
                && control::segment_name(*term, *end, segment).as_ref() == Some(&self.name)
        }))
    }
}

/// Has a fresh copy push the log that came with it, whole segments and histories. `pg_basebackup` marks them as archived, and whom
/// they were copied from may die before it has archived them.
pub fn push_again(pgdata: &Path) -> Result<()> {
    let dir = pgdata.join("pg_wal/archive_status");
    for entry in std::fs::read_dir(&dir).map_err(file("list", &dir))? {
        let done = entry.map_err(file("list", &dir))?.path();
        if done.extension().is_some_and(|e| e == "done") {
            std::fs::rename(&done, done.with_extension("ready")).map_err(file("rename", &done))?;
        }
    }
    // Beside it all of the copy is made durable before it is in its place.
    store::sync_dir(&dir)
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
