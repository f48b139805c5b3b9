//! libgit2's process-wide settings.

use std::{sync::OnceLock, time::Duration};

/// A server that does not answer a connection in 10 s is down for our purposes.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);
/// The longest silence inside an exchange; the deadline of the whole exchange is the source's own.
pub(crate) const SILENCE: Duration = Duration::from_secs(20);

/// Sets what libgit2 only knows per process: time-outs on sockets, and that no configuration of the machine or its users
/// is read (an `insteadOf` or a proxy there would change what a source means). Runs once; later calls return the first
/// result. Call it before threads use libgit2.
pub fn prepare_process() -> Result<(), git2::Error> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    DONE.get_or_init(|| set().map_err(|e| e.message().to_owned()))
        .clone()
        .map_err(|message| git2::Error::from_str(&message))
}

#[allow(unsafe_code)] // libgit2's options are plain globals; `OnceLock` makes this the only write, before the first use
fn set() -> Result<(), git2::Error> {
    use git2::ConfigLevel::{Global, ProgramData, System, XDG};
    unsafe {
        git2::opts::set_server_connect_timeout_in_milliseconds(milliseconds(CONNECT))?;
        git2::opts::set_server_timeout_in_milliseconds(milliseconds(SILENCE))?;
        for level in [System, Global, XDG, ProgramData] {
            git2::opts::set_search_path(level, "/nonexistent")?;
        }
    }
    crate::https::register()
}

fn milliseconds(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}
