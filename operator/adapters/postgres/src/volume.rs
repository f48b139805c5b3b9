//! What a member's volume holds.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_core::failover::{DirId, MemberName};
use holdfast_core::instance::{DiskState, VolumeSeen};

use crate::binaries::Binaries;
use crate::control::{self, Control};
use crate::error::{Error, Result, file};
use crate::files::{make_private_dir, read_optional, remove_all, rename_durable, sync_dir, write_durable};
use crate::layout::Layout;

/// How many directories set aside are kept; the newest ones.
const ASIDE_KEPT: usize = 2;

/// Makes the folders that must be there, and removes what a crash left half removed.
pub fn prepare(layout: &Layout) -> Result<()> {
    for dir in [
        layout.state_dir(),
        layout.aside(),
        layout.socket_dir(),
        layout.engine_tls(),
    ] {
        make_private_dir(&dir)?;
    }
    remove_dropped(layout)
}

/// The state kept beside the data; default where there is none.
pub fn load(layout: &Layout) -> Result<DiskState> {
    let path = layout.state_file();
    match read_optional(&path)? {
        None => Ok(DiskState::default()),
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
            Error::Permanent(format!(
                "{} is damaged ({e}); it says what this member may promise",
                path.display()
            ))
        }),
    }
}

/// Writes the state; returns once it is on disk.
pub fn persist(layout: &Layout, state: &DiskState) -> Result<()> {
    let bytes = serde_json::to_vec(state).map_err(|e| Error::State(e.to_string()))?;
    write_durable(&layout.state_file(), &bytes, 0o600)
}

/// A new identity, never given before: told apart from all others by 64 random bits, readable by people.
pub fn new_dir_id(member: &MemberName) -> DirId {
    let name: String = member
        .0
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '_'
            }
        })
        .take(44)
        .collect();
    DirId(format!("{name}_{:016x}", rand::random::<u64>()))
}

/// Reads the control file of a data directory.
pub async fn control(bin: &Binaries, pgdata: &Path) -> Result<Control> {
    let dir = pgdata.to_string_lossy();
    let text = bin
        .run("pg_controldata", &["-D", &dir], Duration::from_secs(10))
        .await?;
    control::parse(&text)
}

/// Looks at the volume. What a crash left half-made is removed.
pub async fn look(bin: &Binaries, layout: &Layout) -> Result<VolumeSeen> {
    remove_all(&layout.making())?;
    let mut disk = load(layout)?;
    let pgdata = layout.pgdata();
    // A crash in `put_back`: the directory is in its place, and has no name yet.
    let back = disk.dir.is_none()
        && disk
            .aside
            .as_ref()
            .is_some_and(|aside| place_aside(layout, &aside.dir).is_none());
    if back && pgdata.join("PG_VERSION").is_file() {
        disk = disk.with_aside_back();
        persist(layout, &disk)?;
    }
    if !pgdata.join("PG_VERSION").is_file() {
        // A crash between naming a directory and putting it in its place: what has the name is not there.
        disk.dir = None;
        return Ok(VolumeSeen {
            disk,
            whole: false,
            system_identifier: None,
            clean: false,
            control: None,
        });
    }
    let seen = control(bin, &pgdata).await;
    if let Err(e) = &seen {
        tracing::error!("the control file cannot be read: {e}");
    }
    let seen = seen.ok();
    Ok(VolumeSeen {
        disk,
        whole: seen.is_some(),
        system_identifier: seen.as_ref().map(|c| c.system_identifier),
        clean: seen.as_ref().is_some_and(|c| c.clean),
        control: seen.map(|c| c.end(&pgdata)),
    })
}

/// The major version that made a data directory.
pub fn major(pgdata: &Path) -> Option<u32> {
    fs::read_to_string(pgdata.join("PG_VERSION")).ok()?.trim().parse().ok()
}

/// Puts a made directory in its place. The state with its identity must be on disk already.
pub fn place(layout: &Layout) -> Result<()> {
    sync_dir(&layout.making())?;
    rename_durable(&layout.making(), &layout.pgdata())
}

