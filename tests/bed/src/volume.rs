//! Volumes: a file per claim, with an ext4 of exactly the size asked for, on a loop device in the node's mount namespace.
//! Full disks, stalled disks and lost page caches are real in them.

use crate::paths;
use crate::run::{self, command, output, progress, run};
use crate::state::State;
use anyhow::{Context, Result, ensure};
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// The smallest volume made; below it ext4 has no room for a journal.
pub const MIN_BYTES: u64 = 16 << 20;

/// A volume of the bed, as the machine sees it.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Name of the PersistentVolume.
    pub name: String,
    /// The node it lies on.
    pub node: u8,
    /// The mounted file system, reachable for as long as the node has power and this mount.
    pub path: PathBuf,
}

/// Path of a node's file, through the root of its first process.
pub fn through(first: i32, inside: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{first}/root{inside}"))
}

/// File systems of all volumes mounted in a node, as paths on the machine.
pub fn mounted(first: i32) -> Vec<PathBuf> {
    let table = fs::read_to_string(format!("/proc/{first}/mountinfo")).unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .filter(|point| point.starts_with("/run/bed/volumes/"))
        .map(|point| through(first, point))
        .collect()
}

/// Loop devices in use, with the name of the file behind each. The folder is no help: it is the node's view of it.
pub fn loops() -> Vec<(String, OsString)> {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let backing = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
            let backing = PathBuf::from(backing.trim_end().trim_end_matches(" (deleted)"));
            Some((
                entry.file_name().into_string().ok()?,
                backing.file_name()?.to_os_string(),
            ))
        })
        .collect()
}

/// Makes the disk of a volume in a node's folder. The file is sparse: it takes what is written.
pub fn create_disk(node_dir: &Path, name: &str, bytes: u64) -> Result<()> {
    let disks = node_dir.join("disks");
    let (disk, draft) = (disks.join(format!("{name}.img")), disks.join(format!("{name}.new")));
    if !disk.exists() {
        File::create(&draft)?.set_len(bytes.max(MIN_BYTES))?;
        // -m 0: no room kept for root, so that a full disk is full for everybody.
        let options = [
            "-q",
            "-F",
            "-m",
            "0",
            "-E",
            "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
        ];
        output(command(&["mkfs.ext4"]).args(options).arg(&draft))?;
        fs::rename(draft, disk)?;
    }
    Ok(())
}

/// Mounts a volume in a running node, unless it is mounted.
pub fn mount_in(first: i32, name: &str) -> Result<()> {
    let point = format!("/run/bed/volumes/{name}");
    if mounted(first).contains(&through(first, &point)) {
        return Ok(());
    }
    fs::create_dir_all(through(first, &point))?;
    let disk = format!("/run/bed/disks/{name}.img");
    run(&[
        "nsenter",
        "-t",
        &first.to_string(),
        "-m",
        "-p",
        "mount",
        "-t",
        "ext4",
        "-o",
        "loop",
        &disk,
        &point,
    ])?;
    Ok(())
}

/// Mounts all disks in the folder of the node that we are in. What cannot be mounted is named, and the node goes on.
pub fn mount_all(node_dir: &Path) {
    let Ok(entries) = fs::read_dir(node_dir.join("disks")) else {
        return;
    };
    for disk in entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|disk| disk.extension().is_some_and(|end| end == "img"))
    {
        let Some(name) = disk.file_stem() else { continue };
        let point = node_dir.join("volumes").join(name);
        let mounted = fs::create_dir_all(&point)
            .map_err(anyhow::Error::from)
            .and_then(|()| grow_pending(&disk))
            .and_then(|()| output(command(&["mount", "-t", "ext4", "-o", "loop"]).arg(&disk).arg(&point)));
        if let Err(error) = mounted {
            progress(&format!("cannot mount {}: {error:#}", disk.display()));
        }
    }
}

