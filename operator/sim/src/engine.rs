//! The engine: start, stop, crash, promotion, replication, synchronous commit.

use holdfast_core::failover::{Lsn, Term};
use holdfast_core::instance::{
    Engine as Seen, Event, PrimarySeen, ReplicaSeen, StandbySeen, SyncNames, Upstream, Work,
};

use crate::model::{Conn, Dir, Rec, Run};
use crate::world::{Ev, World};

/// Neither end of a connection hears the other for this long: both give it up (`wal_sender_timeout`), in milliseconds.
const TIMEOUT: u64 = 3_000;

/// The timeline that wrote record `n` of a log on `timeline` with `history`.
fn covering(dir: &Dir, n: usize) -> Term {
    let ancestor = dir
        .history
        .iter()
        .find(|(_, end)| n as u64 <= end.0)
        .map(|(term, _)| *term);
    ancestor.unwrap_or(Term(dir.timeline))
}

impl World {
    /// The walsenders of a primary.
    pub fn walsenders(&self, m: usize) -> impl Iterator<Item = &Conn> {
        self.conns.iter().filter(move |conn| conn.primary == m)
    }

    fn conn(&self, id: u64) -> Option<usize> {
        self.conns.iter().position(|conn| conn.id == id)
    }

    /// Tells the agent what its engine is.
    pub fn tell_engine(&mut self, m: usize) {
        let seen = self.look(m);
        self.step(m, Event::Engine(seen));
    }

