//! One member's engine: what is wanted of it, and the handle to its process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_core::failover::{DirId, MemberName, Term};
use holdfast_core::instance::{Aside, DiskState, StartAs, SyncNames, Upstream, VolumeSeen};
use holdfast_wire::{Bootstrap, RejectedParameter};
use tokio::sync::watch;

use crate::archive::{Archive, waiting};
use crate::binaries::Binaries;
use crate::catalog::Catalog;
use crate::error::{Error, Result, file};
use crate::files::{remove_all, write_whole};
use crate::layout::Layout;
use crate::log::{self, Heard};
use crate::session::{Refusal, Session};
use crate::{aside, history, process, slots, volume};

/// What does not change while the agent runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This member.
    pub member: MemberName,
    /// Where files are.
    pub layout: Layout,
    /// Address to listen on.
    pub listen: String,
    /// Port, the same for all members.
    pub port: u16,
    /// How the first data directory is made.
    pub bootstrap: Bootstrap,
    /// Where all log goes, if it is archived.
    pub archive: Option<Archive>,
}

/// The engine's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// There is none; all processes of the data directory are dead.
    Down {
        /// It ended by a clean shutdown that was asked for.
        clean: bool,
    },
    /// It runs.
    Up {
        /// The postmaster.
        pid: u32,
    },
    /// It was asked for a clean stop and has written its last record; it goes once its standbys have that.
    Ended {
        /// The postmaster.
        pid: u32,
    },
}

/// Whose physical slots the engine may have. Changed only while [`Pg::slots`] is held, but for a promotion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Slots {
    /// Nobody's.
    #[default]
    None,
    /// A standby's, of a former process: to be dropped.
    Former,
    /// A primary's, or a candidate's: until it follows somebody.
    Own,
}

/// What the engine is to be.
#[derive(Debug, Default)]
pub(crate) struct Wish {
    /// As the user wrote them.
    pub wanted: BTreeMap<String, String>,
    /// Those of `wanted` that passed the check.
    pub checked: BTreeMap<String, String>,
    /// Those that did not.
    pub rejected: Vec<RejectedParameter>,
    /// The engine did not come up with `wanted`: why.
    pub distrusted: Option<String>,
    /// What the running engine itself refused when it was told to reload, by name.
    pub refused: BTreeMap<String, String>,
    /// What the running process was started with.
    pub started: BTreeMap<String, String>,
    /// The process answered at least once.
    pub ready: bool,
    /// A clean stop was asked for.
    pub stopping: bool,
    pub members: Vec<MemberName>,
    pub sync: SyncNames,
    pub upstream: Option<Upstream>,
    pub open: bool,
    pub dir: Option<DirId>,
    pub following: Option<Term>,
    pub catalog: Option<Catalog>,
    /// What a standby must not be below.
    pub floors: BTreeMap<String, u64>,
    /// Former leaders can be rewound once a checkpoint is on the new timeline. It waits until clients are served, because
    /// a checkpointer at work takes no setting up.
    pub checkpoint_due: bool,
    /// The WAL receiver is being stopped and might still run.
    pub sealing: bool,
    /// Whose slots there may be.
    pub slots: Slots,
    /// Whose log is taken was not promoted yet when the settings were written.
    pub waits_for_leader: bool,
    /// The members that logical subscribers are kept behind.
    pub behind: BTreeSet<MemberName>,
    /// The directory was a primary's when its engine was started as a standby, and it has followed nobody since.
    pub led: bool,
    /// The same, and nobody is let in for that.
    pub former: bool,
}

/// One member's engine.
pub struct Pg {
    /// What does not change.
    pub settings: Settings,
    /// Its programs.
    pub bin: Binaries,
    /// What its log tells.
    pub heard: Heard,
    wish: Mutex<Wish>,
    /// Held while the state file is read and written.
    disk: Arc<Mutex<()>>,
    pub(crate) process: watch::Sender<Process>,
    /// Held while slots are made or dropped.
    pub(crate) slots: tokio::sync::Mutex<()>,
}

