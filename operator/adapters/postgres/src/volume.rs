//! What a member's volume holds.

use std::fs;
use std::path::Path;
use std::time::Duration;

use holdfast_core::failover::{DirId, MemberName};
use holdfast_core::instance::{DiskState, VolumeSeen};

use crate::aside;
use crate::binaries::Binaries;
use crate::control::{self, Control};
use crate::error::{Error, Result};
use crate::files::{make_private_dir, read_optional, remove_all, rename_durable, sync_dir, write_durable};
use crate::layout::Layout;

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
    aside::remove_dropped(layout)
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
    let (text, said) = bin
        .both("pg_controldata", &["-D", &dir], Duration::from_secs(10))
        .await?;
    // A control file of another major version ends elsewhere, so its checksum says nothing; the engine's start tells what is wrong.
    let checked = major(pgdata).is_none_or(|made_by| made_by == bin.major);
    control::parse(&text, &said, checked)
}

/// Looks at the volume. What a crash left half-made is removed.
pub async fn look(bin: &Binaries, layout: &Layout) -> Result<VolumeSeen> {
    remove_all(&layout.making())?;
    aside::finish_move(layout)?;
    let mut disk = load(layout)?;
    // What a person has removed does not come back.
    let there = aside::places(layout)?;
    disk.aside
        .retain(|aside| there.iter().any(|place| aside::is_place_of(place, &aside.dir)));
    let pgdata = layout.pgdata();
    if !pgdata.join("PG_VERSION").is_file() {
        // A crash between naming a directory and putting it in its place: what has the name is not there.
        disk.dir = None;
        return Ok(VolumeSeen {
            disk,
            whole: false,
            damaged: false,
            system_identifier: None,
            clean: false,
            control: None,
        });
    }
    let seen = match control(bin, &pgdata).await {
        Ok(seen) => Some(seen),
        // What the program found, not that it could not be asked: a disk that hangs damages nothing.
        Err(e @ (Error::Program { .. } | Error::State(_))) => {
            tracing::error!("the control file cannot be used: {e}");
            None
        }
        Err(e) => return Err(e),
    };
    Ok(VolumeSeen {
        disk,
        whole: seen.is_some(),
        damaged: seen.is_none(),
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
    fn a_damaged_state_is_never_read_as_none() {
        let tmp = tempfile::tempdir().unwrap();
        let l = layout(tmp.path());
        prepare(&l).unwrap();
        fs::write(l.state_file(), "{\"term\":").unwrap();
        assert!(load(&l).unwrap_err().permanent());
    }
}
