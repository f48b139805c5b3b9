//! What the world is made of: logs, directories, engines, connections, members.

use std::collections::BTreeMap;

use holdfast_core::failover::{DirId, Lsn, MemberName, Position, Term};
use holdfast_core::instance::{DiskState, Effect, Instance, Moment, Refusal, SetSpec, SyncNames, Upstream, VolumeSeen};

/// One record of a log. Its place is counted from 1; its LSN is where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rec {
    /// The timeline that wrote it.
    pub term: u32,
    /// Where it ends.
    pub end: u64,
    /// A hash of it and all before: equal chains mean equal prefixes.
    pub chain: u64,
}

/// A data directory.
#[derive(Clone, Debug)]
pub struct Dir {
    /// Its identity.
    pub id: DirId,
    /// What is written; the first `flushed` records are on disk.
    pub log: Vec<Rec>,
    /// How many records survive a power cut.
    pub flushed: usize,
    /// The timeline that it is on.
    pub timeline: u32,
    /// Ancestors of that timeline, and where each ended.
    pub history: Vec<(Term, Lsn)>,
    /// The engine answers once the log is this long (after a clone or rewind).
    pub consistent: usize,
    /// PostgreSQL's system identifier.
    pub system: u64,
    /// The last shutdown was clean.
    pub clean: bool,
    /// Physical slots, by member, and from where each holds the log; `None` when that was too much, and the slot is lost.
    pub slots: BTreeMap<MemberName, Option<usize>>,
    /// Records have sizes, of which some are long; else each counts for one.
    pub sized: bool,
    /// Of a record that a crash left unfinished: the next one begins after that (`XLOG_OVERWRITE_CONTRECORD`).
    pub skips: u64,
    /// So much of the next record is on disk, though it is not finished.
    pub begun: u64,
    /// So many records at the beginning of the log are no more, though this model keeps them to compare.
    pub gone: usize,
}

impl Dir {
    /// Whether the first `n` records end with this chain.
    pub fn has(&self, n: usize, chain: u64) -> bool {
        n == 0 || self.log.get(n - 1).is_some_and(|rec| rec.chain == chain)
    }

    /// Where the first `n` records end.
    pub fn lsn(&self, n: usize) -> Lsn {
        let last = n.checked_sub(1).and_then(|i| self.log.get(i));
        Lsn(last.map_or(0, |rec| rec.end))
    }

    /// How many whole records there are up to there.
    pub fn upto(&self, lsn: Lsn) -> usize {
        self.log.partition_point(|rec| rec.end <= lsn.0)
    }

    /// How long the next record will be.
    fn next_size(&self) -> u64 {
        let last = self.log.last().map_or(1, |rec| rec.chain);
        let draw = (last ^ u64::from(self.timeline)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 61;
        match (self.sized, draw) {
            (false, _) => 1,
            (true, 0 | 1) => 40,
            (true, _) => 2,
        }
    }

    /// Some of the next record reaches the disk.
    pub fn begin_next(&mut self, draw: u64) {
        let most = self.next_size() - 1;
        if most > 0 {
            self.begun = self.begun.max(1 + draw % most);
        }
    }

    /// Writes one more record.
    pub fn append(&mut self, noise: u64) {
        let before = self.log.last().map_or(0, |rec| rec.chain);
        let end = self.lsn(self.log.len()).0 + std::mem::take(&mut self.skips) + self.next_size();
        self.begun = 0;
        let chain = (before ^ noise).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23) ^ u64::from(self.timeline);
        self.log.push(Rec {
            end,
            term: self.timeline,
            chain,
        });
    }
}

/// What an engine process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    Down,
    Starting { primary: bool },
    Standby,
    Primary,
}

/// An engine.
#[derive(Clone, Debug)]
pub struct Engine {
    pub run: Run,
    /// Counts starts and ends, so that what was meant for an earlier process is recognised.
    pub epoch: u32,
    pub upstream: Option<Upstream>,
    /// So much of the next record has come, and counts as flushed until the engine ends or goes over to another timeline.
    pub torn: u64,
    /// The receiver's connection.
    pub receiver: Option<u64>,
    pub diverged: Option<Refusal>,
    pub gate: bool,
    /// In force: sessions wait by it.
    pub sync: SyncNames,
    /// What a new walsender reads.
    pub configured: SyncNames,
    /// Flushed here and not acknowledged yet: LSN.
    pub waiting: Vec<usize>,
    /// A clean stop is under way.
    pub stopping: bool,
    /// A stop was asked for: it overtakes what was asked before.
    pub doomed: bool,
    /// The parameters that it was started with.
    pub parameters: u64,
}

/// A walsender with its receiver.
#[derive(Clone, Debug)]
pub struct Conn {
    pub id: u64,
    pub primary: usize,
    pub standby: usize,
    pub dir: DirId,
    /// The walsender's own view of `synchronous_standby_names`.
    pub view: SyncNames,
    pub sent: usize,
    pub flushed: usize,
    /// So much of the next record has come over it.
    pub torn: u64,
    /// What is flushed, as the standby has told it: the walsender does not know better.
    pub told: Lsn,
    pub streaming: bool,
    /// It came before this primary was promoted, and has not gone over to the new timeline: it counts for nobody.
    pub past: bool,
    /// The standby's end is gone without a word (power cut); the walsender does not know yet.
    pub ghost: bool,
    /// When both ends last heard each other.
    pub alive: u64,
    /// Nothing overtakes on a connection.
    pub next: [u64; 2],
}