impl Pg {
    /// Prepares the folders, ends what a former agent left running, and reads what the volume knows of parameters.
    pub async fn new(settings: Settings, bin: Binaries) -> Result<Arc<Pg>> {
        volume::prepare(&settings.layout)?;
        process::kill_all(settings.layout.pgdata()).await;
        let wish = Wish {
            catalog: Catalog::load(&settings.layout),
            ..Wish::default()
        };
        Ok(Arc::new(Pg {
            settings,
            bin,
            heard: Heard::default(),
            wish: Mutex::new(wish),
            disk: Arc::default(),
            slots: tokio::sync::Mutex::default(),
            process: watch::Sender::new(Process::Down { clean: false }),
        }))
    }

    /// Where files are.
    pub fn layout(&self) -> &Layout {
        &self.settings.layout
    }

    pub(crate) fn wish(&self) -> MutexGuard<'_, Wish> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process as it is now.
    pub fn process(&self) -> Process {
        *self.process.borrow()
    }

    /// Tells changes of the process at once.
    pub fn watch(&self) -> watch::Receiver<Process> {
        self.process.subscribe()
    }

    /// Takes up what was persisted: who this directory is and whom it follows.
    pub fn know(&self, dir: Option<DirId>, following: Option<Term>) {
        let mut wish = self.wish();
        wish.dir = dir.or(wish.dir.take());
        wish.following = following;
    }

    /// Writes the machine's state beside the data; returns once it is on disk. Which directory this is, only the work that
    /// makes or removes one decides: a state decided on before such work ended must not name another.
    pub async fn persist(&self, state: DiskState) -> Result<()> {
        self.know(None, state.following);
        self.write_disk(move |d| {
            let dir = d.dir.take();
            *d = DiskState { dir, ..state };
        })
        .await
    }

    /// Names the directory that is in its place or about to be put there.
    pub(crate) async fn name_directory(&self, dir: Option<DirId>) -> Result<()> {
        self.write_disk(move |d| d.dir = dir).await
    }

    /// Keeps the data directory under another name: for a person, or until it has to come back.
    pub async fn set_aside(&self, why: String, aside: Option<Aside>) -> Result<()> {
        self.gone().await;
        self.on_disk(move |layout| aside::set_aside(layout, &why, aside)).await
    }

    /// Puts back what was set aside.
    pub async fn put_back(&self, dir: DirId) -> Result<()> {
        self.gone().await;
        self.on_disk(move |layout| aside::put_back(layout, &dir)).await
    }

    /// Forgets what was set aside. Its files are removed beside the work that goes on, whether that could be written or not: it may
    /// be their room that was lacking.
    pub async fn drop_aside(&self, dir: DirId, keep: bool) -> Result<()> {
        let written = self.on_disk(move |layout| aside::drop_aside(layout, &dir, keep)).await;
        let layout = self.layout().clone();
        tokio::task::spawn_blocking(move || {
            if let Err(e) = aside::remove_dropped(&layout) {
                tracing::warn!("what was set aside is not removed yet: {e}");
            }
        });
        written
    }

    /// Does something with the volume while nobody else writes the state beside the data.
    async fn on_disk(&self, act: impl FnOnce(&Layout) -> Result<()> + Send + 'static) -> Result<()> {
        let (layout, lock) = (self.layout().clone(), Arc::clone(&self.disk));
        blocking(move || {
            let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
            act(&layout)
        })
        .await
    }

    pub(crate) async fn write_disk(&self, change: impl FnOnce(&mut DiskState) + Send + 'static) -> Result<()> {
        self.on_disk(move |layout| {
            let mut disk = volume::load(layout)?;
            change(&mut disk);
            volume::persist(layout, &disk)
        })
        .await
    }

