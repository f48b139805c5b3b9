//! Who is let in, what they write, and when a commit is acknowledged.

use std::collections::BTreeSet;

use holdfast_core::failover::MemberName;
use holdfast_core::instance::{SyncNames, Work};

use crate::event::Ev;
use crate::model::Run;
use crate::world::World;

impl World {
    /// Commits up to here are acknowledged to their clients.
    pub(crate) fn acknowledge(&mut self, m: usize, upto: usize) {
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

    /// The walsenders of the moment when that was asked for are gone; or the time for it is over, and only some of them are.
    pub(crate) fn walsenders_ended(&mut self, m: usize, epoch: u32, conns: Vec<u64>) {
        let late = self.members[m].stalled > self.now || (self.weather.slow_reload > self.now && self.rng.chance(200));
        for conn in conns {
            if !late || self.rng.chance(500) {
                self.break_conn(conn);
            }
        }
        self.tell_done(m, epoch, Work::EndWalsenders, !late);
    }

    /// A gate call is carried out. On a full volume the files that it is made of cannot be written, or were just before.
    pub(crate) fn gate_set(&mut self, m: usize, epoch: u32, open: bool, asked: u64) {
        let full = self.members[m].full > self.now;
        // an opening asked for long ago, before a freeze, is refused
        let late = open && self.now - asked > 500;
        let runs = self.members[m].engine.run == Run::Primary && !self.members[m].engine.doomed && !late;
        if runs && !(full && self.rng.chance(500)) {
            self.gate(m, open);
        }
        self.tell_done(m, epoch, Work::Gate, runs && !full);
    }

    /// Slots are made and dropped; one in use stays.
    pub(crate) fn slots_set(&mut self, m: usize, epoch: u32, slots: BTreeSet<MemberName>) {
        let full = self.members[m].full > self.now;
        let runs = matches!(self.members[m].engine.run, Run::Primary | Run::Standby);
        if runs && !full {
            let used: Vec<MemberName> = self
                .walsenders(m)
                .map(|c| self.members[c.standby].name.clone())
                .collect();
            if let Some(dir) = &mut self.members[m].dir {
                dir.slots
                    .retain(|slot, at| used.contains(slot) || (slots.contains(slot) && at.is_some()));
                for slot in slots {
                    dir.slots.entry(slot).or_insert(Some(dir.flushed));
                }
            }
        }
        self.tell_done(m, epoch, Work::Slots, runs && !full);
    }

    /// A checkpoint removes log: what no slot holds, and what slots may not hold (`max_slot_wal_keep_size`).
    fn remove_log(&mut self, m: usize) {
        let keeps = self.plan.keeps;
        let Some(dir) = self.members[m].dir.as_mut().filter(|_| keeps > 0) else {
            return;
        };
        let oldest = dir.flushed.saturating_sub(keeps);
        for at in dir.slots.values_mut() {
            *at = at.filter(|at| *at >= oldest);
        }
        let held = dir.slots.values().flatten().min();
        dir.gone = dir.gone.max(held.copied().unwrap_or(dir.flushed));
        let Some(slots) = self.members[m].dir.as_ref().map(|dir| &dir.slots) else {
            return;
        };
        let lost = |conn: &&crate::model::Conn| slots.get(&self.members[conn.standby].name) == Some(&None);
        let ends: Vec<u64> = self.walsenders(m).filter(lost).map(|conn| conn.id).collect();
        for conn in ends {
            self.break_conn(conn);
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
        if !self.members[m].serves() || self.out_of_space(m, 200) {
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
        if self.plan.keeps > 0 && noise.is_multiple_of(8) {
            self.remove_log(m);
        }
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
