//! What an agent sees.

use serde::{Deserialize, Serialize};

use crate::failover::{DirId, Lsn, MemberName, Position, Record, Term};

use super::effect::{SyncNames, Version};
use super::message::Message;
use super::spec::SetSpec;

/// How a data directory came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// Made by `initdb`.
    Initdb,
    /// Copied from another member.
    Clone,
}

/// What an agent keeps on its volume beside the data; written and fsynced by [`super::Effect::Persist`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskState {
    /// The directory's identity; `None` while there is no whole directory.
    pub dir: Option<DirId>,
    /// The highest term ever seen: it never acknowledges for, or takes log from, an older one.
    pub term: Term,
    /// Sealed for this term; stays across restarts until the record shows a leader of at least this term to follow.
    pub sealed: Option<Term>,
    /// Where the log ended when this directory last began to follow a leader (or was made): what is flushed beyond it came
    /// from `following`.
    pub base: Position,
    /// The term of the leader that it follows, written before its log is taken.
    pub following: Option<Term>,
    /// This directory was the leader's of this term, and was never rewound since.
    pub led: Option<Term>,
    /// A rewind or clone is under way: the directory is not whole and gives no seal.
    pub half: bool,
    /// What the directory that was given up for a rewind or clone under way would seal with. It acknowledges nothing more, so
    /// this counts as its seal; forgotten before the directory that takes its place takes any log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub testimony: Option<Testimony>,
    /// What was set aside until the rule names it no more, oldest first. Written by the work that moves a directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aside: Vec<Aside>,
    /// The id of the last finished command.
    pub last_command: Option<String>,
}

/// Where the log of a directory ended that is no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Testimony {
    /// The directory.
    pub dir: DirId,
    /// The end of its log.
    pub position: Position,
}

/// A directory that was set aside while the rule names it: it may be the only copy of commits but the leader's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Aside {
    /// The directory.
    pub dir: DirId,
    /// As in [`DiskState`] by then. One that led is kept for a person in the end.
    pub led: Option<Term>,
    /// As in [`DiskState`] by then.
    pub base: Position,
    /// As in [`DiskState`] by then.
    pub following: Option<Term>,
    /// Where its log ended, if that was certain.
    pub position: Option<Position>,
}

impl DiskState {
    /// This state once the directory in its place is set aside; `aside` if it may have to come back.
    pub fn set_aside(mut self, aside: Option<Aside>) -> DiskState {
        if let Some(aside) = &aside
            && let Some(position) = aside.position
        {
            let dir = aside.dir.clone();
            self.testimony = Some(Testimony { dir, position });
        }
        self.aside.extend(aside);
        self.dir = None;
        self.half = false;
        self
    }

    /// This state once a directory that was set aside is back in its place, `None` if there is none of that name. What was
    /// sealed for it stays sealed with its last words; without such, where its log ends is yet to be seen.
    pub fn put_back(mut self, dir: &DirId) -> Option<DiskState> {
        let at = self.aside.iter().position(|aside| aside.dir == *dir)?;
        let aside = self.aside.remove(at);
        (self.base, self.following) = match aside.position {
            Some(position) => (position, None),
            None => (aside.base, aside.following),
        };
        self.sealed = None;
        self.testimony = None;
        self.dir = Some(aside.dir);
        self.led = aside.led;
        self.half = false;
        Some(self)
    }

    /// This state without what was set aside under that name.
    pub fn drop_aside(mut self, dir: &DirId) -> DiskState {
        self.aside.retain(|aside| aside.dir != *dir);
        self
    }
}

/// What the volume holds, seen at start and after each work on the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSeen {
    /// The state kept beside the data; default where there is none.
    pub disk: DiskState,
    /// A complete data directory is there.
    pub whole: bool,
    /// A data directory is there whose control file cannot be read or is damaged: not `whole`, and perhaps the only copy of something.
    pub damaged: bool,
    /// From the control file of a whole directory.
    pub system_identifier: Option<u64>,
    /// From the control file: the last shutdown was clean (primary or standby).
    pub clean: bool,
    /// From the control file: the timeline and the end of log that it is sure of: of latest checkpoint (its record's end)
    /// and minimum recovery end, whichever is greater. After a clean stop that is where the log ends.
    pub control: Option<Position>,
}

/// A standby as the primary sees it: one row of `pg_stat_replication`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSeen {
    /// From `application_name`.
    pub dir: DirId,
    /// Caught up and streaming.
    pub streaming: bool,
    /// Flushed on the standby.
    pub flushed: Lsn,
    /// Replayed on the standby.
    pub replayed: Lsn,
    /// This walsender's own view of `synchronous_standby_names`: above 0 when it counts. PostgreSQL takes a reload up
    /// process by process, so this tells when the change is in force here.
    pub counts: bool,
}

