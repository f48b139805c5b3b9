//! `archive_command`: a process for each file of the log, which needs nothing but the data directory that it is started in and the archive.

use std::path::Path;

use holdfast_core::archive::Why;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::part::READER;
use super::{Push, Pushed, stop};
use crate::error::{Error, Result, file};

/// Who gets the children of the dead. In a Pod that is the agent, which starts no push itself.
const INIT: Pid = Pid::from_raw(1);

/// Pushes a file, as PostgreSQL's archiver asks: `FOLDER MEMBER %p %f`. Whether it counts as archived; a line on standard error, which is
/// in the engine's log, says why not. Changes this process's folder, and ends the process when the engine has to wait for it.
pub fn wal_push(folder: &str, member: &str, path: &str, name: &str) -> bool {
    match push(folder, member, path, name) {
        Ok(Pushed {
            why: Why::Archived | Why::KeepsANumber,
            ..
        }) => true,
        Ok(Pushed { place, why }) => {
            eprintln!("holdfast-agent wal-push: {} {why}", place.display());
            true
        }
        Err(e) => {
            eprintln!("holdfast-agent wal-push: {path} is not archived: {e}");
            false
        }
    }
}

fn push(folder: &str, member: &str, path: &str, name: &str) -> Result<Pushed> {
    // It must not outlive the archiver of an engine that was killed: the directory may be another's copy by then.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| Error::State(format!("prctl: {e}")))?;
    if nix::unistd::getppid() == INIT {
        return Err(Error::State("the archiver that started this has ended".to_owned()));
    }
    let pgdata = std::env::current_dir().map_err(file("find the folder", "."))?;
    let push = Push {
        from: pgdata.join(path),
        pgdata,
        folder: folder.into(),
        member: member.to_owned(),
        name: name.to_owned(),
        reader: READER.into(),
    };
    // An archive that does not answer must not keep a process in the data directory: whoever stops the engine waits until none is there.
    let root = Path::new("/");
    std::env::set_current_dir(root).map_err(file("change to", root))?;
    stop::give_up_when_stopping(&push.pgdata);
    push.run()
}
