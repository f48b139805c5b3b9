//! Replication: receivers, walsenders, and what they acknowledge.

use holdfast_core::failover::{Lsn, Term};
use holdfast_core::instance::{Refusal, SyncNames, Upstream, Work};

use crate::event::Ev;
use crate::model::{Conn, Rec, Run};
use crate::world::World;

/// Neither end of a connection hears the other for this long: both give it up (`wal_sender_timeout`), in milliseconds.
pub(crate) const TIMEOUT: u64 = 5_000;

impl World {
    /// The walsenders of a primary.
    pub fn walsenders(&self, m: usize) -> impl Iterator<Item = &Conn> {
        self.conns.iter().filter(move |conn| conn.primary == m)
    }

    pub(crate) fn conn(&self, id: u64) -> Option<usize> {
        self.conns.iter().position(|conn| conn.id == id)
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
        if upstream.is_some() {
            // Who came to it as a candidate is sent away first: it is none any more.
            self.sends_away(m);
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

    /// A standby keeps no slots, and sends nobody anything.
    fn sends_away(&mut self, m: usize) {
        if let Some(dir) = &mut self.members[m].dir {
            dir.slots.clear();
        }
        let ends: Vec<u64> = self.walsenders(m).map(|conn| conn.id).collect();
        for conn in ends {
            self.break_conn(conn);
        }
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
        let slot = primary
            .dir
            .as_ref()
            .and_then(|dir| dir.slots.get(&self.members[m].name));
        let held = slot.is_some_and(Option::is_some);
        // A candidate that is promoted in a moment has slots, too.
        let sends = matches!(primary.engine.run, Run::Primary | Run::Standby);
        if taken || slot.is_none() || !reached || !sends || primary.engine.stopping {
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
                .any(|(t, end)| *t == term && own.lsn(start) <= *end);
        let refused = if !on || own.timeline > theirs.timeline {
            Some("requested starting point is not in this server's history")
        } else if !held {
            Some("can no longer get changes from replication slot")
        } else if start < theirs.gone {
            Some("requested WAL segment has already been removed")
        } else {
            None
        };
        if let Some(why) = refused {
            self.members[m].engine.diverged = Some(Refusal {
                why: why.to_owned(),
                removed: on && own.timeline <= theirs.timeline,
            });
            return self.push(again, Ev::Connect { m, run });
        }
        if let Some(last) = own.log.last()
            && !theirs.has(start, last.chain)
        {
            return self.violated("I7", format!("m{m} and m{p} have different content under one timeline"));
        }
        let past = primary.engine.run == Run::Standby;
        let conn = Conn {
            id,
            primary: p,
            standby: m,
            dir: own.id.clone(),
            view: if past {
                SyncNames::Alone
            } else {
                primary.engine.configured.clone()
            },
            past,
            sent: start,
            flushed: own.flushed,
            torn: 0,
            told: own.lsn(own.flushed),
            streaming: false,
            ghost: false,
            alive: self.now,
            next: [self.now; 2],
        };
        let (timeline, history) = (theirs.timeline, theirs.history.clone());
        let over = own.timeline != timeline;
        if let Some(dir) = &mut self.members[m].dir {
            dir.timeline = timeline;
            dir.history = history;
        }
        if over {
            self.members[m].engine.torn = 0;
        }
        self.members[m].engine.receiver = Some(id);
        self.members[m].engine.diverged = None;
        self.conns.push(conn);
        self.push(500, Ev::KeepAlive { conn: id });
        self.send_log(id);
    }

    /// The standby goes over to the timeline that its primary was promoted to, on the connection that it has.
    pub(crate) fn goes_over(&mut self, id: u64) {
        let Some(i) = self.conn(id) else { return };
        let (p, s) = (self.conns[i].primary, self.conns[i].standby);
        if self.members[s].engine.receiver != Some(id) {
            return;
        }
        if !self.passes(p, s) || !self.passes(s, p) || self.members[s].frozen > self.now {
            return self.push(50, Ev::GoesOver { conn: id });
        }
        let (primary, have) = (&self.members[p], self.conns[i].sent);
        let Some(theirs) = &primary.dir else { return };
        let (timeline, history) = (theirs.timeline, theirs.history.clone());
        let fork = history.last().map_or(0, |(_, end)| theirs.upto(*end));
        if have > fork {
            self.members[s].engine.diverged = Some(Refusal {
                why: "requested starting point is not in this server's history".to_owned(),
                removed: false,
            });
            return self.break_conn(id);
        }
        self.conns[i].view = primary.engine.configured.clone();
        self.conns[i].past = false;
        self.conns[i].torn = 0;
        self.members[s].engine.torn = 0;
        if let Some(dir) = &mut self.members[s].dir {
            dir.timeline = timeline;
            dir.history = history;
        }
        self.send_log(id);
    }

    fn seq_id(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    pub(crate) fn send_all(&mut self, m: usize) {
        let ids: Vec<u64> = self.walsenders(m).map(|conn| conn.id).collect();
        for id in ids {
            self.send_log(id);
        }
    }

    /// A walsender sends what is flushed and not sent yet; with nothing to send the standby's word is asked for.
    fn send_log(&mut self, id: u64) {
        let Some(i) = self.conn(id) else { return };
        let delay = 1 + self.rng.below(3);
        let draw = if self.plan.torn && self.rng.chance(300) {
            self.rng.bits()
        } else {
            0
        };
        let conn = &mut self.conns[i];
        let primary = &mut self.members[conn.primary];
        let Some(dir) = &mut primary.dir else {
            return;
        };
        let leads = primary.engine.run == Run::Primary;
        if draw > 0 && leads && dir.flushed == dir.log.len() {
            dir.begin_next(draw);
        }
        let (start, m) = (conn.sent, conn.standby);
        // Of the new timeline nothing is sent before the standby asks for that.
        let fork = dir.history.last().map_or(0, |(_, end)| dir.upto(*end));
        let promoted = conn.past && leads;
        let upto = if promoted { fork.min(dir.flushed) } else { dir.flushed };
        let recs: Vec<Rec> = dir.log[start.min(upto)..upto].to_vec();
        conn.sent = start.max(upto);
        let torn = match (upto == dir.log.len() && !promoted, leads) {
            (true, true) => dir.begun,
            (true, false) => primary.engine.torn,
            _ => 0,
        };
        conn.next[0] = conn.next[0].max(self.now + delay);
        let delay = conn.next[0] - self.now;
        self.push(
            delay,
            Ev::Recv {
                conn: id,
                m,
                start,
                recs,
                torn,
            },
        );
    }

    pub(crate) fn recv(&mut self, id: u64, m: usize, start: usize, recs: Vec<Rec>, torn: u64) {
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
                    torn,
                },
            );
        }
        self.conns[i].alive = self.now;
        // PostgreSQL calls it so once everything is sent, flushed or not
        self.conns[i].streaming = true;
        let Some(dir) = &mut self.members[s].dir else { return };
        let news = start + recs.len() > have;
        dir.log.extend(recs.iter().skip(have - start));
        if start + recs.len() >= have {
            let engine = &mut self.members[s].engine;
            let before = if news { 0 } else { engine.torn };
            engine.torn = torn.max(before);
            self.conns[i].torn = torn;
        }
        let Some(dir) = &self.members[s].dir else { return };
        let (upto, run) = (dir.log.len(), self.members[s].engine.epoch);
        let delay = self.fsync(s);
        self.push(delay, Ev::Flush { m: s, run, upto });
    }

    pub(crate) fn flush(&mut self, m: usize, upto: usize) {
        if self.out_of_space(m, 100) {
            return;
        }
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
        let (delay, p) = (conn.next[1] - self.now, conn.primary);
        let told = self.told(m);
        self.push(
            delay,
            Ev::Ack {
                conn: id,
                m: p,
                flushed,
                told,
            },
        );
    }

    pub(crate) fn ack(&mut self, id: u64, m: usize, flushed: usize, told: Lsn) {
        let Some(i) = self.conn(id) else { return };
        let (p, s) = (self.conns[i].primary, self.conns[i].standby);
        if !self.passes(s, p) {
            return self.push(
                50,
                Ev::Ack {
                    conn: id,
                    m,
                    flushed,
                    told,
                },
            );
        }
        let conn = &mut self.conns[i];
        conn.flushed = conn.flushed.max(flushed);
        conn.told = told;
        conn.alive = self.now;
        let flushed = conn.flushed;
        if self.plan.keeps > 0 {
            let name = self.members[s].name.clone();
            let slots = self.members[p].dir.as_mut().map(|dir| &mut dir.slots);
            if let Some(Some(at)) = slots.and_then(|slots| slots.get_mut(&name)) {
                *at = flushed;
            }
        }
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
        let Some(dir) = &self.members[p].dir else { return };
        // By what it was told, of whatever timeline that was.
        let mut flushed: Vec<usize> = self
            .walsenders(p)
            .filter(|c| !c.past && standbys.contains(&c.dir))
            .map(|c| dir.upto(c.told).max(c.flushed))
            .collect();
        flushed.sort_unstable_by(|a, b| b.cmp(a));
        let Some(upto) = flushed.get(usize::from(*quorum).saturating_sub(1)).copied() else {
            return;
        };
        self.acknowledge(p, upto);
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
}
