//! Files of the log that wait for the archive and outlive the data directory that they wait in.
//!
//! A rewind removes each file of the log that the leader has not, a clone all; if their member is the only one that has them, the archive
//! would have a hole that nothing tells of. So they get a second name beside the data directory before, and go into the new one after.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{store, system_identifier};
use crate::error::{Error, Result, file};
use crate::files::{make_private_dir, remove_all, sync_dir};

/// Where PostgreSQL notes that a file waits.
fn status_dir(pgdata: &Path) -> PathBuf {
    pgdata.join("pg_wal/archive_status")
}

/// Has a fresh copy push the log that came with it, whole segments and histories. `pg_basebackup` marks them as archived, and whom
/// they were copied from may die before it has archived them.
pub fn push_again(pgdata: &Path) -> Result<()> {
    let dir = status_dir(pgdata);
    for done in list(&dir)? {
        if done.extension().is_some_and(|e| e == "done") {
            fs::rename(&done, done.with_extension("ready")).map_err(file("rename", &done))?;
        }
    }
    // Beside it all of the copy is made durable before it is in its place.
    sync_dir(&dir)
}

/// Has a file wait for the archive if it is in the directory and PostgreSQL does not know what to do with it.
///
/// `pg_basebackup` ends with the record that ends the last segment of the log. If it has not got the rest of the segment by then, which is
/// empty, it notes nothing of the file, and the standby goes on with the next one: the file would wait until its place is needed again.
pub fn have_it_wait(pgdata: &Path, name: &str) -> Result<()> {
    let status = status_dir(pgdata);
    // PostgreSQL takes a file away before what it noted of it.
    if is_noted(&status, name)? || store::is_free(&pgdata.join("pg_wal").join(name))? {
        return Ok(());
    }
    note(&status, name)
}

fn is_noted(status: &Path, name: &str) -> Result<bool> {
    let noted = |how: &str| Ok::<_, Error>(!store::is_free(&status.join(format!("{name}.{how}")))?);
    Ok(noted("ready")? || noted("done")?)
}

fn note(status: &Path, name: &str) -> Result<()> {
    let ready = status.join(format!("{name}.ready"));
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&ready)
        .map(drop)
        .map_err(file("create", &ready))
}

/// Keeps what waits in a data directory that is about to be changed or removed, in `kept`; no histories, which recovery would believe, and
/// of which the leader has those that matter. A member that comes back matters more: what cannot be kept is told in the log.
pub fn keep(pgdata: &Path, kept: &Path) {
    if let Err(e) = try_keep(pgdata, kept) {
        tracing::error!(
            "files of the log that wait for the archive cannot be kept ({e}): if no other member has them, the archive has a hole"
        );
    }
}

fn try_keep(pgdata: &Path, kept: &Path) -> Result<()> {
    let names = ready(pgdata)?;
    if names.is_empty() {
        return Ok(());
    }
    let dir = kept.join(system_identifier(pgdata)?.to_string());
    make_private_dir(&dir)?;
    let before: HashMap<String, PathBuf> = kept_in(&dir)?.into_iter().map(|kept| (kept.name, kept.path)).collect();
    for name in names {
        let path = pgdata.join("pg_wal").join(&name);
        if let Some(written) = written(&path)? {
            match before.get(&name) {
                // Kept before a rewind that failed, which has perhaps written to it since: that shows by its time.
                Some(kept) if is_same(kept, &path)? => continue,
                Some(older) => store::remove(older)?,
                None => {}
            }
            let to = dir.join(format!("{name}@{written}"));
            fs::hard_link(&path, &to).map_err(file("link to", &to))?;
        }
    }
    for dir in [Some(dir.as_path()), Some(kept), kept.parent()] {
        dir.map_or(Ok(()), sync_dir)?;
    }
    Ok(())
}

/// A file that is kept.
struct Kept {
    /// Its name in the log.
    name: String,
    /// When it was written last as it was kept (ns).
    was: i128,
    path: PathBuf,
}

