//! Data directories that are moved out of their place, and back.
//!
//! A move and the state that tells of it are two writes. What is about to be moved, and what is true afterwards, is written
//! down before; a crash between is mended at the next look at the volume.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_core::failover::DirId;
use holdfast_core::instance::{Aside, DiskState};
use serde::{Deserialize, Serialize};

use crate::archive::waiting;
use crate::error::{Error, Result, file};
use crate::files::{make_private_dir, read_optional, remove_all, rename_durable, sync_dir, write_durable};
use crate::layout::Layout;
use crate::volume::{load, persist};

/// A move under way.
#[derive(Debug, Deserialize, Serialize)]
struct Move {
    from: PathBuf,
    to: PathBuf,
    then: DiskState,
}

/// Moves a directory; `then` is the state once it is there.
fn move_directory(layout: &Layout, from: &Path, to: &Path, then: DiskState) -> Result<()> {
    let plan = Move {
        from: from.to_owned(),
        to: to.to_owned(),
        then,
    };
    let bytes = serde_json::to_vec(&plan).map_err(|e| Error::State(e.to_string()))?;
    write_durable(&layout.move_file(), &bytes, 0o600)?;
    rename_durable(from, to)?;
    if let Some(left) = from.parent() {
        sync_dir(left)?;
    }
    finish_move(layout)
}

/// Ends a move that a crash, or an error, interrupted: one that has happened is told of, any other is forgotten.
pub fn finish_move(layout: &Layout) -> Result<()> {
    let path = layout.move_file();
    let Some(bytes) = read_optional(&path)? else {
        return Ok(());
    };
    let plan: Move = serde_json::from_slice(&bytes).map_err(|e| {
        Error::Permanent(format!(
            "{} is damaged ({e}); it says where data was moved to",
            path.display()
        ))
    })?;
    if !plan.from.exists() && plan.to.exists() {
        persist(layout, &plan.then)?;
    }
    remove_all(&path)
}

/// What is under `aside/`, oldest first.
pub fn places(layout: &Layout) -> Result<Vec<PathBuf>> {
    let aside = layout.aside();
    let entries = match fs::read_dir(&aside) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(file("list", &aside))?,
    };
    let mut places = Vec::new();
    for entry in entries {
        places.push(entry.map_err(file("list", &aside))?.path());
    }
    places.sort();
    Ok(places)
}

/// Whether this is where a directory is that was set aside.
pub fn is_place_of(place: &Path, dir: &DirId) -> bool {
    let name = place.file_name().map(|name| name.to_string_lossy());
    name.is_some_and(|name| name.ends_with(&format!("-{dir}")))
}

fn place_of(layout: &Layout, dir: &DirId) -> Result<Option<PathBuf>> {
    Ok(places(layout)?.into_iter().rfind(|place| is_place_of(place, dir)))
}

/// Keeps the data directory under another name: until it has to come back, or (without `aside`) until a person removes it.
pub fn set_aside(layout: &Layout, why: &str, aside: Option<Aside>) -> Result<()> {
    finish_move(layout)?;
    let disk = load(layout)?;
    let pgdata = layout.pgdata();
    if !pgdata.exists() {
        return match disk.dir {
            // asked for again: it was done
            None => Ok(()),
            Some(_) => persist(layout, &disk.set_aside(None)),
        };
    }
    make_private_dir(&layout.aside())?;
    let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ").to_string();
    waiting::keep(&pgdata, &layout.waiting());
    let id = disk.dir.as_ref().map_or("unnamed", |d| d.0.as_str());
    let to = layout.aside().join(format!("{stamp}-{id}"));
    move_directory(layout, &pgdata, &to, disk.set_aside(aside))?;
    if let Err(e) = fs::write(to.join("holdfast-aside.txt"), format!("{why}\n")) {
        tracing::warn!("no note beside the directory that was set aside: {e}");
    }
    Ok(())
}

/// Puts a directory back that was set aside. What is in its place goes first: its room may be needed.
pub fn put_back(layout: &Layout, dir: &DirId) -> Result<()> {
    finish_move(layout)?;
    let disk = load(layout)?;
    if disk.dir.as_ref() == Some(dir) {
        return Ok(());
    }
    let from = place_of(layout, dir)?;
    let (Some(from), Some(then)) = (from, disk.clone().put_back(dir)) else {
        return Err(Error::Permanent(format!(
            "{dir} is not in {}: somebody removed it",
            layout.aside().display()
        )));
    };
    remove_all(&layout.making())?;
    waiting::keep(&layout.pgdata(), &layout.waiting());
    // A copy that is not whole holds nothing that its source has not; another one was made to its end, and can only be damaged.
    if disk.dir.is_some() && !disk.half && layout.pgdata().exists() {
        set_aside(
            layout,
            "another directory, which an election lacks, takes its place",
            None,
        )?;
    }
    remove_all(&layout.pgdata())?;
    move_directory(layout, &from, &layout.pgdata(), then)
}

