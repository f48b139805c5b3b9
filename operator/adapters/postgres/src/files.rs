//! Files that survive a crash whole: written aside, synced, renamed, and the folder synced.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::error::{Result, file};

/// Syncs a folder, so that names in it are durable.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(file("sync", dir))
}

/// Replaces a file as a whole; after a crash it is the old or the new one.
pub fn write_durable(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    write_inner(path, bytes, mode, true)
}

/// Replaces a file as a whole without waiting for the disk: for what is made anew at each start.
pub fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    write_inner(path, bytes, mode, false)
}

fn write_inner(path: &Path, bytes: &[u8], mode: u32, durable: bool) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    // A leftover of a crash may have another mode.
    match fs::remove_file(&new) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(file("remove", &new)(e)),
        _ => {}
    }
    let mut f = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)
        .map_err(file("create", &new))?;
    f.write_all(bytes).map_err(file("write", &new))?;
    if durable {
        f.sync_all().map_err(file("sync", &new))?;
    }
    rename(&new, path, durable)
}

fn rename(from: &Path, to: &Path, durable: bool) -> Result<()> {
    fs::rename(from, to).map_err(file("rename to", to))?;
    match (durable, to.parent()) {
        (true, Some(dir)) => sync_dir(dir),
        _ => Ok(()),
    }
}

/// Renames within one file system, durably.
pub fn rename_durable(from: &Path, to: &Path) -> Result<()> {
    rename(from, to, true)
}

/// Makes a folder that only this UID may enter, with its parents.
pub fn make_private_dir(dir: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(file("make folder", dir))
}

/// Removes a file or a tree if it is there.
pub fn remove_all(path: &Path) -> Result<()> {
    let done = match fs::symlink_metadata(path) {
        Ok(m) if m.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match done {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(file("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Reads a file that may be absent.
pub fn read_optional(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(file("read", path)(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_even_after_a_crash_left_a_new_one() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        fs::write(dir.path().join("state.json.new"), "torn").unwrap();
        write_durable(&path, b"one", 0o600).unwrap();
        write_durable(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
