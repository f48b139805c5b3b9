//! The engine: start, stop, crash, promotion, replication, synchronous commit.

use holdfast_core::failover::{Lsn, Term};
use holdfast_core::instance::{Engine as Seen, Event, PrimarySeen, ReplicaSeen, StandbySeen, SyncNames, Work};

use crate::event::Ev;
use crate::model::{Conn, Dir, Run};
use crate::replication::TIMEOUT;
use crate::world::World;

/// The timeline that wrote record `n` of a log on `timeline` with `history`.
fn covering(dir: &Dir, n: usize) -> Term {
    let ancestor = dir
        .history
        .iter()
        .find(|(_, end)| dir.lsn(n) <= *end)
        .map(|(term, _)| *term);
    ancestor.unwrap_or(Term(dir.timeline))
}

impl World {
    /// Tells the agent what its engine is.
    pub fn tell_engine(&mut self, m: usize) {
        let seen = self.look(m);
        self.step(m, Event::Engine(seen));
    }

    pub(crate) fn engine_changed(&mut self, m: usize) {
        let epoch = self.members[m].epoch;
        let seen = self.look(m);
        self.push(
            1,
            Ev::Agent {
                m,
                epoch,
                event: Box::new(Event::Engine(seen)),
            },
        );
    }

    /// How far a standby has flushed, with so much of the next record.
    fn with(&self, m: usize, torn: u64) -> Lsn {
        let Some(dir) = &self.members[m].dir else { return Lsn(0) };
        let all = dir.flushed == dir.log.len();
        Lsn(dir.lsn(dir.flushed).0 + if all { torn } else { 0 })
    }

    /// How far a standby tells its walsender that it has flushed: what has come over that connection.
    pub(crate) fn told(&self, m: usize) -> Lsn {
        let conn = self.members[m].engine.receiver.and_then(|id| self.conn(id));
        let torn = conn.and_then(|i| self.conns.get(i)).map_or(0, |conn| conn.torn);
        self.with(m, torn)
    }

    /// How far a standby has received, as PostgreSQL says.
    fn received(&self, m: usize) -> Lsn {
        self.with(m, self.members[m].engine.torn)
    }

    fn look(&self, m: usize) -> Seen {
        let member = &self.members[m];
        let engine = &member.engine;
        let stalled = member.stalled > self.now;
        let Some(dir) = &member.dir else {
            return Seen::Down { clean: false };
        };
        match engine.run {
            Run::Down => Seen::Down { clean: dir.clean },
            Run::Starting { .. } => Seen::Starting,
            Run::Standby => Seen::Standby(StandbySeen {
                flushed: self.received(m),
                replayed: dir.lsn(dir.flushed),
                receiving: engine.receiver.is_some(),
                diverged: engine.diverged.clone(),
                // Of the term that is followed, if that has come.
                history: match member.disk.following == Some(Term(dir.timeline)) {
                    true => dir.history.clone(),
                    false => Vec::new(),
                },
            }),
            Run::Primary => Seen::Primary(PrimarySeen {
                term: Term(dir.timeline),
                flushed: dir.lsn(dir.flushed),
                inserted: dir.lsn(dir.log.len()),
                sync: engine.sync.clone(),
                history: dir.history.clone(),
                replicas: self
                    .walsenders(m)
                    .map(|conn| ReplicaSeen {
                        dir: conn.dir.clone(),
                        streaming: conn.streaming,
                        flushed: conn.told,
                        replayed: conn.told,
                        counts: matches!(&conn.view, SyncNames::Any { standbys, .. } if standbys.contains(&conn.dir)),
                    })
                    .collect(),
                healthy: !stalled,
            }),
        }
    }

    /// The engine has recovered.
    pub(crate) fn engine_up(&mut self, m: usize) {
        let noise = self.rng.bits();
        if self.out_of_space(m, 500) {
            return;
        }
        let member = &mut self.members[m];
        let Some(dir) = &mut member.dir else { return };
        match member.engine.run {
            Run::Starting { primary: true } => {
                // the checkpoint at the end of recovery
                dir.append(noise);
                dir.flushed = dir.log.len();
                member.engine.run = Run::Primary;
            }
            Run::Starting { primary: false } if dir.flushed >= dir.consistent => member.engine.run = Run::Standby,
            _ => return,
        }
        self.engine_changed(m);
    }

    /// The engine ends without warning. A power cut takes what was not flushed; a kill some of it.
    pub fn engine_crash(&mut self, m: usize, power: bool, asked: bool) {
        if self.members[m].engine.run == Run::Down {
            return;
        }
        let lost = |rng: &mut crate::rng::Rng, dir: &Dir| {
            let unflushed = dir.log.len() - dir.flushed;
            if power { unflushed } else { rng.index(unflushed + 1) }
        };
        let member = &mut self.members[m];
        if let Some(dir) = &mut member.dir {
            let keep = dir.log.len() - lost(&mut self.rng, dir);
            dir.log.truncate(keep);
            dir.flushed = keep;
        }
        self.engine_down(m, power);
        if !asked {
            self.engine_changed(m);
        }
    }