    /// Looks at the volume, and takes up which directory is there. Looks again as long as nothing could be seen, because of a disk that
    /// hangs, say: what was done to the volume before is done.
    pub async fn look_at_volume(&self) -> Result<VolumeSeen> {
        let seen = loop {
            match volume::look(&self.bin, self.layout()).await {
                Err(e @ (Error::Deadline(_) | Error::Spawn { .. })) => {
                    tracing::warn!("the volume cannot be looked at: {e}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                seen => break seen?,
            }
        };
        self.know(seen.disk.dir.clone(), seen.disk.following);
        Ok(seen)
    }

    /// Starts the engine; returns once its process exists.
    pub async fn start(self: &Arc<Self>, how: StartAs) -> Result<()> {
        self.gone().await;
        if let Process::Up { .. } = self.process() {
            return Err(Error::State("the engine runs already".to_owned()));
        }
        let pgdata = self.layout().pgdata();
        if let Some(made_by) = volume::major(&pgdata)
            && made_by != self.bin.major
        {
            return Err(Error::Permanent(format!(
                "the data was made by PostgreSQL {made_by}, the image has {}: a major upgrade is not a change of image",
                self.bin.major
            )));
        }
        process::kill_all(pgdata.clone()).await;
        let control = volume::control(&self.bin, &pgdata).await?;
        let standby = matches!(how, StartAs::Standby { .. });
        {
            // Work on the slots of the former process ends first: it must not say what there is in the new one.
            let _one = self.slots.lock().await;
            let mut wish = self.wish();
            // Replicas may be read from at any time; a primary lets nobody in until it is told to, and one that was it, and is where its
            // clients still come to, not before it follows another.
            let follows = matches!(&how, StartAs::Standby { upstream: Some(_) });
            wish.former = standby && !follows && (wish.former || control.primary);
            wish.open = standby && !wish.former;
            (wish.sync, wish.upstream) = match how {
                StartAs::Primary { sync } => (sync, None),
                StartAs::Standby { upstream } => (SyncNames::Nobody, upstream),
            };
            wish.floors = if standby { control.floors } else { BTreeMap::new() };
            wish.led = standby && (wish.led || control.primary);
            wish.behind.clear();
            wish.ready = false;
            wish.stopping = false;
            wish.sealing = false;
            wish.checkpoint_due = false;
            wish.slots = if standby { Slots::Former } else { Slots::Own };
        }
        prepare_directory(self.layout(), standby)?;
        if self.layout().waiting().exists() {
            let (layout, archives) = (self.layout().clone(), self.settings.archive.is_some());
            blocking(move || {
                match archives {
                    true => waiting::give_back(&layout.pgdata(), &layout.waiting(), control.redo.as_deref()),
                    false => waiting::give_up(&layout.waiting(), "there is no archive any more"),
                }
                Ok(())
            })
            .await?;
        }
        self.heard.forget();
        self.check_parameters();
        self.write_files()?;
        self.try_out().await;
        self.launch(&[])
    }

    /// Starts the postmaster with additional arguments and watches over it.
    pub(crate) fn launch(self: &Arc<Self>, args: &[&str]) -> Result<()> {
        self.launch_at(&self.layout().pgdata(), args)
    }

    pub(crate) fn launch_at(self: &Arc<Self>, pgdata: &std::path::Path, args: &[&str]) -> Result<()> {
        {
            let mut wish = self.wish();
            wish.started = wish.checked.clone();
        }
        let mut cmd = self.bin.command("postgres");
        cmd.arg("-D")
            .arg(pgdata)
            .arg("-c")
            .arg(format!("config_file={}", self.layout().conf().display()))
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A signal to the agent's own group, as from a terminal, is not for the engine.
            .process_group(0);
        let (mut child, noted) = process::spawn(&mut cmd, "postgres")?;
        let Some(pid) = child.id() else {
            return Err(Error::State("the engine ended at once".to_owned()));
        };
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(log::forward(stderr, self.heard.clone()));
        }
        self.process.send_replace(Process::Up { pid });
        let (me, pgdata) = (Arc::clone(self), pgdata.to_owned());
        tokio::spawn(async move {
            let status = child.wait().await;
            drop(noted);
            // A postmaster that was killed leaves its children behind; they must not outlive what is reported.
            process::kill_all(pgdata).await;
            let clean = status.as_ref().is_ok_and(std::process::ExitStatus::success) && me.wish().stopping;
            match status {
                Ok(status) if clean => tracing::info!("the engine has stopped ({status})"),
                Ok(status) => tracing::warn!("the engine has ended ({status})"),
                Err(e) => tracing::error!("lost sight of the engine: {e}"),
            }
            me.ended();
            me.process.send_replace(Process::Down { clean });
        });
        Ok(())
    }

    /// Opens a session as superuser on the running engine.
    pub async fn session(&self, what: &str, deadline: Duration) -> std::result::Result<Session, Refusal> {
        let Process::Up { .. } = self.process() else {
            return Err(Refusal::NotYet);
        };
        Session::open(
            &self.layout().socket_dir(),
            self.settings.port,
            "postgres",
            what,
            deadline,
        )
        .await
    }
}

/// Runs what waits for the disk where nothing else waits for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::State(e.to_string()))?
}