    fn engine_changed(&mut self, m: usize) {
        let epoch = self.members[m].epoch;
        let seen = self.look(m);
        self.push(
            1,
            Ev::Agent {
                m,
                epoch,
                event: Event::Engine(seen),
            },
        );
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
                flushed: Lsn(dir.flushed as u64),
                replayed: Lsn(dir.flushed as u64),
                receiving: engine.receiver.is_some(),
                diverged: engine.diverged.clone(),
                history: dir.history.clone(),
            }),
            Run::Primary => Seen::Primary(PrimarySeen {
                term: Term(dir.timeline),
                flushed: Lsn(dir.flushed as u64),
                inserted: Lsn(dir.log.len() as u64),
                sync: engine.sync.clone(),
                history: dir.history.clone(),
                replicas: self
                    .walsenders(m)
                    .map(|conn| ReplicaSeen {
                        dir: conn.dir.clone(),
                        streaming: conn.streaming,
                        flushed: Lsn(conn.flushed as u64),
                        replayed: Lsn(conn.flushed as u64),
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

    pub(crate) fn stop_poll(&mut self, m: usize, epoch: u32, begun: bool) {
        let noise = self.rng.bits();
        let stalled = self.members[m].stalled.saturating_sub(self.now);
        if stalled > 0 {
            let run = self.members[m].engine.epoch;
            return self.push(stalled, Ev::StopPoll { m, epoch, run, begun });
        }
        let member = &mut self.members[m];
        let primary = member.engine.run == Run::Primary;
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
                    begun: true,
                },
            );
        }
        let end = dir.log.len();
        if primary && self.walsenders(m).any(|conn| conn.flushed < end) {
            return self.push(
                10,
                Ev::StopPoll {
                    m,
                    epoch,
                    run,
                    begun: true,
                },
            );
        }
        if let Some(dir) = &mut self.members[m].dir {
            dir.flushed = dir.log.len();
            dir.clean = true;
        }
        self.engine_down(m, false);
        self.tell_done(m, epoch, Work::Stop, true);
    }

    /// Promotion: what was received ends an ancestor's part of the log, and the new term's begins.
    pub(crate) fn promoted(&mut self, m: usize, epoch: u32, term: u32, sync: SyncNames) {
        let noise = self.rng.bits();
        // A checkpointer at work takes the setting up later; until then it is not known what holds, and nothing waits.
        let late = self.rng.chance(200);
        let member = &mut self.members[m];
        let fits = member.engine.run == Run::Standby;
        let Some(dir) = member.dir.as_mut().filter(|d| fits && d.timeline < term) else {
            return self.tell_done(m, epoch, Work::Promote, false);
        };
        let end = dir.log.len();
        let parent = covering(dir, end);
        dir.history.retain(|(_, e)| (e.0 as usize) < end);
        dir.history.push((parent, Lsn(end as u64)));
        dir.timeline = term;
        dir.append(noise);
        dir.flushed = dir.log.len();
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
        self.tell_done(m, epoch, Work::Promote, true);
        self.engine_changed(m);
    }

    /// A changed upstream: the old receiver ends, having flushed what it wrote.
    pub(crate) fn followed(&mut self, m: usize, epoch: u32, upstream: Option<Upstream>) {
        let full = self.members[m].full > self.now;
        if full && self.rng.chance(500) {
            return self.tell_done(m, epoch, Work::Follow, false);
        }
        if let Some(id) = self.members[m].engine.receiver.take() {
            self.conns.retain(|conn| conn.id != id);
        }
        let member = &mut self.members[m];
        if let Some(dir) = &mut member.dir {
            dir.flushed = dir.log.len();
        }
        member.engine.upstream = upstream;
        member.engine.diverged = None;
        let run = member.engine.epoch;
        self.push(1, Ev::Connect { m, run });
        self.tell_done(m, epoch, Work::Follow, !full);
    }

    /// A receiver connects, if the primary's history allows.
    pub(crate) fn connect(&mut self, m: usize) {
        let engine = &self.members[m].engine;
        let run = engine.epoch;
        if engine.receiver.is_some() || !matches!(engine.run, Run::Standby | Run::Starting { primary: false }) {
            return;
        }
        let Some(upstream) = engine.upstream.clone() else {
            return;
        };
        let Some(p) = self.index(&upstream.member) else { return };
        let again = self.rng.range(100, 400);
        let reached = self.passes(m, p) && self.passes(p, m) && self.members[p].frozen <= self.now;
        let id = self.seq_id();
        // The slot is taken until the walsender of before is gone: or one standby would count twice.
        let taken = self.walsenders(p).any(|conn| conn.standby == m);
        let primary = &self.members[p];
        if taken || !reached || primary.engine.run != Run::Primary || primary.engine.stopping {
            return self.push(again, Ev::Connect { m, run });
        }
        let (Some(own), Some(theirs)) = (&self.members[m].dir, &primary.dir) else {
            return;
        };
        let start = own.log.len();
        let term = own.log.last().map_or(Term(0), |rec| Term(rec.term));
        let on = start == 0
            || (term.0 == theirs.timeline && start <= theirs.flushed)
            || theirs
                .history
                .iter()
                .any(|(t, end)| *t == term && start as u64 <= end.0);
        if !on || own.timeline > theirs.timeline {
            self.members[m].engine.diverged =
                Some("requested starting point is not in this server's history".to_owned());
            return self.push(again, Ev::Connect { m, run });
        }
        if let Some(last) = own.log.last()
            && !theirs.has(start, last.chain)
        {
            return self.violated("I7", format!("m{m} and m{p} have different content under one timeline"));
        }
        let conn = Conn {
            id,
            primary: p,
            standby: m,
            dir: own.id.clone(),
            view: primary.engine.configured.clone(),
            sent: start,
            flushed: own.flushed,
            streaming: false,
            ghost: false,
            alive: self.now,
            next: [self.now; 2],
        };
        let (timeline, history) = (theirs.timeline, theirs.history.clone());
        if let Some(dir) = &mut self.members[m].dir {
            dir.timeline = timeline;
            dir.history = history;
        }
        self.members[m].engine.receiver = Some(id);
        self.members[m].engine.diverged = None;
        self.conns.push(conn);
        self.push(500, Ev::KeepAlive { conn: id });
        self.send_log(id);
    }

    fn seq_id(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    fn send_all(&mut self, m: usize) {
        let ids: Vec<u64> = self.walsenders(m).map(|conn| conn.id).collect();
        for id in ids {
            self.send_log(id);
        }
    }

    /// A walsender sends what is flushed and not sent yet; with nothing to send the standby's word is asked for.
    fn send_log(&mut self, id: u64) {
        let Some(i) = self.conn(id) else { return };
        let delay = 1 + self.rng.below(3);
        let conn = &mut self.conns[i];
        let Some(dir) = &self.members[conn.primary].dir else {
            return;
        };
        let (start, m) = (conn.sent, conn.standby);
        let recs: Vec<Rec> = dir.log[start.min(dir.flushed)..dir.flushed].to_vec();
        conn.sent = dir.flushed;
        conn.next[0] = conn.next[0].max(self.now + delay);
        let delay = conn.next[0] - self.now;
        self.push(
            delay,
            Ev::Recv {
                conn: id,
                m,
                start,
                recs,
            },
        );
    }

    pub(crate) fn recv(&mut self, id: u64, m: usize, start: usize, recs: Vec<Rec>) {
        let Some(i) = self.conn(id) else { return };
        let (p, s) = (self.conns[i].primary, self.conns[i].standby);
        if self.members[s].engine.receiver != Some(id) {
            return;
        }
        let have = self.members[s].dir.as_ref().map_or(0, |dir| dir.log.len());
        if !self.passes(p, s) || start > have {
            return self.push(
                50,
                Ev::Recv {
                    conn: id,
                    m,
                    start,
                    recs,
                },
            );
        }
        self.conns[i].alive = self.now;
        // PostgreSQL calls it so once everything is sent, flushed or not
        self.conns[i].streaming = true;
        let Some(dir) = &mut self.members[s].dir else { return };
        dir.log.extend(recs.iter().skip(have - start));
        let (upto, run) = (dir.log.len(), self.members[s].engine.epoch);
        let delay = self.fsync(s);
        self.push(delay, Ev::Flush { m: s, run, upto });
    }

    pub(crate) fn flush(&mut self, m: usize, upto: usize) {
        let Some(dir) = &mut self.members[m].dir else { return };
        dir.flushed = dir.flushed.max(upto.min(dir.log.len()));
        let flushed = dir.flushed;
        let consistent = flushed >= dir.consistent;
        if consistent && self.members[m].engine.run == (Run::Starting { primary: false }) {
            self.members[m].engine.run = Run::Standby;
            self.engine_changed(m);
        }
        let Some(id) = self.members[m].engine.receiver else {
            return;
        };
        let Some(i) = self.conn(id) else { return };
        let mut delay = 1 + self.rng.below(3);
        if self.weather.lossy > self.now && self.rng.chance(100) {
            delay += self.rng.below(1_500);
        }
        let conn = &mut self.conns[i];
        conn.next[1] = conn.next[1].max(self.now + delay);
        let (delay, m) = (conn.next[1] - self.now, conn.primary);
        self.push(delay, Ev::Ack { conn: id, m, flushed });
    }

    pub(crate) fn ack(&mut self, id: u64, m: usize, flushed: usize) {
        let Some(i) = self.conn(id) else { return };
        let (p, s) = (self.conns[i].primary, self.conns[i].standby);
        if !self.passes(s, p) {
            return self.push(50, Ev::Ack { conn: id, m, flushed });
        }
        let conn = &mut self.conns[i];
        conn.flushed = conn.flushed.max(flushed);
        conn.alive = self.now;
        self.release(id);
    }

    /// What a walsender does at each reply: releases the commits that its own view of the setting allows.
    fn release(&mut self, id: u64) {
        let Some(i) = self.conn(id) else { return };
        let conn = &self.conns[i];
        let p = conn.primary;
        let SyncNames::Any { quorum, standbys } = &conn.view else {
            return;
        };
        if !standbys.contains(&conn.dir) {
            return;
        }
        let mut flushed: Vec<usize> = self
            .walsenders(p)
            .filter(|c| standbys.contains(&c.dir))
            .map(|c| c.flushed)
            .collect();
        flushed.sort_unstable_by(|a, b| b.cmp(a));
        let Some(upto) = flushed.get(usize::from(*quorum).saturating_sub(1)).copied() else {
            return;
        };
        self.acknowledge(p, upto);
    }

    /// Commits up to here are acknowledged to their clients.
    fn acknowledge(&mut self, m: usize, upto: usize) {
        let waiting = &mut self.members[m].engine.waiting;
        let before = waiting.len();
        let most = waiting.iter().copied().filter(|lsn| *lsn <= upto).max();
        waiting.retain(|lsn| *lsn > upto);
        let count = before - waiting.len();
        if let Some(lsn) = most {
            self.acknowledged(m, lsn, count as u64);
        }
    }

    /// A changed setting is in force. On a full volume it fails, sometimes after having been written.
    pub(crate) fn sync_set(&mut self, m: usize, epoch: u32, sync: SyncNames) {
        let full = self.members[m].full > self.now;
        if full && self.rng.chance(500) {
            return self.tell_done(m, epoch, Work::SetSync, false);
        }
        let engine = &mut self.members[m].engine;
        engine.sync = sync.clone();
        engine.configured = sync.clone();
        let ids: Vec<u64> = self.walsenders(m).map(|conn| conn.id).collect();
        for conn in ids {
            let slow = self.weather.slow_reload > self.now && self.rng.chance(500);
            let delay = if slow {
                self.rng.range(100, 3_000)
            } else {
                self.rng.below(30)
            };
            self.push(delay, Ev::ViewSet { conn });
        }
        if sync == SyncNames::Alone {
            // the checkpointer wakes everybody who waits
            self.acknowledge(m, usize::MAX);
        }
        self.tell_done(m, epoch, Work::SetSync, !full);
    }

    /// A walsender takes a reload up: it reads the files as they are now.
    pub(crate) fn view_set(&mut self, id: u64) {
        let Some(i) = self.conn(id) else { return };
        let primary = self.conns[i].primary;
        self.conns[i].view = self.members[primary].engine.configured.clone();
        self.release(id);
    }

    pub(crate) fn keep_alive(&mut self, id: u64) {
        let Some(i) = self.conn(id) else { return };
        let conn = &self.conns[i];
        let (p, s) = (conn.primary, conn.standby);
        let awake = self.members[p].frozen <= self.now && self.members[s].frozen <= self.now;
        if awake && !conn.ghost && self.passes(p, s) && self.passes(s, p) {
            self.conns[i].alive = self.now;
        } else if self.now - self.conns[i].alive > TIMEOUT {
            return self.break_conn(id);
        }
        self.push(500, Ev::KeepAlive { conn: id });
    }

    /// Both ends of a connection are gone; the receiver tries again.
    pub fn break_conn(&mut self, id: u64) {
        let Some(i) = self.conn(id) else { return };
        let conn = self.conns.remove(i);
        let engine = &mut self.members[conn.standby].engine;
        if engine.receiver == Some(id) {
            engine.receiver = None;
            let run = engine.epoch;
            let delay = self.rng.range(20, 400);
            self.push(delay, Ev::Connect { m: conn.standby, run });
        }
    }

    /// Lets clients in, or keeps them out.
    pub fn gate(&mut self, m: usize, open: bool) {
        let engine = &mut self.members[m].engine;
        if engine.run != Run::Primary || engine.gate == open {
            return;
        }
        engine.gate = open;
        let run = engine.epoch;
        if open {
            self.opened(m);
            self.push(1, Ev::Client { m, run });
        } else {
            engine.waiting.clear();
        }
    }

    /// A client writes a row.
    pub(crate) fn client(&mut self, m: usize) {
        if !self.members[m].serves() {
            return;
        }
        let noise = self.rng.bits();
        let (delay, pause) = (self.fsync(m), self.rng.range(50, 200));
        let member = &mut self.members[m];
        let run = member.engine.epoch;
        if let Some(dir) = &mut member.dir {
            dir.append(noise);
            let upto = dir.log.len();
            self.push(delay, Ev::LocalFlush { m, run, upto });
        }
        self.push(pause, Ev::Client { m, run });
    }

    pub(crate) fn local_flush(&mut self, m: usize, upto: usize) {
        let member = &mut self.members[m];
        let Some(dir) = &mut member.dir else { return };
        dir.flushed = dir.flushed.max(upto);
        if member.engine.gate {
            member.engine.waiting.push(upto);
        }
        if member.engine.sync == SyncNames::Alone {
            self.acknowledge(m, upto);
        }
        self.send_all(m);
    }
}
