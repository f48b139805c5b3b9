//! Performs effects, as the agent's shell does.

use holdfast_core::failover::{Position, Term};
use holdfast_core::instance::{DiskState, Effect, HowToStop, StartAs, SyncNames, Work};

use crate::event::Ev;
use crate::model::{Dir, Run};
use crate::operator;
use crate::world::{ADDRESS, World};

impl World {
    /// How long an fsync takes on this member now.
    pub fn fsync(&mut self, m: usize) -> u64 {
        let quick = 1 + self.rng.below(3);
        let (stalled, slow) = (self.members[m].stalled, self.members[m].slow);
        let slow = if slow > self.now { self.rng.range(30, 400) } else { 0 };
        quick + slow + stalled.saturating_sub(self.now)
    }

    pub(crate) fn perform(&mut self, m: usize, effect: Effect) {
        if self.story.is_some() {
            self.tell_effect(m, &effect);
        }
        let (epoch, run) = (self.members[m].epoch, self.members[m].engine.epoch);
        match effect {
            Effect::ReadRecord => self.ask_read(m),
            Effect::WriteRecord { expect, record } => self.ask_write(m, expect, record),
            Effect::Send { to, message } => {
                if let Some(to) = self.index(&to) {
                    self.send(m, to, message);
                }
            }
            Effect::Persist(disk) => {
                let delay = self.fsync(m);
                self.push(
                    delay,
                    Ev::Persisted {
                        m,
                        epoch,
                        disk: Box::new(disk),
                    },
                );
            }
            Effect::Initdb => self.begin_work(m, Work::Initdb, None),
            Effect::Clone { from } => {
                if let Some(dir) = self.members[m].dir.take() {
                    self.ghosts.push(dir);
                }
                self.members[m].whole = false;
                self.begin_work(m, Work::Clone, Some(from));
            }
            Effect::Rewind { to } => self.begin_rewind(m, to),
            Effect::SetAside { .. } | Effect::PutBack { .. } => {
                let work = match effect {
                    Effect::PutBack { .. } => Work::PutBack,
                    _ => Work::SetAside,
                };
                self.members[m].moving = Some(effect);
                self.begin_work(m, work, None);
            }
            Effect::DropAside { dir, .. } => self.drop_aside(m, &dir),
            Effect::Start(how) => self.engine_start(m, epoch, how),
            Effect::Stop(how) => self.engine_stop(m, epoch, how),
            Effect::Follow(upstream) => {
                // One after the other, in the order asked for.
                let quick = 2 + self.rng.below(30);
                let member = &mut self.members[m];
                member.follow_after = member.follow_after.max(self.now + quick);
                let delay = member.follow_after - self.now;
                self.push(
                    delay,
                    Ev::Followed {
                        m,
                        epoch,
                        run,
                        upstream,
                    },
                );
            }
            Effect::Promote { term, sync } => {
                let delay = self.rng.range(30, 150) + self.fsync(m);
                self.push(
                    delay,
                    Ev::Promoted {
                        m,
                        epoch,
                        run,
                        term: term.0,
                        sync,
                    },
                );
            }
            Effect::SetSync(sync) => {
                let delay = self.rng.range(2, 20);
                self.push(delay, Ev::SyncSet { m, epoch, run, sync });
            }
            Effect::EndWalsenders(dirs) => {
                let conns: Vec<u64> = self
                    .walsenders(m)
                    .filter(|c| dirs.contains(&c.dir))
                    .map(|c| c.id)
                    .collect();
                let slow = self.weather.slow_reload > self.now && self.rng.chance(300);
                let delay = if slow {
                    self.rng.range(100, 1_500)
                } else {
                    self.rng.range(1, 25)
                };
                self.push(delay, Ev::WalsendersEnded { m, epoch, run, conns });
            }
            Effect::Gate { open } => {
                let quick = self.rng.range(1, 20);
                let stall = if open { 0 } else { self.fsync(m) - 1 };
                let member = &mut self.members[m];
                member.gate_after = member.gate_after.max(self.now + quick + stall.min(3_000));
                let delay = member.gate_after - self.now;
                self.push(
                    delay,
                    Ev::GateSet {
                        m,
                        epoch,
                        run,
                        open,
                        asked: self.now,
                    },
                );
            }
            Effect::Slots(slots) => {
                let delay = self.fsync(m) + self.rng.below(20);
                self.push(delay, Ev::SlotsSet { m, epoch, run, slots });
            }
            Effect::Look { every_ms } => {
                self.members[m].look = every_ms;
                self.members[m].look_id += 1;
                let id = self.members[m].look_id;
                self.push(1, Ev::Look { m, epoch, id });
            }
            Effect::Exit => self.agent_exit(m),
            // Logical replication is no part of this world.
            Effect::Publish(_) | Effect::Say(_) | Effect::HoldSubscribers(_) => {}
        }
    }