/// Puts what decides the engine's role into the data directory, and takes out what would override the agent.
fn prepare_directory(layout: &Layout, standby: bool) -> Result<()> {
    let pgdata = layout.pgdata();
    // A volume mounted with an fsGroup may have been opened for the group; PostgreSQL refuses that.
    fs::set_permissions(&pgdata, fs::Permissions::from_mode(0o700)).map_err(file("set the mode of", &pgdata))?;
    remove_all(&pgdata.join("recovery.signal"))?;
    let signal = pgdata.join("standby.signal");
    if standby {
        crate::files::write_durable(&signal, b"", 0o600)?;
        // By them others would get this member's log before anybody can look at the engine.
        slots::remove_physical(&pgdata)?;
    } else {
        remove_all(&signal)?;
        crate::files::sync_dir(&pgdata)?;
    }
    // Read after the generated file, ALTER SYSTEM's would override it.
    write_whole(
        &pgdata.join("postgresql.auto.conf"),
        b"# Parameters are set in the HAReplicaSet.\n",
        0o600,
    )?;
    // The socket and lock file of an engine that was killed are in the way only if another process got its number.
    let lock = pgdata.join("postmaster.pid");
    if let Ok(text) = fs::read_to_string(&lock)
        && let Some(pid) = text.lines().next().and_then(|l| l.trim().parse::<u32>().ok())
        && std::path::Path::new(&format!("/proc/{pid}")).exists()
    {
        remove_all(&lock)?;
    }
    let socket_dir = layout.socket_dir();
    for entry in fs::read_dir(&socket_dir).map_err(file("list", &socket_dir))?.flatten() {
        remove_all(&entry.path())?;
    }
    drop_trailing_markers(&pgdata)
}

/// Removes empty history files that nothing comes after. They only keep numbers for a promotion that was under way; as the
/// newest history they would name a timeline that has no ancestor, and the engine would not start.
fn drop_trailing_markers(pgdata: &std::path::Path) -> Result<()> {
    let found = history::list(pgdata).map_err(file("list", pgdata.join("pg_wal")))?;
    for (term, _) in found.iter().rev().take_while(|(_, empty)| *empty) {
        remove_all(&history::path(pgdata, *term))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_without_a_real_history_after_them_are_removed() {
        let tmp = tempfile::tempdir().unwrap();
        fs::create_dir(tmp.path().join("pg_wal")).unwrap();
        for (n, text) in [(2, ""), (3, "1\t0/3000000\tx\n"), (4, ""), (5, "")] {
            fs::write(history::path(tmp.path(), Term(n)), text).unwrap();
        }
        drop_trailing_markers(tmp.path()).unwrap();
        assert_eq!(history::list(tmp.path()).unwrap(), [(Term(2), true), (Term(3), false)]);
    }
}