/// A running primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimarySeen {
    /// Its timeline, which is the term it writes.
    pub term: Term,
    /// The end of what it has flushed.
    pub flushed: Lsn,
    /// The end of what it has written or inserted.
    pub inserted: Lsn,
    /// The setting in force: postmaster and checkpointer have taken it up, so that each commit from now on waits by it (a
    /// walsender may still count by an older one, see [`ReplicaSeen::counts`]).
    pub sync: SyncNames,
    /// The history of its timeline: each ancestor term with the LSN at which it ended, oldest first; the last 64 do.
    pub history: Vec<(Term, Lsn)>,
    /// Connected standbys.
    pub replicas: Vec<ReplicaSeen>,
    /// The last health write was committed locally (not waiting for standbys) within its deadline.
    pub healthy: bool,
}

/// Why a standby cannot follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// As the engine says it.
    pub why: String,
    /// What it lacks is no more where it asks, and its own log may be a prefix of that: a rewind finds nothing to do.
    pub removed: bool,
}

/// A running standby.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandbySeen {
    /// The end of what is flushed to its disk. The shell reports [`Engine::Starting`] until it knows this for sure: after
    /// a start, once local log is replayed to its end; after a receiver has stopped, what it has flushed. It may lie in the midst of a
    /// record.
    pub flushed: Lsn,
    /// The end of what is replayed.
    pub replayed: Lsn,
    /// A WAL receiver is running.
    pub receiving: bool,
    /// The receiver was refused or the log diverges: rewind or re-clone is needed.
    pub diverged: Option<Refusal>,
    /// History of the timeline followed (of the term persisted as `following`, if its history file is here): each ancestor
    /// term with the LSN at which it ended, oldest first; the last 64 do.
    pub history: Vec<(Term, Lsn)>,
}

/// The engine's process as the shell sees it: reported as often as [`super::Effect::Look`] says, and at once when the
/// variant changes. One that is delivered after an [`Event::Done`] was sampled after that work had ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// No engine process. `clean` when it ended by a clean shutdown that we asked for.
    Down { clean: bool },
    /// Starting or recovering; does not answer queries yet.
    Starting,
    /// Answers as a standby.
    Standby(StandbySeen),
    /// Answers as a primary.
    Primary(PrimarySeen),
    /// The process is there but does not answer within the deadline (stalled disk, freeze).
    Silent,
}

/// The authority record as read.
#[allow(
    clippy::large_enum_variant,
    reason = "a few of them a second: what a copy costs does not matter"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordSeen {
    /// As it was, at this version.
    Found { record: Record, version: Version },
    /// The API server says that there is none.
    Absent,
    /// The API server did not answer in time, or not with a record.
    Unreachable,
}

/// What became of a conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CasOutcome {
    /// Written; this is its version.
    Written { version: Version },
    /// Somebody else wrote first. Read again.
    Conflict,
    /// No answer: it may or may not have been written. Read again.
    Unknown,
}

/// Long-running work, one at a time per kind; its end is reported by [`Event::Done`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Disk state persisted.
    Persist,
    /// `initdb` with bootstrap SQL.
    Initdb,
    /// Copied from another member.
    Clone,
    /// Rewound against the leader.
    Rewind,
    /// Promoted: the engine runs on the new timeline.
    Promote,
    /// Engine start asked for (not: reached).
    Start,
    /// Engine stop.
    Stop,
    /// The data directory was set aside.
    SetAside,
    /// What was set aside is back in its place.
    PutBack,
    /// What was set aside is needed no more.
    DropAside,
    /// Walsenders ended.
    EndWalsenders,
    /// A changed upstream is in force: no receiver of another one runs any more.
    Follow,
    /// A changed `synchronous_standby_names` is in force: postmaster and checkpointer have taken it up.
    SetSync,
    /// Clients are let in, or kept out and none is left.
    Gate,
    /// Slots are made and dropped.
    Slots,
}

/// How work ended.
#[allow(
    clippy::large_enum_variant,
    reason = "a few of them a second: what a copy costs does not matter"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkResult {
    /// Done; the volume as it is now where the work changed it.
    Ok { volume: Option<VolumeSeen> },
    /// Not done: why, for people; `permanent` when trying the same again cannot help (missing WAL, wrong identity).
    Failed { why: String, permanent: bool },
}

/// Everything that can happen to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time passes: at least every 100 ms.
    Tick,
    /// The volume at start.
    Volume(VolumeSeen),
    /// The operator's wish; also re-read from the volume at start.
    Spec(SetSpec),
    /// Answer to [`super::Effect::ReadRecord`]: a linearizable read made after it was asked for.
    Record(RecordSeen),
    /// From a watch of the record: may be old.
    RecordHint(RecordSeen),
    /// Answer to [`super::Effect::WriteRecord`].
    Cas(CasOutcome),
    /// The engine as seen now.
    Engine(Engine),
    /// Work ended.
    Done { work: Work, result: WorkResult },
    /// A peer's message, its sender proved by its certificate.
    Message { from: MemberName, message: Message },
    /// A connection on which this peer had answered has ended, and its machine refuses the next one: nobody listens there any more, or a
    /// network policy turns us away.
    Refused { by: MemberName },
    /// The process is asked to end (SIGTERM: pod deletion, drain).
    Shutdown,
}