/// Keeps the data directory under another name, for a person; then of those kept only the newest ones.
pub fn set_aside(layout: &Layout, why: &str) -> Result<()> {
    let mut disk = load(layout)?;
    let pgdata = layout.pgdata();
    if pgdata.exists() {
        make_private_dir(&layout.aside())?;
        let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ").to_string();
        let id = disk.dir.as_ref().map_or("unnamed", |d| d.0.as_str());
        let to = layout.aside().join(format!("{stamp}-{id}"));
        rename_durable(&pgdata, &to)?;
        sync_dir(&layout.volume)?;
        fs::write(to.join("holdfast-aside.txt"), format!("{why}\n")).map_err(file("write in", &to))?;
    }
    disk.dir = None;
    disk.half = false;
    persist(layout, &disk)?;
    let needed = disk.aside.as_ref().and_then(|aside| place_aside(layout, &aside.dir));
    let mut kept: Vec<_> = fs::read_dir(layout.aside())
        .map_err(file("list", layout.aside()))?
        .flatten()
        .map(|e| e.path())
        .filter(|path| needed.as_ref() != Some(path))
        .collect();
    kept.sort();
    let extra = kept.len().saturating_sub(ASIDE_KEPT);
    kept.iter().take(extra).try_for_each(|old| remove_all(old))
}

/// Where a directory is that was set aside.
fn place_aside(layout: &Layout, dir: &DirId) -> Option<PathBuf> {
    let ending = format!("-{dir}");
    let entries = fs::read_dir(layout.aside()).ok()?.flatten();
    let mut places: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().ends_with(&ending))
        })
        .collect();
    places.sort();
    places.pop()
}

/// Puts back what was set aside; what is in its place is removed. A crash on the way is mended by [`look`].
pub fn put_back(layout: &Layout) -> Result<()> {
    let mut disk = load(layout)?;
    let from = disk.aside.as_ref().and_then(|aside| place_aside(layout, &aside.dir));
    let Some(from) = from else {
        return Err(Error::Permanent(format!(
            "nothing is in {} that could be put back",
            layout.aside().display()
        )));
    };
    disk.dir = None;
    persist(layout, &disk)?;
    remove_all(&layout.making())?;
    remove_all(&layout.pgdata())?;
    rename_durable(&from, &layout.pgdata())?;
    sync_dir(&layout.aside())?;
    persist(layout, &disk.with_aside_back())
}

/// Forgets what was set aside. One that led stays where it is for a person; another is no more under `aside/` when this
/// returns, and [`remove_dropped`] gives its room back.
pub fn drop_aside(layout: &Layout) -> Result<()> {
    let mut disk = load(layout)?;
    let Some(aside) = disk.aside.take() else { return Ok(()) };
    if let (None, Some(from)) = (aside.led, place_aside(layout, &aside.dir)) {
        remove_dropped(layout)?;
        rename_durable(&from, &layout.dropped())?;
    }
    persist(layout, &disk)
}

/// Removes what [`drop_aside`] left.
pub fn remove_dropped(layout: &Layout) -> Result<()> {
    remove_all(&layout.dropped())
}

/// Bytes free and in all on the volume.
pub fn space(layout: &Layout) -> Option<(u64, u64)> {
    let s = rustix::fs::statvfs(&layout.volume).ok()?;
    Some((
        s.f_bavail.saturating_mul(s.f_frsize),
        s.f_blocks.saturating_mul(s.f_frsize),
    ))
}

#[cfg(test)]
mod tests {
    use holdfast_core::failover::{Lsn, Position, Term};
    use holdfast_core::instance::{Aside, Testimony};

    use super::*;

    fn layout(dir: &Path) -> Layout {
        Layout {
            volume: dir.join("v"),
            run: dir.join("r"),
            ..Layout::default()
        }
    }

    #[test]
    fn identities_fit_an_application_name_and_never_repeat() {
        let m = MemberName("A-very-long.name".repeat(10));
        let (a, b) = (new_dir_id(&m), new_dir_id(&m));
        assert!(a != b && a.0.len() <= 63, "{a}");
        assert!(
            a.0.bytes()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
        );
    }

