//! Running programs: to completion with a readable error, or in the background so that they outlive us.

use crate::state::State;
use crate::{cgroup, paths};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Builds a command from words. `argv` must not be empty; an empty one fails when it is run.
pub fn command<S: AsRef<OsStr>>(argv: &[S]) -> Command {
    let mut words = argv.iter();
    let mut command = Command::new(words.next().map_or(OsStr::new(""), AsRef::as_ref));
    command.args(words);
    command
}

/// Runs to completion and returns standard output. A failure names the command line and what it said.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let done = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start: {shown}"))?;
    finish(&shown, done)
}

/// [`output`] of the words in `argv`.
pub fn run<S: AsRef<OsStr>>(argv: &[S]) -> Result<String> {
    output(&mut command(argv))
}

/// Like [`output`], with `input` on standard input.
pub fn feed(command: &mut Command, input: &str) -> Result<String> {
    let shown = show(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start: {shown}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it read everything says why on its standard error: that message is the better one.
        let _ = stdin.write_all(input.as_bytes());
    }
    finish(&shown, child.wait_with_output()?)
}

fn finish(shown: &str, done: std::process::Output) -> Result<String> {
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("{shown}: {}: {}", done.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

fn show(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

/// A process that can be recognised later: a pid alone may have been given to somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proc {
    /// Process id in the machine's own pid namespace.
    pub pid: i32,
    /// Start time in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start: u64,
}

impl Proc {
    /// The process `pid`, if it exists and is not a zombie.
    pub fn of(pid: i32) -> Option<Proc> {
        let (state, _, start) = stat(pid)?;
        (state != 'Z').then_some(Proc { pid, start })
    }

    /// Whether this very process still runs.
    pub fn alive(&self) -> bool {
        Proc::of(self.pid) == Some(*self)
    }

    /// Sends a signal; a process that is already gone is no error.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        if self.alive() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid), signal);
        }
    }
}

/// State letter, parent and start time of a process.
pub fn stat(pid: i32) -> Option<(char, i32, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in parentheses and may itself hold spaces and parentheses.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some((state, parent, start))
}

/// The first child of a process, for wrappers such as `unshare --fork`.
pub fn child_of(pid: i32) -> Option<i32> {
    let entries = fs::read_dir("/proc").ok()?;
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .find(|candidate| stat(*candidate).is_some_and(|(state, parent, _)| parent == pid && state != 'Z'))
}

/// A program to start in the background.
pub struct Launch<'a> {
    /// Network namespace by name, or the machine's own.
    pub netns: Option<&'a str>,
    /// Control group directories to enter before the program starts.
    pub cgroups: Vec<PathBuf>,
    /// Where standard output and error go; earlier content is kept.
    pub log: &'a Path,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Additions to the environment.
    pub env: Vec<(&'a str, String)>,
}

impl Launch<'_> {
    /// Starts it in a session of its own, so that neither our end nor a terminal's hang-up ends it.
    pub fn start(self) -> Result<Proc> {
        let mut words: Vec<String> = ["setsid", "sh", "-c"].map(String::from).to_vec();
        // The shell enters the groups itself before it becomes the program: no child can escape in between.
        words.push(
            "n=$1; shift; while [ $n -gt 0 ]; do echo 0 > \"$1\" || exit 1; shift; n=$((n-1)); done; exec \"$@\""
                .into(),
        );
        words.push("sh".into());
        words.push(self.cgroups.len().to_string());
        for group in &self.cgroups {
            words.push(paths::text(&group.join(cgroup::PROCS))?.into());
        }
        if let Some(netns) = self.netns {
            words.push("nsenter".into());
            words.push(format!("--net=/run/netns/{netns}"));
        }
        words.extend(self.argv);
        let log = File::options().create(true).append(true).open(self.log)?;
        let mut command = command(&words);
        command
            .envs(self.env)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start: {}", show(&command)))?;
        let pid = i32::try_from(child.id()).context("pid out of range")?;
        let started =
            Proc::of(pid).with_context(|| format!("{} ended at once, see {}", words.join(" "), self.log.display()))?;
        // Somebody has to collect the exit status while we live, or dead programs would look alive.
        std::thread::spawn(move || child.wait());
        Ok(started)
    }
}

/// Runs `argv` after `time`, whatever becomes of us, unless the bed ends before.
pub fn later(state: &State, time: Duration, argv: &[&str]) -> Result<()> {
    let mut words = vec![
        "sh".into(),
        "-c".into(),
        "sleep \"$1\"; shift; exec \"$@\"".into(),
        "sh".into(),
    ];
    words.push(time.as_secs_f64().to_string());
    words.extend(argv.iter().map(ToString::to_string));
    let cgroups = cgroup::create_freezer(&state.net.id(), "timers")?;
    Launch {
        netns: None,
        cgroups,
        log: &state.log("timers")?,
        argv: words,
        env: Vec::new(),
    }
    .start()?;
    Ok(())
}

/// Polls until `ready` says so. Fails after `limit` with `what` and the last reason given.
pub fn wait_for(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    loop {
        let last = match ready() {
            Ok(true) => return Ok(()),
            Ok(false) => None,
            Err(error) => Some(error),
        };
        if start.elapsed() > limit {
            let because = last.map_or_else(String::new, |error| format!(": {error:#}"));
            bail!("gave up waiting for {what} after {} s{because}", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Says on standard error what is being done and, where it matters, how long that usually takes.
pub fn progress(line: &str) {
    eprintln!("bed: {line}");
}