/// Forgets what was set aside. With `keep` it stays where it is, for a person; else it is no more under `aside/` when this
/// returns, and [`remove_dropped`] gives its room back.
pub fn drop_aside(layout: &Layout, dir: &DirId, keep: bool) -> Result<()> {
    finish_move(layout)?;
    if let (false, Some(from)) = (keep, place_of(layout, dir)?) {
        remove_dropped(layout)?;
        rename_durable(&from, &layout.dropped())?;
    }
    persist(layout, &load(layout)?.drop_aside(dir))
}

/// Removes what [`drop_aside`] left.
pub fn remove_dropped(layout: &Layout) -> Result<()> {
    remove_all(&layout.dropped())
}

#[cfg(test)]
mod tests {
    use holdfast_core::failover::{Lsn, Position, Term};

    use super::*;
    use crate::binaries::Binaries;
    use crate::volume::{look, prepare};

    fn layout(dir: &Path) -> Layout {
        let l = Layout {
            volume: dir.join("v"),
            run: dir.join("r"),
            ..Layout::default()
        };
        prepare(&l).unwrap();
        l
    }

    fn id(name: &str) -> DirId {
        DirId(name.to_owned())
    }

    fn directory(l: &Layout, content: &str) {
        make_private_dir(&l.pgdata()).unwrap();
        fs::write(l.pgdata().join("PG_VERSION"), "17").unwrap();
        fs::write(l.pgdata().join("what"), content).unwrap();
    }

    fn what(l: &Layout) -> String {
        fs::read_to_string(l.pgdata().join("what")).unwrap()
    }

    /// A volume with the directory `old`, set aside with its last words, and a clone `new` that is not whole.
    fn set_aside_for_a_clone(l: &Layout, led: Option<Term>) {
        let old = DiskState {
            dir: Some(id("old")),
            term: Term(3),
            ..DiskState::default()
        };
        directory(l, "old");
        persist(l, &old).unwrap();
        let lsn = |n| Position {
            term: Term(2),
            lsn: Lsn(n),
        };
        let aside = Aside {
            dir: id("old"),
            led,
            base: lsn(50),
            following: Some(Term(2)),
            position: Some(lsn(70)),
        };
        set_aside(l, "test", Some(aside)).unwrap();
        directory(l, "new");
        let new = DiskState {
            dir: Some(id("new")),
            half: true,
            ..load(l).unwrap()
        };
        persist(l, &new).unwrap();
    }

    async fn looked_at(l: &Layout) -> DiskState {
        use std::os::unix::fs::PermissionsExt;
        let program = l.volume.join("pg_controldata");
        fs::write(&program, "#!/bin/sh\nexit 1\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let bin = Binaries {
            dir: l.volume.clone(),
            major: 17,
            version: String::new(),
        };
        look(&bin, l).await.unwrap().disk
    }

    #[test]
    fn what_was_set_aside_for_a_clone_comes_back_with_its_last_words() {
        let tmp = tempfile::tempdir().unwrap();
        let l = layout(tmp.path());
        set_aside_for_a_clone(&l, Some(Term(1)));
        assert_eq!(load(&l).unwrap().testimony.unwrap().position.lsn, Lsn(70));
        for _ in 0..2 {
            put_back(&l, &id("old")).unwrap();
            let disk = load(&l).unwrap();
            assert_eq!((what(&l).as_str(), disk.dir), ("old", Some(id("old"))));
            assert_eq!(
                (disk.base.lsn, disk.led, disk.following),
                (Lsn(70), Some(Term(1)), None)
            );
            assert!(!disk.half && disk.aside.is_empty() && disk.testimony.is_none() && disk.term == Term(3));
        }
    }

    #[tokio::test]
    async fn what_a_person_removed_does_not_come_back_and_takes_nothing_else_away() {
        let tmp = tempfile::tempdir().unwrap();
        let l = layout(tmp.path());
        set_aside_for_a_clone(&l, None);
        remove_all(&l.aside()).unwrap();
        assert!(put_back(&l, &id("old")).unwrap_err().permanent());
        assert_eq!(what(&l), "new");
        assert_eq!(looked_at(&l).await.aside, []);
    }