    #[test]
    fn directories_set_aside_are_kept_up_to_a_number_and_the_newest_stay() {
        let tmp = tempfile::tempdir().unwrap();
        let l = layout(tmp.path());
        prepare(&l).unwrap();
        for n in 0..4 {
            fs::create_dir(l.pgdata()).unwrap();
            let disk = DiskState {
                dir: Some(DirId(format!("d{n}"))),
                ..DiskState::default()
            };
            persist(&l, &disk).unwrap();
            set_aside(&l, "test").unwrap();
            assert_eq!(load(&l).unwrap().dir, None);
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut left: Vec<String> = fs::read_dir(l.aside())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert!(
            left.len() == 2 && left[0].ends_with("d2") && left[1].ends_with("d3"),
            "{left:?}"
        );
    }

    /// A volume with the directory `old`, set aside with its last words, and a clone `new` that is not whole.
    fn set_aside_for_a_clone(l: &Layout, led: Option<Term>) {
        prepare(l).unwrap();
        let lsn = |n| Position {
            term: Term(2),
            lsn: Lsn(n),
        };
        let dir = |name: &str| DirId(name.to_owned());
        let state = DiskState {
            dir: Some(dir("old")),
            term: Term(3),
            testimony: Some(Testimony {
                dir: dir("old"),
                position: lsn(70),
            }),
            aside: Some(Aside {
                dir: dir("old"),
                led,
                base: lsn(50),
                following: Some(Term(2)),
                position: Some(lsn(70)),
            }),
            ..DiskState::default()
        };
        make_private_dir(&l.pgdata()).unwrap();
        fs::write(l.pgdata().join("PG_VERSION"), "17").unwrap();
        fs::write(l.pgdata().join("what"), "old").unwrap();
        persist(l, &state).unwrap();
        set_aside(l, "test").unwrap();
        make_private_dir(&l.pgdata()).unwrap();
        fs::write(l.pgdata().join("what"), "new").unwrap();
        let disk = DiskState {
            dir: Some(dir("new")),
            half: true,
            ..load(l).unwrap()
        };
        persist(l, &disk).unwrap();
    }

    fn what(l: &Layout) -> String {
        fs::read_to_string(l.pgdata().join("what")).unwrap()
    }

    #[test]
    fn what_was_set_aside_for_a_clone_comes_back_with_its_last_words() {
        let tmp = tempfile::tempdir().unwrap();
        let l = layout(tmp.path());
        set_aside_for_a_clone(&l, Some(Term(1)));
        put_back(&l).unwrap();
        let disk = load(&l).unwrap();
        assert_eq!((what(&l).as_str(), disk.dir.unwrap().0.as_str()), ("old", "old"));
        assert_eq!(
            (disk.base.lsn, disk.led, disk.following),
            (Lsn(70), Some(Term(1)), None)
        );
        assert!(!disk.half && disk.aside.is_none() && disk.testimony.is_none() && disk.term == Term(3));
        assert!(put_back(&l).unwrap_err().permanent());
        assert_eq!(what(&l), "old");
    }

    #[tokio::test]
    async fn a_crash_while_it_comes_back_loses_nothing() {
        let tmp = tempfile::tempdir().unwrap();
        let l = layout(tmp.path());
        set_aside_for_a_clone(&l, None);
        // all but the last write of `put_back`
        let before = load(&l).unwrap();
        put_back(&l).unwrap();
        persist(&l, &DiskState { dir: None, ..before }).unwrap();
        let bin = Binaries {
            dir: tmp.path().to_owned(),
            major: 17,
            version: String::new(),
        };
        let seen = look(&bin, &l).await.unwrap();
        assert_eq!(seen.disk.dir, Some(DirId("old".to_owned())));
        assert!(!seen.disk.half && load(&l).unwrap() == seen.disk);
    }

    #[test]
    fn what_was_set_aside_goes_when_its_clone_is_whole_unless_it_led() {
        for (led, left) in [(None, 0), (Some(Term(1)), 1)] {
            let tmp = tempfile::tempdir().unwrap();
            let l = layout(tmp.path());
            set_aside_for_a_clone(&l, led);
            drop_aside(&l).unwrap();
            remove_dropped(&l).unwrap();
            let kept = fs::read_dir(l.aside()).unwrap().count();
            assert_eq!((kept, load(&l).unwrap().aside, what(&l).as_str()), (left, None, "new"));
            assert!(!l.dropped().exists());
        }
    }

    #[test]
    fn a_damaged_state_is_never_read_as_none() {
        let tmp = tempfile::tempdir().unwrap();
        let l = layout(tmp.path());
        prepare(&l).unwrap();
        fs::write(l.state_file(), "{\"term\":").unwrap();
        assert!(load(&l).unwrap_err().permanent());
    }
}
