//! Work on a directory: made, copied, rewound, set aside.

use holdfast_core::failover::{DirId, Term};
use holdfast_core::instance::{DiskState, Effect, Upstream, Work};

use crate::event::Ev;
use crate::model::{Dir, Run, common};
use crate::world::World;

impl World {
    pub(crate) fn begin_work(&mut self, m: usize, work: Work, from: Option<Upstream>) {
        let delay = match work {
            Work::Clone => self.rng.range(100, 800),
            Work::Initdb => self.rng.range(50, 200),
            _ => self.rng.range(20, 200),
        } + self.fsync(m);
        let epoch = self.members[m].epoch;
        self.push(delay, Ev::WorkEnds { m, epoch, work, from });
    }

    /// From its first byte on a rewind has destroyed the tail; a process that dies in it leaves a directory of no use.
    pub(crate) fn begin_rewind(&mut self, m: usize, to: Upstream) {
        let source = self.index(&to.member);
        let reached =
            source.is_some_and(|s| self.passes(m, s) && self.passes(s, m) && self.members[s].frozen <= self.now);
        let running = source.filter(|s| reached && self.members[*s].engine.run == Run::Primary);
        if let Some(other) = running.and_then(|s| self.members[s].dir.clone())
            && let Some(dir) = &mut self.members[m].dir
        {
            let common = common(&dir.log, &other.log[..other.flushed]);
            self.ghosts.push(dir.clone());
            let forsaken = self
                .store
                .record()
                .is_some_and(|record| record.forsaken.contains(&dir.id));
            let gone = (forsaken && common < dir.log.len()).then(|| dir.id.clone());
            // with no tail of its own there is nothing to rewind, and `pg_rewind` leaves it as it is
            if common < dir.log.len() {
                dir.log.truncate(common);
                dir.flushed = common;
                dir.consistent = other.flushed;
            }
            if let Some(id) = gone {
                self.violated(
                    "I9",
                    format!(
                        "m{m} rewinds {}, which a person gave up: its tail is nowhere else",
                        id.0
                    ),
                );
            }
        }
        self.begin_work(m, Work::Rewind, Some(to));
    }

    pub(crate) fn work_ends(&mut self, m: usize, work: Work, from: Option<Upstream>) {
        let source = from.as_ref().and_then(|from| self.index(&from.member));
        let reached =
            source.filter(|s| self.passes(m, *s) && self.passes(*s, m) && self.members[*s].frozen <= self.now);
        let light = matches!(work, Work::SetAside | Work::PutBack);
        let full = self.members[m].full > self.now && !light;
        let ok = !full
            && match work {
                Work::Initdb => self.initdb(m),
                Work::Clone => reached.is_some_and(|s| self.cloned(m, s)),
                Work::Rewind => reached.is_some_and(|s| self.rewound(m, s, from.map_or(Term(0), |f| f.term))),
                Work::SetAside | Work::PutBack => self.moved(m),
                _ => true,
            };
        let epoch = self.members[m].epoch;
        self.tell_done(m, epoch, work, ok);
    }

    fn moved(&mut self, m: usize) -> bool {
        let member = &mut self.members[m];
        match member.moving.take() {
            Some(Effect::SetAside { aside, .. }) => {
                let mut dir = member.dir.take();
                if let Some(dir) = &mut dir {
                    // a power cut may come
                    dir.log.truncate(dir.flushed);
                }
                self.ghosts.extend(dir.clone());
                if aside.is_some() {
                    member.aside.extend(dir);
                }
                member.whole = false;
                member.disk = std::mem::take(&mut member.disk).set_aside(aside);
                true
            }
            Some(Effect::PutBack { dir }) => {
                let at = member.aside.iter().position(|kept| kept.id == dir);
                let (Some(at), Some(disk)) = (at, member.disk.clone().put_back(&dir)) else {
                    return false;
                };
                self.ghosts.extend(member.dir.take());
                member.dir = Some(member.aside.remove(at));
                member.whole = true;
                member.disk = disk;
                true
            }
            _ => false,
        }
    }

    /// Beside whatever else goes on.
    pub(crate) fn drop_aside(&mut self, m: usize, dir: &DirId) {
        let member = &mut self.members[m];
        let gone = member.aside.extract_if(.., |kept| kept.id == *dir);
        self.ghosts.extend(gone);
        member.disk = std::mem::take(&mut member.disk).drop_aside(dir);
        let epoch = member.epoch;
        self.tell_done(m, epoch, Work::DropAside, true);
    }

    fn fresh_id(&mut self, m: usize) -> DirId {
        self.made += 1;
        DirId(format!("d{m}{}", ('a'..='z').nth(self.made as usize % 26).unwrap_or('_')) + &self.made.to_string())
    }

    fn initdb(&mut self, m: usize) -> bool {
        let id = self.fresh_id(m);
        let system = self.rng.bits();
        let mut dir = Dir {
            id: id.clone(),
            log: Vec::new(),
            flushed: 3,
            timeline: 1,
            history: Vec::new(),
            consistent: 0,
            system,
            clean: true,
            slots: Default::default(),
            sized: self.plan.torn,
            skips: 0,
            begun: 0,
            gone: 0,
        };
        for _ in 0..3 {
            dir.append(system);
        }
        self.members[m].dir = Some(dir);
        self.members[m].whole = true;
        self.members[m].disk = DiskState {
            dir: Some(id),
            ..DiskState::default()
        };
        true
    }

    fn cloned(&mut self, m: usize, source: usize) -> bool {
        if !matches!(self.members[source].engine.run, Run::Primary | Run::Standby) {
            return false;
        }
        let Some(mut dir) = self.members[source].dir.clone() else {
            return false;
        };
        dir.log.truncate(dir.flushed);
        dir.consistent = dir.flushed;
        dir.clean = true;
        dir.slots.clear();
        dir.id = self.fresh_id(m);
        self.members[m].disk.dir = Some(dir.id.clone());
        self.members[m].dir = Some(dir);
        self.members[m].whole = true;
        true
    }

    fn rewound(&mut self, m: usize, source: usize, term: Term) -> bool {
        let (keeps, from) = (self.plan.keeps, &self.members[source]);
        let Some(other) = from
            .dir
            .clone()
            .filter(|d| from.engine.run == Run::Primary && d.timeline == term.0)
        else {
            return false;
        };
        let Some(dir) = &mut self.members[m].dir else {
            return false;
        };
        let common = common(&dir.log, &other.log[..other.flushed]);
        if common == dir.log.len() && dir.consistent <= common {
            return true;
        }
        dir.log.truncate(common);
        dir.flushed = common;
        dir.timeline = other.timeline;
        dir.history = other.history.clone();
        dir.consistent = other.flushed;
        if keeps > 0 {
            // what the leader still has of its log is copied along: it need not be streamed, when it may be gone
            dir.log = other.log[..other.flushed].to_vec();
            dir.flushed = other.flushed;
        }
        common >= other.gone
    }
}