    /// Each step of a move is the last one before a crash: the directory is in one place, and the state says which.
    #[tokio::test]
    async fn a_crash_at_any_step_of_a_move_loses_nothing() {
        for (renamed, told) in [(false, false), (true, false), (true, true)] {
            let tmp = tempfile::tempdir().unwrap();
            let l = layout(tmp.path());
            set_aside_for_a_clone(&l, None);
            remove_all(&l.pgdata()).unwrap();
            let from = place_of(&l, &id("old")).unwrap().unwrap();
            let then = load(&l).unwrap().put_back(&id("old")).unwrap();
            let plan = Move {
                from: from.clone(),
                to: l.pgdata(),
                then: then.clone(),
            };
            fs::write(l.move_file(), serde_json::to_vec(&plan).unwrap()).unwrap();
            if renamed {
                fs::rename(&from, l.pgdata()).unwrap();
            }
            if told {
                persist(&l, &then).unwrap();
            }
            let disk = looked_at(&l).await;
            assert!(!l.move_file().exists());
            if renamed {
                assert_eq!((what(&l).as_str(), disk.dir), ("old", Some(id("old"))));
                assert!(!disk.half && disk.aside.is_empty());
            } else {
                assert!(disk.dir.is_none() && disk.aside.len() == 1);
                put_back(&l, &id("old")).unwrap();
                assert_eq!(what(&l), "old");
            }
        }
    }

    /// A directory that was about to be set aside when the process died is as it was, and no word of it stays that could be
    /// believed later.
    #[tokio::test]
    async fn a_crash_before_a_directory_is_set_aside_leaves_no_word_of_it() {
        let tmp = tempfile::tempdir().unwrap();
        let l = layout(tmp.path());
        directory(&l, "old");
        let old = DiskState {
            dir: Some(id("old")),
            ..DiskState::default()
        };
        persist(&l, &old).unwrap();
        let plan = Move {
            from: l.pgdata(),
            to: l.aside().join("x-old"),
            then: old.clone().set_aside(None),
        };
        fs::write(l.move_file(), serde_json::to_vec(&plan).unwrap()).unwrap();
        assert_eq!(looked_at(&l).await, old);
        assert!(!l.move_file().exists());
    }

    #[test]
    fn what_was_set_aside_goes_when_it_is_dropped_unless_it_is_kept() {
        for (keep, left) in [(false, 0), (true, 1)] {
            let tmp = tempfile::tempdir().unwrap();
            let l = layout(tmp.path());
            set_aside_for_a_clone(&l, None);
            for _ in 0..2 {
                drop_aside(&l, &id("old"), keep).unwrap();
                remove_dropped(&l).unwrap();
                assert_eq!(places(&l).unwrap().len(), left);
                assert_eq!((load(&l).unwrap().aside, what(&l).as_str()), (Vec::new(), "new"));
            }
            assert!(!l.dropped().exists());
        }
    }

    #[test]
    fn every_directory_set_aside_for_a_person_is_kept() {
        let tmp = tempfile::tempdir().unwrap();
        let l = layout(tmp.path());
        set_aside_for_a_clone(&l, None);
        remove_all(&l.pgdata()).unwrap();
        for n in 0..4 {
            directory(&l, "another");
            let disk = DiskState {
                dir: Some(id(&format!("d{n}"))),
                ..load(&l).unwrap()
            };
            persist(&l, &disk).unwrap();
            set_aside(&l, "test", None).unwrap();
            assert_eq!(load(&l).unwrap().dir, None);
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let names = ["old", "d0", "d1", "d2", "d3"];
        let left = places(&l).unwrap();
        assert_eq!(left.len(), names.len(), "{left:?}");
        assert!(
            left.iter()
                .zip(names)
                .all(|(place, name)| is_place_of(place, &id(name))),
            "{left:?}"
        );
    }

    #[test]
    fn what_comes_back_takes_nothing_away_that_was_made_to_its_end() {
        let tmp = tempfile::tempdir().unwrap();
        let l = layout(tmp.path());
        set_aside_for_a_clone(&l, None);
        let damaged = DiskState {
            half: false,
            ..load(&l).unwrap()
        };
        persist(&l, &damaged).unwrap();
        put_back(&l, &id("old")).unwrap();
        assert_eq!((what(&l).as_str(), load(&l).unwrap().dir), ("old", Some(id("old"))));
        let kept = place_of(&l, &id("new")).unwrap().unwrap();
        assert_eq!(fs::read_to_string(kept.join("what")).unwrap(), "new");
    }
}