/// Whether nothing holds any disk of a node's folder.
pub fn released(node_dir: &Path) -> bool {
    let disks = fs::read_dir(node_dir.join("disks"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name());
    let disks: Vec<_> = disks.collect();
    !loops().iter().any(|(_, backing)| disks.contains(backing))
}

/// Unmounts a volume, if its node runs, and deletes its disk.
pub fn delete(first: Option<i32>, node_dir: &Path, name: &str) -> Result<()> {
    let inside = format!("/run/bed/volumes/{name}");
    if let Some(first) = first
        && mounted(first).contains(&through(first, &inside))
    {
        run(&["nsenter", "-t", &first.to_string(), "-m", "-p", "umount", &inside])?;
    }
    // The disk last: while it is there, the volume is known to be on this node.
    for end in ["new", "grow", "img"] {
        let left = node_dir.join("disks").join(format!("{name}.{end}"));
        if left.exists() {
            fs::remove_file(left)?;
        }
    }
    let _ = fs::remove_dir(node_dir.join("volumes").join(name));
    Ok(())
}

/// Grows a mounted volume to `bytes`, while it is in use. The kernel allows that to CAP_SYS_RESOURCE only: without it this
/// fails, and the volume grows when its node is next switched on.
pub fn grow(first: i32, node_dir: &Path, name: &str, bytes: u64) -> Result<()> {
    let disk = node_dir.join("disks").join(format!("{name}.img"));
    let pending = pending_growth(&disk);
    if fs::metadata(&disk)?.len() < bytes {
        fs::write(&pending, "")?;
        File::options().write(true).open(&disk)?.set_len(bytes)?;
        let mut devices = loops().into_iter();
        let device = devices.find(|(_, backing)| Some(backing.as_os_str()) == disk.file_name());
        let (device, _) = device.with_context(|| format!("{name} has no loop device"))?;
        let device = format!("/dev/{device}");
        run(&["losetup", "-c", &device])?;
        // In the node's pid namespace too: resize2fs looks up its mounts in /proc/self.
        run(&["nsenter", "-t", &first.to_string(), "-m", "-p", "resize2fs", &device])?;
        fs::remove_file(&pending)?;
    }
    ensure!(
        !pending.exists(),
        "the file system grows when the node is next switched on"
    );
    Ok(())
}

/// The file beside a disk that says that its file system is smaller than it should be.
fn pending_growth(disk: &Path) -> PathBuf {
    disk.with_extension("grow")
}

/// Grows the file system on a disk that is not mounted, if it should.
fn grow_pending(disk: &Path) -> Result<()> {
    let pending = pending_growth(disk);
    if pending.exists() {
        // resize2fs refuses a file system that was not checked; exit status 1 means that something was repaired.
        let checked = command(&["e2fsck", "-f", "-y"])
            .arg(disk)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        ensure!(checked.code().is_some_and(|code| code <= 1), "e2fsck: {checked}");
        output(command(&["resize2fs"]).arg(disk))?;
        fs::remove_file(pending)?;
    }
    Ok(())
}

/// Makes the file system at `path` forget what it has not written to disk, as a loss of power does. No way back but a
/// new mount.
pub fn cut_power(path: &Path) -> Result<()> {
    let (_open, same) = surely_a_volume(path)?;
    // Without -f: the journal is not flushed either (EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH).
    run(&["xfs_io", "-x", "-c", "shutdown", &same])?;
    Ok(())
}

/// Opens the root of a volume and makes sure that it lies on a loop device. Where a volume is not mounted (any more) its
/// path leads to the machine's own file system, and that must never be stopped.
fn surely_a_volume(path: &Path) -> Result<(File, String)> {
    const LOOP_MAJOR: u64 = 7;
    let open = File::open(path).with_context(|| format!("{} is not mounted", path.display()))?;
    let device = std::os::unix::fs::MetadataExt::dev(&open.metadata()?);
    ensure!(
        nix::sys::stat::major(device) == LOOP_MAJOR,
        "{} is not mounted",
        path.display()
    );
    let same = format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        std::os::fd::AsRawFd::as_raw_fd(&open)
    );
    Ok((open, same))
}

/// Stops all writes to the file system at `path` for `time`: writers and fsync hang, as on a dead disk.
pub fn stall(state: &State, path: &Path, time: Duration) -> Result<()> {
    let (_open, same) = surely_a_volume(path)?;
    // The thaw is armed first, in a process of its own: whoever waits for a frozen file system cannot even be killed.
    run::later(state, time, &["fsfreeze", "--unfreeze", paths::text(path)?])?;
    run(&["fsfreeze", "--freeze", &same])?;
    Ok(())
}

/// Ends a stall before its time. A file system that is not stalled is no error.
pub fn thaw_now(path: &Path) {
    let _ = output(command(&["fsfreeze", "--unfreeze"]).arg(path));
}

/// The file that [`fill`] makes.
const BALLAST: &str = ".bed-ballast";

/// Takes all room but `leave` bytes in the file system at `path`.
pub fn fill(path: &Path, leave: u64) -> Result<()> {
    surely_a_volume(path)?;
    let ballast = path.join(BALLAST);
    // What is asked for is a little more than can be had, as metadata takes room too: ask for less until it fits.
    for _ in 0..64 {
        let stat = nix::sys::statvfs::statvfs(path)?;
        let free = stat.blocks_available() * stat.fragment_size();
        if free <= leave + stat.fragment_size() {
            break;
        }
        let have = fs::metadata(&ballast).map_or(0, |meta| meta.len());
        let room = free - leave;
        let grown = [room, room / 2, stat.fragment_size()]
            .into_iter()
            .any(|more| output(command(&["fallocate", "-l", &(have + more).to_string()]).arg(&ballast)).is_ok());
        if !grown {
            break;
        }
    }
    // Allocation is only certain once the file system has written it down.
    File::open(&ballast)
        .and_then(|file| file.sync_all())
        .context("cannot fill the volume")
}

/// Gives the room back.
pub fn unfill(path: &Path) -> Result<()> {
    fs::remove_file(path.join(BALLAST)).context("the volume was not filled by the bed")
}