/// A member: pod, agent, engine, volume.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: MemberName,
    /// Apart, because what is asked of each member after each event then lies close together.
    pub agent: Option<Box<Instance>>,
    /// Counts agent processes.
    pub epoch: u32,
    pub boot: u64,
    /// Local milliseconds per thousand real ones.
    pub rate: u64,
    /// Its clock has leapt ahead by so much since it booted.
    pub leapt: u64,
    /// Its machine is without power: nothing there answers.
    pub dark: bool,
    /// The Pod exists.
    pub present: bool,
    /// The Pod is being deleted.
    pub deleting: bool,
    /// As a person wishes.
    pub leaving: bool,
    pub fenced: bool,
    /// The last wish that this process has heard.
    pub told: usize,
    /// Gate calls are made one after another.
    pub gate_after: u64,
    /// The same for changes of the upstream.
    pub follow_after: u64,
    /// Counts what was asked to stop the engine.
    pub stops: u32,
    /// It has read the record in this process.
    pub fresh: bool,
    /// What was beside the data before the last write, for the bug that does not sync it.
    pub unsynced: Option<DiskState>,
    pub disk: DiskState,
    pub dir: Option<Dir>,
    /// The directories that `disk.aside` tells of.
    pub aside: Vec<Dir>,
    /// The work that moves a directory, and is under way.
    pub moving: Option<Effect>,
    /// No clone or initdb is half-done.
    pub whole: bool,
    pub engine: Engine,
    /// The wish as last kept on the volume.
    pub spec: Option<SetSpec>,
    pub look: u64,
    pub look_id: u32,
    pub operation: u32,
    pub frozen: u64,
    /// When it last thawed.
    pub thawed: u64,
    pub stalled: u64,
    pub full: u64,
    pub slow: u64,
    /// Where each leader was when this member last heard it.
    pub heard: BTreeMap<usize, u64>,
    /// The same when it last asked to be elected.
    pub elected_on: BTreeMap<usize, u64>,
    /// When this member last heard a word of each other.
    pub words: BTreeMap<usize, u64>,
    /// When this member, while it serves, last reached the API server or members enough.
    pub contact: u64,
}

impl Member {
    /// A member with an empty volume, down.
    pub fn new(name: MemberName) -> Member {
        let engine = Engine {
            run: Run::Down,
            epoch: 0,
            upstream: None,
            torn: 0,
            receiver: None,
            diverged: None,
            gate: false,
            sync: SyncNames::Alone,
            configured: SyncNames::Alone,
            waiting: Vec::new(),
            stopping: false,
            doomed: false,
            parameters: 0,
        };
        Member {
            name,
            agent: None,
            epoch: 0,
            boot: 0,
            rate: 1000,
            leapt: 0,
            dark: false,
            present: true,
            deleting: false,
            leaving: false,
            fenced: false,
            told: 0,
            gate_after: 0,
            follow_after: 0,
            stops: 0,
            fresh: false,
            unsynced: None,
            disk: DiskState::default(),
            dir: None,
            aside: Vec::new(),
            moving: None,
            whole: false,
            engine,
            spec: None,
            look: 500,
            look_id: 0,
            operation: 0,
            frozen: 0,
            thawed: 0,
            stalled: 0,
            full: 0,
            slow: 0,
            heard: BTreeMap::new(),
            elected_on: BTreeMap::new(),
            words: BTreeMap::new(),
            contact: 0,
        }
    }

    /// This member's own clock.
    pub fn clock(&self, now: u64) -> Moment {
        Moment(now.saturating_sub(self.boot) * self.rate / 1000 + self.leapt)
    }

    /// The volume as the shell sees it.
    pub fn volume(&self) -> VolumeSeen {
        let dir = self.dir.as_ref().filter(|_| self.whole);
        VolumeSeen {
            disk: self.disk.clone(),
            whole: dir.is_some(),
            damaged: false,
            system_identifier: dir.map(|d| d.system),
            clean: dir.is_some_and(|d| d.clean),
            control: dir.map(|d| Position {
                term: Term(d.timeline),
                lsn: d.lsn(d.log.len() - self.unreplayed(d)),
            }),
        }
    }

    /// What a standby's control file does not cover: it tells how far the log was replayed. (Any number would do; this one
    /// wants no chance.)
    fn unreplayed(&self, dir: &Dir) -> usize {
        if self.disk.led == Some(Term(dir.timeline)) {
            return 0;
        }
        dir.log.len() % 3
    }

    /// Whether this engine serves clients.
    pub fn serves(&self) -> bool {
        self.engine.run == Run::Primary && self.engine.gate
    }
}

/// How many records two logs have in common from their beginning.
pub(crate) fn common(a: &[Rec], b: &[Rec]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