    fn tell_effect(&mut self, m: usize, effect: &Effect) {
        match effect {
            Effect::Send { .. } | Effect::ReadRecord | Effect::Look { .. } | Effect::WriteRecord { .. } => {}
            Effect::Persist(d) => {
                let d = d.clone();
                self.note(|| {
                    format!(
                        "m{m}: persist dir {} term {} sealed {:?} base {}:{} following {:?} led {:?} half {}",
                        d.dir.map_or("-".into(), |dir| dir.0),
                        d.term,
                        d.sealed.map(|t| t.0),
                        d.base.term,
                        d.base.lsn.0,
                        d.following.map(|t| t.0),
                        d.led.map(|t| t.0),
                        d.half
                    )
                });
            }
            Effect::Say(why) => {
                let why = why.to_string();
                self.note(|| format!("m{m}: \"{why}\""));
            }
            Effect::Publish(to) => {
                let rw = to.rw.as_ref().map_or("nobody", |m| m.0.as_str());
                let ro: Vec<&str> = to.ro.iter().map(|m| m.0.as_str()).collect();
                let text = format!("traffic: writes to {rw}, reads to {}", ro.join(" "));
                self.note(|| format!("m{m}: {text}"));
            }
            other => {
                // names without their types, and no address
                let text = format!("{other:?}")
                    .replace(&format!("address: {ADDRESS:?}"), "address: \"\"")
                    .replace("DirId(\"", "")
                    .replace("MemberName(\"", "")
                    .replace("\")", "");
                self.note(|| format!("m{m}: {text}"));
            }
        }
    }

    pub(crate) fn persisted(&mut self, m: usize, disk: DiskState) {
        let full = self.members[m].full > self.now;
        if !full {
            if disk.term < self.members[m].disk.term {
                self.violated("I3", format!("m{m}: its volume's term goes back"));
            }
            // the identity is what the agent says it is: it goes out as `application_name`
            if let (Some(dir), Some(id)) = (self.members[m].dir.as_mut(), &disk.dir) {
                dir.id = id.clone();
            }
            let before = std::mem::replace(&mut self.members[m].disk, disk);
            self.members[m].unsynced = Some(before);
        }
        let epoch = self.members[m].epoch;
        self.tell_done(m, epoch, Work::Persist, !full);
    }

    fn engine_start(&mut self, m: usize, epoch: u32, how: StartAs) {
        // What an engine of before still sends ends now.
        let lingering: Vec<u64> = self
            .conns
            .iter()
            .filter(|conn| conn.primary == m)
            .map(|conn| conn.id)
            .collect();
        for id in lingering {
            self.break_conn(id);
        }
        let down = self.members[m].engine.run == Run::Down && self.members[m].whole;
        let member = &mut self.members[m];
        let Some(dir) = member.dir.as_mut().filter(|_| down) else {
            return self.tell_done(m, epoch, Work::Start, false);
        };
        dir.clean = false;
        let engine = &mut member.engine;
        engine.epoch += 1;
        engine.gate = false;
        engine.diverged = None;
        engine.receiver = None;
        engine.torn = 0;
        engine.stopping = false;
        engine.doomed = false;
        engine.parameters = member.spec.as_ref().map_or(0, operator::parameters);
        engine.waiting.clear();
        engine.run = Run::Starting {
            primary: matches!(how, StartAs::Primary { .. }),
        };
        engine.upstream = None;
        match how {
            StartAs::Primary { sync } => {
                dir.skips += std::mem::take(&mut dir.begun);
                engine.sync = sync.clone();
                engine.configured = sync;
            }
            StartAs::Standby { upstream } => {
                dir.slots.clear();
                engine.upstream = upstream;
                engine.sync = SyncNames::Alone;
            }
        }
        let run = engine.epoch;
        self.tell_done(m, epoch, Work::Start, true);
        let delay = self.rng.range(30, 250);
        self.push(delay, Ev::EngineUp { m, run });
        self.push(delay / 2, Ev::Connect { m, run });
    }

    fn engine_stop(&mut self, m: usize, epoch: u32, how: HowToStop) {
        let run = self.members[m].engine.epoch;
        self.members[m].stops += 1;
        let stop = self.members[m].stops;
        if self.members[m].engine.run == Run::Down {
            return self.tell_done(m, epoch, Work::Stop, true);
        }
        self.members[m].engine.doomed = true;
        match how {
            HowToStop::Clean => {
                let delay = self.rng.range(5, 50);
                self.push(
                    delay,
                    Ev::StopPoll {
                        m,
                        epoch,
                        run,
                        stop,
                        begun: false,
                    },
                );
            }
            HowToStop::Fence { kill_after_ms } => {
                let stalled = self.members[m].stalled > self.now;
                let delay = if stalled { kill_after_ms } else { self.rng.range(2, 30) };
                self.push(delay, Ev::Killed { m, epoch, run, stop });
            }
        }
    }

    pub(crate) fn killed(&mut self, m: usize, epoch: u32, run: u32, stop: u32) {
        if self.members[m].engine.epoch == run {
            self.engine_crash(m, false, true);
        }
        self.stopped(m, epoch, stop);
    }

    /// A stop that was replaced by a harder one ends with that one's end.
    pub(crate) fn stopped(&mut self, m: usize, epoch: u32, stop: u32) {
        if self.members[m].epoch == epoch && self.members[m].stops == stop {
            self.tell_done(m, epoch, Work::Stop, true);
        }
    }

    /// Where a running engine's log ends.
    pub fn position_of(dir: &Dir) -> Position {
        let term = dir.log.last().map_or(0, |rec| rec.term);
        Position {
            term: Term(term),
            lsn: dir.lsn(dir.log.len()),
        }
    }
}