fn kept_in(dir: &Path) -> Result<Vec<Kept>> {
    let mut kept = Vec::new();
    for path in list(dir)? {
        let name = path.file_name().and_then(|n| n.to_str()?.split_once('@'));
        if let Some((name, was)) = name
            && let Ok(was) = was.parse()
        {
            kept.push(Kept {
                name: name.to_owned(),
                was,
                path: path.clone(),
            });
        }
    }
    Ok(kept)
}

/// What is in a folder, if that is there.
fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(file("list", dir))?,
    };
    entries.map(|e| Ok(e.map_err(file("list", dir))?.path())).collect()
}

/// What waits, as PostgreSQL notes it.
fn ready(pgdata: &Path) -> Result<Vec<String>> {
    let files = list(&status_dir(pgdata))?.into_iter();
    let names = files.filter_map(|path| Some(path.file_name()?.to_str()?.strip_suffix(".ready")?.to_owned()));
    Ok(names.filter(|name| !name.ends_with(".history")).collect())
}

/// When a file was written last (ns); `None` if it is not there.
fn written(path: &Path) -> Result<Option<i128>> {
    match fs::symlink_metadata(path) {
        Ok(m) => Ok(Some(i128::from(m.mtime()) * 1_000_000_000 + i128::from(m.mtime_nsec()))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(file("look at", path)(e)),
    }
}

/// Gives what was kept to a data directory that is about to be started, to wait there. What is there under its name already came from the
/// leader, who archives it, or was never away. A segment that recovery will look for stays kept until it begins behind it, by the name of the
/// segment that it begins with: it takes whatever it finds, and this one may be of a line that the leader left.
pub fn give_back(pgdata: &Path, kept: &Path, recovery: Option<&str>) {
    let given = room(kept).and_then(|room| try_give_back(pgdata, kept, recovery, room));
    if let Err(e) = given {
        tracing::error!(
            "files of the log that wait for the archive stay in {}, and are not archived yet: {e}",
            kept.display()
        );
    }
}

fn try_give_back(pgdata: &Path, kept: &Path, recovery: Option<&str>, mut room: u64) -> Result<()> {
    let dir = kept.join(system_identifier(pgdata)?.to_string());
    let files = kept_in(&dir)?;
    if files.is_empty() {
        return Ok(());
    }
    let label = labelled(pgdata)?;
    let from = label.as_deref().or(recovery).and_then(number);
    let status = status_dir(pgdata);
    let (mut given, mut later) = (0_u32, 0_u32);
    for Kept { name, was, path } in files {
        let place = pgdata.join("pg_wal").join(&name);
        // A rewind writes into the very file: what it has written to is the leader's.
        let untouched = written(&path)? == Some(was);
        if !store::is_free(&place)? {
            // A rewind leaves some files where they are, and nothing that was noted of them.
            if untouched && is_same(&path, &place)? && !is_noted(&status, &name)? {
                note(&status, &name)?;
                given += 1;
            }
            store::remove(&path)?;
        } else if !untouched {
            store::remove(&path)?;
        } else if !name.contains('.') && (from.is_none() || number(&name) >= from) || !give(&path, &place, &mut room)? {
            later += 1;
        } else {
            note(&status, &name)?;
            given += 1;
        }
    }
    if given + later > 0 {
        tracing::warn!(
            "{given} files of the log that waited for the archive before wait for it again; {later} stay in {} until a start at which recovery \
             cannot meet them and there is room",
            dir.display()
        );
    }
    for dir in [status, pgdata.join("pg_wal"), dir] {
        if !store::is_free(&dir)? {
            sync_dir(&dir)?;
        }
    }
    Ok(())
}

/// Most bytes that are copied at a start, which they delay.
const COPIED_AT_ONCE: u64 = 1 << 30;

/// For how many bytes a folder's volume has room without becoming nearly full.
fn room(dir: &Path) -> Result<u64> {
    let s = rustix::fs::statvfs(dir).map_err(|e| file("look at", dir)(e.into()))?;
    let reserve = s.f_blocks / 10;
    Ok(s.f_bavail
        .saturating_sub(reserve)
        .saturating_mul(s.f_frsize)
        .min(COPIED_AT_ONCE))
}

/// Gives a file that name, as a file of its own: PostgreSQL uses it again for other log, which must not come into a directory that was set
/// aside. `false`: there is no room for a copy.
fn give(path: &Path, place: &Path, room: &mut u64) -> Result<bool> {
    let m = fs::metadata(path).map_err(file("look at", path))?;
    if m.nlink() < 2 {
        return fs::rename(path, place).map(|()| true).map_err(file("rename to", place));
    }
    let Some(left) = room.checked_sub(m.len()) else {
        return Ok(false);
    };
    *room = left;
    let new = path.with_extension("new");
    let copied = fs::copy(path, &new)
        .map_err(file("copy to", &new))
        .and_then(|_| store::sync(&new))
        .and_then(|()| fs::rename(&new, place).map_err(file("rename to", place)));
    if let Err(e) = copied {
        store::remove(&new)?;
        tracing::warn!("{} stays: {e}", path.display());
        return Ok(false);
    }
    store::remove(path)?;
    Ok(true)
}

/// Removes what was kept, and says why.
pub fn give_up(kept: &Path, why: &str) {
    match list(kept) {
        Ok(databases) if databases.is_empty() => return,
        _ => tracing::error!(
            "files of the log that waited for the archive are removed, because {why}: if no other member has them, the archive has a hole; take \
             a base backup"
        ),
    }
    if let Err(e) = remove_all(kept) {
        tracing::error!("they are not all removed: {e}");
    }
}

fn is_same(one: &Path, other: &Path) -> Result<bool> {
    let id = |path: &Path| {
        let m = fs::symlink_metadata(path).map_err(file("look at", path))?;
        Ok::<_, Error>((m.dev(), m.ino()))
    };
    Ok(id(one)? == id(other)?)
}

/// The number of the segment that a file has in its name: the same digits for the same size of segments, and in their order.
fn number(name: &str) -> Option<&str> {
    name.get(8..24)
}

/// The segment with which a copied or rewound directory's recovery begins, as its label says it; `None` if there is none.
fn labelled(pgdata: &Path) -> Result<Option<String>> {
    let path = pgdata.join("backup_label");
    let label = match fs::read_to_string(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        label => label.map_err(file("read", &path))?,
    };
    // START WAL LOCATION: 0/2000028 (file 000000010000000000000002)
    match label.split_once("(file ").and_then(|(_, rest)| rest.get(..24)) {
        Some(name) => Ok(Some(name.to_owned())),
        None => Err(Error::State(format!(
            "{} does not say where recovery begins",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "000000010000000000000003";
    const SHARED: &str = "000000010000000000000004";
    const TAIL: &str = "000000010000000000000007";
    const OTHER: &str = "000000010000000000000005.partial";

    /// A data directory of one database.
    fn directory(root: &Path, name: &str, files: &[&str]) -> PathBuf {
        let pgdata = root.join(name);
        fs::create_dir_all(status_dir(&pgdata)).unwrap();
        fs::create_dir(pgdata.join("global")).unwrap();
        fs::write(pgdata.join("global/pg_control"), [7; 100]).unwrap();
        for file in files {
            fs::write(pgdata.join("pg_wal").join(file), format!("{file} of {name}")).unwrap();
            note(&status_dir(&pgdata), file).unwrap();
        }
        pgdata
    }

    fn label(pgdata: &Path, segment: &str) {
        let text = format!("START WAL LOCATION: 0/5000028 (file {segment})\nCHECKPOINT LOCATION: 0/5000060\n");
        fs::write(pgdata.join("backup_label"), text).unwrap();
    }

    /// However full this machine is.
    fn back(pgdata: &Path, kept: &Path, recovery: Option<&str>) {
        let _ = try_give_back(pgdata, kept, recovery, 1 << 20);
    }

    fn waiting(pgdata: &Path) -> Vec<String> {
        let mut names = ready(pgdata).unwrap();
        names.sort();
        names
    }

    fn content(pgdata: &Path, name: &str) -> String {
        fs::read_to_string(pgdata.join("pg_wal").join(name)).unwrap()
    }

    #[test]
    fn what_waits_outlives_its_directory_and_goes_back_where_recovery_does_not_meet_it() {
        let tmp = tempfile::tempdir().unwrap();
        let (root, kept) = (tmp.path(), tmp.path().join("kept"));
        let old = directory(root, "old", &[OLD, SHARED, TAIL, OTHER, "00000002.history"]);
        fs::write(old.join("pg_wal/000000010000000000000006"), "archived already").unwrap();
        keep(&old, &kept);
        fs::remove_dir_all(&old).unwrap();

        let new = directory(root, "new", &[SHARED]);
        label(&new, "000000020000000000000005");
        back(&new, &kept, None);
        assert_eq!(waiting(&new), [OLD, SHARED, OTHER]);
        assert_eq!(content(&new, OLD), format!("{OLD} of old"));
        assert_eq!(content(&new, SHARED), format!("{SHARED} of new"), "the leader's stays");

        // The tail comes as soon as recovery begins behind it, into whatever directory is there by then.
        let next = directory(root, "next", &[]);
        label(&next, "000000030000000000000008");
        back(&next, &kept, None);
        assert_eq!(
            (waiting(&next), content(&next, TAIL)),
            (vec![TAIL.to_owned()], format!("{TAIL} of old"))
        );
        for dir in list(&kept).unwrap() {
            assert_eq!(list(&dir).unwrap(), [] as [PathBuf; 0]);
        }
    }

    /// A rewind opens a file that the leader has too, and writes over it; a crash there makes a clone of it.
    #[test]
    fn what_a_rewind_has_written_over_does_not_come_back() {
        let tmp = tempfile::tempdir().unwrap();
        let (root, kept) = (tmp.path(), tmp.path().join("kept"));
        let old = directory(root, "old", &[OLD, SHARED]);
        keep(&old, &kept);
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(old.join("pg_wal").join(SHARED), "half").unwrap();
        keep(&old, &kept);
        fs::remove_dir_all(&old).unwrap();
        let new = directory(root, "new", &[]);
        label(&new, "000000020000000000000009");
        back(&new, &kept, None);
        assert_eq!(waiting(&new), [OLD]);
        assert!(!new.join("pg_wal").join(SHARED).exists());
    }

    /// PostgreSQL writes other log into a file that it needs no more.
    #[test]
    fn a_directory_that_was_set_aside_keeps_its_own_file() {
        let tmp = tempfile::tempdir().unwrap();
        let (root, kept) = (tmp.path(), tmp.path().join("kept"));
        let aside = directory(root, "aside", &[OLD]);
        keep(&aside, &kept);
        let new = directory(root, "new", &[]);
        label(&new, "000000020000000000000009");
        back(&new, &kept, None);
        assert_eq!(
            (waiting(&new), content(&new, OLD)),
            (vec![OLD.to_owned()], format!("{OLD} of aside"))
        );
        fs::write(new.join("pg_wal").join(OLD), "other log").unwrap();
        assert_eq!(content(&aside, OLD), format!("{OLD} of aside"));
    }

    /// `pg_rewind` leaves what recovery needs, and takes away what was noted of it.
    #[test]
    fn what_stays_in_its_place_waits_again() {
        let tmp = tempfile::tempdir().unwrap();
        let (root, kept) = (tmp.path(), tmp.path().join("kept"));
        let pgdata = directory(root, "a", &[OLD, SHARED, TAIL]);
        keep(&pgdata, &kept);
        for name in [OLD, SHARED, TAIL] {
            fs::remove_file(status_dir(&pgdata).join(format!("{name}.ready"))).unwrap();
        }
        fs::write(status_dir(&pgdata).join(format!("{SHARED}.done")), "").unwrap();
        back(&pgdata, &kept, Some("000000020000000000000005"));
        assert_eq!(waiting(&pgdata), [OLD, TAIL]);
        for dir in list(&kept).unwrap() {
            assert_eq!(list(&dir).unwrap(), [] as [PathBuf; 0]);
        }
    }

    #[test]
    fn a_file_that_came_anew_is_kept_instead_of_the_older_one() {
        let tmp = tempfile::tempdir().unwrap();
        let (root, kept) = (tmp.path(), tmp.path().join("kept"));
        keep(&directory(root, "old", &[OLD]), &kept);
        let second = directory(root, "second", &[OLD]);
        keep(&second, &kept);
        fs::remove_dir_all(&second).unwrap();
        let new = directory(root, "new", &[]);
        label(&new, "000000020000000000000009");
        back(&new, &kept, None);
        assert_eq!(content(&new, OLD), format!("{OLD} of second"));
    }

    #[test]
    fn what_there_is_no_room_for_stays() {
        let tmp = tempfile::tempdir().unwrap();
        let aside = directory(tmp.path(), "aside", &[OLD]);
        let path = aside.join("pg_wal").join(OLD);
        fs::hard_link(&path, tmp.path().join("kept")).unwrap();
        let (place, length) = (tmp.path().join("place"), fs::metadata(&path).unwrap().len());
        assert!(!give(&path, &place, &mut (length - 1)).unwrap());
        assert!(path.exists() && !place.exists());
        let mut room = length;
        assert!(give(&path, &place, &mut room).unwrap());
        assert!(!path.exists() && place.exists() && room == 0);
    }

    #[test]
    fn nothing_goes_into_another_database_or_where_recovery_may_begin_anywhere() {
        let tmp = tempfile::tempdir().unwrap();
        let (root, kept) = (tmp.path(), tmp.path().join("kept"));
        keep(&directory(root, "old", &[OLD]), &kept);
        let other = directory(root, "other", &[]);
        fs::write(other.join("global/pg_control"), [8; 100]).unwrap();
        label(&other, "000000020000000000000009");
        let unlabelled = directory(root, "unlabelled", &[]);
        let odd = directory(root, "odd", &[]);
        fs::write(odd.join("backup_label"), "START WAL LOCATION: ?\n").unwrap();
        for (directory, recovery) in [(other, None), (unlabelled, None), (odd, Some(TAIL))] {
            back(&directory, &kept, recovery);
            assert_eq!(waiting(&directory), [] as [&str; 0]);
        }
        // The control file says it where there is no label.
        let right = directory(root, "right", &[]);
        back(&right, &kept, Some("000000020000000000000009"));
        assert_eq!(waiting(&right), [OLD]);
    }

    #[test]
    fn what_leaves_no_room_for_a_copy_is_given_up() {
        let tmp = tempfile::tempdir().unwrap();
        let (root, kept) = (tmp.path(), tmp.path().join("kept"));
        keep(&directory(root, "old", &[OLD]), &kept);
        give_up(&kept, "a test says so");
        assert!(!kept.exists());
        give_up(&kept, "nothing is there");
    }

    #[test]
    fn a_file_waits_if_nothing_is_known_of_it() {
        let tmp = tempfile::tempdir().unwrap();
        let pgdata = directory(tmp.path(), "a", &[]);
        have_it_wait(&pgdata, OLD).unwrap();
        assert_eq!(waiting(&pgdata), [] as [&str; 0], "there is no such file");
        fs::write(pgdata.join("pg_wal").join(OLD), "").unwrap();
        fs::write(status_dir(&pgdata).join(format!("{OLD}.done")), "").unwrap();
        have_it_wait(&pgdata, OLD).unwrap();
        assert_eq!(waiting(&pgdata), [] as [&str; 0], "it is archived");
        fs::remove_file(status_dir(&pgdata).join(format!("{OLD}.done"))).unwrap();
        have_it_wait(&pgdata, OLD).unwrap();
        have_it_wait(&pgdata, OLD).unwrap();
        assert_eq!(waiting(&pgdata), [OLD]);
    }
}