    /// The process is gone: so are its connections, at once or, after a power cut, when the other end notices.
    fn engine_down(&mut self, m: usize, power: bool) {
        let engine = &mut self.members[m].engine;
        engine.run = Run::Down;
        engine.epoch += 1;
        engine.gate = false;
        engine.receiver = None;
        engine.waiting.clear();
        let mine: Vec<u64> = self.conns.iter().filter(|c| c.primary == m).map(|c| c.id).collect();
        for id in mine {
            if power {
                // the receiver waits for its time-out
                let at = self.conn(id);
                if let Some(conn) = at.map(|i| self.conns.remove(i)) {
                    let standby = conn.standby;
                    if self.members[standby].engine.receiver == Some(id) {
                        let run = self.members[standby].engine.epoch;
                        self.members[standby].engine.receiver = None;
                        self.push(TIMEOUT, Ev::Connect { m: standby, run });
                    }
                }
            } else {
                self.break_conn(id);
            }
        }
        for conn in self.conns.iter_mut().filter(|c| c.standby == m) {
            conn.ghost = true;
        }
        if !power {
            self.conns.retain(|conn| conn.standby != m);
        }
    }

    pub(crate) fn stop_poll(&mut self, m: usize, epoch: u32, stop: u32, begun: bool) {
        let noise = self.rng.bits();
        let stalled = self.members[m].stalled.saturating_sub(self.now);
        if stalled > 0 {
            let run = self.members[m].engine.epoch;
            return self.push(
                stalled,
                Ev::StopPoll {
                    m,
                    epoch,
                    run,
                    stop,
                    begun,
                },
            );
        }
        let member = &mut self.members[m];
        let primary = member.engine.run == Run::Primary;
        let run_before = member.engine.run;
        let run = member.engine.epoch;
        let Some(dir) = &mut member.dir else { return };
        if primary && !begun {
            member.engine.gate = false;
            member.engine.stopping = true;
            // the shutdown checkpoint
            dir.append(noise);
            dir.flushed = dir.log.len();
            self.send_all(m);
            return self.push(
                5,
                Ev::StopPoll {
                    m,
                    epoch,
                    run,
                    stop,
                    begun: true,
                },
            );
        }
        let end = dir.log.len();
        if primary && self.rng.chance(500) {
            return self.log_ended(m, epoch, stop);
        }
        if primary && self.walsenders(m).any(|conn| conn.flushed < end) {
            return self.push(
                10,
                Ev::StopPoll {
                    m,
                    epoch,
                    run,
                    stop,
                    begun: true,
                },
            );
        }
        if let Some(dir) = &mut self.members[m].dir {
            dir.flushed = dir.log.len();
            // A crash recovery that was stopped says nothing of where the log ends.
            dir.clean = run_before != (Run::Starting { primary: true });
        }
        self.engine_down(m, false);
        self.stopped(m, epoch, stop);
    }

    /// A clean stop is told when the log has ended: walsenders still send it for a while, and may be cut off before they have.
    fn log_ended(&mut self, m: usize, epoch: u32, stop: u32) {
        if let Some(dir) = &mut self.members[m].dir {
            dir.flushed = dir.log.len();
            dir.clean = true;
        }
        let (sending, others) = self.conns.drain(..).partition(|conn| conn.primary == m);
        self.conns = others;
        self.engine_down(m, false);
        let sending: Vec<Conn> = sending;
        for conn in &sending {
            let lasts = self.rng.below(300);
            self.push(lasts, Ev::Gone { conn: conn.id });
        }
        self.conns.extend(sending);
        self.stopped(m, epoch, stop);
    }

    /// Promotion: what was received ends an ancestor's part of the log, and the new term's begins.
    pub(crate) fn promoted(&mut self, m: usize, epoch: u32, term: u32, sync: SyncNames) {
        let noise = self.rng.bits();
        // A checkpointer at work takes the setting up later; until then it is not known what holds, and nothing waits.
        let (late, keeps) = (self.rng.chance(200), self.plan.keeps);
        let member = &mut self.members[m];
        let fits = member.engine.run == Run::Standby;
        let Some(dir) = member.dir.as_mut().filter(|d| fits && d.timeline < term) else {
            return self.tell_done(m, epoch, Work::Promote, false);
        };
        let end = dir.log.len();
        let parent = covering(dir, end);
        let fork = dir.lsn(end);
        dir.history.retain(|(_, e)| *e < fork);
        dir.history.push((parent, fork));
        dir.timeline = term;
        dir.append(noise);
        dir.flushed = dir.log.len();
        if keeps > 0 {
            // A standby keeps no more log than it may need itself.
            dir.gone = dir.gone.max(end.saturating_sub(keeps));
        }
        // Of a record that is there in part nothing is left.
        member.engine.torn = 0;
        member.engine.run = Run::Primary;
        member.engine.gate = false;
        member.engine.configured = sync.clone();
        member.engine.sync = if late {
            SyncNames::Any {
                quorum: 0,
                standbys: Default::default(),
            }
        } else {
            sync
        };
        if self.mutant == Some(holdfast_core::instance::Mutant::ServesWhilePromoting) {
            let engine = &mut self.members[m].engine;
            engine.sync = SyncNames::Alone;
            engine.configured = SyncNames::Alone;
            self.gate(m, true);
        }
        if let Some(id) = self.members[m].engine.receiver.take() {
            self.conns.retain(|conn| conn.id != id);
        }
        let came: Vec<u64> = self.walsenders(m).map(|conn| conn.id).collect();
        for conn in came {
            let delay = self.rng.range(1, 40);
            self.push(delay, Ev::GoesOver { conn });
        }
        self.tell_done(m, epoch, Work::Promote, true);
        self.engine_changed(m);
    }

    /// PostgreSQL panics when it cannot write its log.
    pub(crate) fn out_of_space(&mut self, m: usize, per_mille: u64) -> bool {
        let out = self.members[m].full > self.now && self.rng.chance(per_mille);
        if out {
            self.engine_crash(m, false, false);
        }
        out
    }
}
