//! Files that come into a shared folder whole, durably and only under a name that is free.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use holdfast_core::archive::Found;
use rustix::fs::{AtFlags, CWD, RenameFlags, linkat, renameat_with};
use rustix::io::Errno;

use crate::error::{Error, Result, file};

/// Read and written at a time.
const PIECE: usize = 128 * 1024;

/// Makes a folder that only this UID may enter; what it is in must be there.
pub fn make_folder(dir: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done.map_err(file("make folder", dir)),
    }
}

/// Removes a file if it is there.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(file("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Whether nothing has this name.
pub fn is_free(place: &Path) -> Result<bool> {
    match fs::symlink_metadata(place) {
        Ok(_) => Ok(false),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(file("look at", place)(e)),
    }
}

/// A file that is to be archived.
pub struct Source<'a> {
    path: &'a Path,
    /// Open.
    pub file: File,
    /// Bytes in it.
    pub len: u64,
    /// Bytes that are taken from it; zeros stand for the others.
    pub log: u64,
}

impl<'a> Source<'a> {
    /// All of a file.
    pub fn open(path: &'a Path) -> Result<Source<'a>> {
        let f = File::open(path).map_err(file("open", path))?;
        let len = f.metadata().map_err(file("look at", path))?.len();
        Ok(Source {
            path,
            file: f,
            len,
            log: len,
        })
    }

    /// What is archived, from its beginning. Two at a time would take turns at the same file.
    fn content(&self) -> Result<impl Read + '_> {
        let mut f = &self.file;
        f.seek(SeekFrom::Start(0)).map_err(file("read", self.path))?;
        let zeros = self.len.saturating_sub(self.log);
        // More than it has is a file that grew.
        let log = if zeros == 0 { u64::MAX } else { self.log };
        Ok(f.take(log).chain(io::repeat(0).take(zeros)))
    }

    /// Its size, and when it was written last.
    fn state(&self) -> Result<(u64, i64, i64)> {
        let m = self.file.metadata().map_err(file("look at", self.path))?;
        Ok((m.len(), m.mtime(), m.mtime_nsec()))
    }
}

/// What stands under a name, beside a file that is to have it.
pub fn compare(source: &Source<'_>, place: &Path) -> Result<Found> {
    let there = match fs::symlink_metadata(place) {
        Ok(there) => there,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        Err(e) => return Err(file("look at", place)(e)),
    };
    if !there.is_file() {
        return Ok(Found::NoFile);
    }
    if there.len() != source.len {
        return Ok(if there.len() == 0 {
            Found::Empty
        } else {
            Found::Different
        });
    }
    let mut other = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(place)
        .map_err(file("open", place))?;
    let mut content = source.content()?;
    let (mut ours, mut theirs) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let mine = fill(&mut content, &mut ours).map_err(file("compare with", place))?;
        if mine != fill(&mut other, &mut theirs).map_err(file("read", place))? || ours.get(..mine) != theirs.get(..mine)
        {
            return Ok(Found::Different);
        }
        if mine < PIECE {
            return Ok(Found::Same);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Copies a file to `new`, and gives that the name `place` if it is free. Whether it was.
pub fn put(source: &Source<'_>, new: &Path, place: &Path) -> Result<bool> {
    let before = source.state()?;
    // What the file has become meanwhile is asked before the copy gets its name.
    put_new(&mut source.content()?, new, place, |copied| {
        if source.state()? == before && copied == before.0 {
            return Ok(());
        }
        Err(Error::State(format!(
            "{} changed while it was read",
            source.path.display()
        )))
    })
}

/// Writes a content durably to `new`, lets `check` judge how much was written, and gives it the name `place` if that is free. Whether it
/// was; `new` is gone either way.
pub fn put_new(
    content: &mut impl Read,
    new: &Path,
    place: &Path,
    check: impl FnOnce(u64) -> Result<()>,
) -> Result<bool> {
    let mut f = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(new)
        .map_err(file("create", new))?;
    let done = write(content, &mut f, new)
        .and_then(check)
        .and_then(|()| f.sync_all().map_err(file("sync", new)))
        .and_then(|()| name(&f, new, place));
    // A full archive must not keep what is of no use. If this fails too, the next push of the file removes it.
    let removed = remove(new);
    let named = done?;
    removed.map(|()| named)
}

fn write(content: &mut impl Read, f: &mut File, new: &Path) -> Result<u64> {
    let mut piece = vec![0; PIECE];
    let mut written = 0;
    loop {
        let n = fill(content, &mut piece).map_err(file("read the source of", new))?;
        f.write_all(piece.get(..n).unwrap_or_default())
            .map_err(file("write", new))?;
        written += n as u64;
        if n < PIECE {
            return Ok(written);
        }
    }
}

/// Gives an open file a name that is free. By its descriptor: a file of the same name that another process has made meanwhile is not meant.
fn name(f: &File, new: &Path, place: &Path) -> Result<bool> {
    let open = format!("/proc/self/fd/{}", f.as_raw_fd());
    match linkat(CWD, open.as_str(), CWD, place, AtFlags::SYMLINK_FOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK | Errno::INVAL | Errno::XDEV) => {
            rename(f, new, place)
        }
        Err(e) => Err(file("link to", place)(e.into())),
    }
}

/// The same where there are no hard links.
fn rename(f: &File, new: &Path, place: &Path) -> Result<bool> {
    let mine = f.metadata().map_err(file("look at", new))?;
    let there = fs::symlink_metadata(new).map_err(file("look at", new))?;
    if (mine.dev(), mine.ino()) != (there.dev(), there.ino()) {
        return Err(Error::State(format!("{} is another process's", new.display())));
    }
    match renameat_with(CWD, new, CWD, place, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Err(Error::State(format!(
            "{}: this file system can neither link nor rename without replacing; use another for spec.archive.volumeClaimName",
            place.display()
        ))),
        Err(e) => Err(file("rename to", place)(e.into())),
    }
}

/// Makes a file's content durable.
pub fn sync(place: &Path) -> Result<()> {
    File::open(place)
        .and_then(|f| f.sync_all())
        .map_err(file("sync", place))
}

/// Makes names durable. Some network file systems sync no folders, because a name is durable there once it is made; PostgreSQL takes
/// these two answers for that too (`fsync_fname_ext`).
pub fn sync_dir(dir: &Path) -> Result<()> {
    let synced = File::open(dir).and_then(|d| d.sync_all());
    match synced.as_ref().map_err(Errno::from_io_error) {
        Err(Some(Errno::INVAL | Errno::BADF)) => Ok(()),
        _ => synced.map_err(file("sync", dir)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_is_left_alone_by_link_and_by_rename() {
        let tmp = tempfile::tempdir().unwrap();
        let (new, place) = (tmp.path().join("new"), tmp.path().join("place"));
        let open = || OpenOptions::new().write(true).create_new(true).open(&new).unwrap();
        fs::write(&place, "first").unwrap();
        let f = open();
        assert!(!name(&f, &new, &place).unwrap());
        assert!(!rename(&f, &new, &place).unwrap());
        assert_eq!(fs::read_to_string(&place).unwrap(), "first");
        fs::remove_file(&place).unwrap();
        assert!(rename(&f, &new, &place).unwrap() && !new.exists());
        fs::remove_file(&place).unwrap();

        // What another process has put in the place of the file is not meant.
        let mine = open();
        fs::remove_file(&new).unwrap();
        fs::write(&new, "another's").unwrap();
        assert!(rename(&mine, &new, &place).unwrap_err().to_string().contains("another"));
        name(&mine, &new, &place).unwrap_err();
        assert!(!place.exists());
    }
}
