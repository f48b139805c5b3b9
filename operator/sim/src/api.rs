//! The API server: reads, conditional writes with unknown outcome, watches that lag.

use holdfast_core::failover::{Phase, Record};
use holdfast_core::instance::{CasOutcome, Event, Mutant, RecordSeen, Version};

use crate::event::Ev;
use crate::store::Store;
use crate::world::World;

/// A request without an answer is given up after this long, in milliseconds.
const DEADLINE: u64 = 1_000;

impl World {
    /// Whether a member reaches the API server now.
    pub fn api_reachable(&self, m: usize) -> bool {
        self.weather.api_down <= self.now && self.weather.api_cut[m] <= self.now
    }

    fn api_delay(&mut self) -> u64 {
        let flaky = self.weather.api_flaky > self.now;
        if flaky && self.rng.chance(300) {
            self.rng.range(100, 1_800)
        } else {
            self.rng.range(2, 12)
        }
    }

    fn begin(&mut self, m: usize, write: bool) -> u32 {
        let member = &mut self.members[m];
        member.operation += 1;
        let (op, epoch) = (member.operation, member.epoch);
        self.push(DEADLINE, Ev::Deadline { m, epoch, op, write });
        op
    }

    pub(crate) fn ask_read(&mut self, m: usize) {
        let op = self.begin(m, false);
        let (delay, epoch) = (self.api_delay(), self.members[m].epoch);
        self.push(delay, Ev::Read { m, epoch, op });
    }

    pub(crate) fn ask_write(&mut self, m: usize, expect: Version, record: Record) {
        if record.phase == Phase::Promoting {
            self.members[m].elected_on = self.members[m].heard.clone();
        }
        let op = self.begin(m, true);
        let limbo = self.trap(m, &record);
        let (delay, epoch) = (self.api_delay() + limbo, self.members[m].epoch);
        // an answer to nobody
        let op = if limbo > 0 { u32::MAX } else { op };
        self.push(
            delay,
            Ev::Write {
                m,
                epoch,
                op,
                expect,
                record: Box::new(record),
            },
        );
    }

    /// Answers if the request still waits, and the answer passes.
    fn answer(&mut self, m: usize, epoch: u32, op: u32, event: Event) {
        if self.weather.api_flaky > self.now && self.rng.chance(250) {
            return;
        }
        let member = &mut self.members[m];
        if member.epoch == epoch && member.operation == op && self.weather.api_cut[m] <= self.now {
            member.operation += 1;
            // the judge looks at ticks only, between which the way may have been open
            member.contact = self.now;
            let back = match self.weather.api_flaky > self.now && self.rng.chance(300) {
                true => self.rng.range(1, 400),
                false => 1,
            };
            let event = Box::new(event);
            self.push(back, Ev::Agent { m, epoch, event });
        }
    }

    /// How old a record is that is read: never, but for deliberate bugs.
    fn behind(&mut self, m: usize) -> usize {
        let first = !std::mem::replace(&mut self.members[m].fresh, true);
        let cached = match self.mutant {
            Some(Mutant::ReadsCache) => self.rng.chance(300),
            Some(Mutant::SealNotSynced) => first,
            _ => false,
        };
        if cached {
            self.rng.index(self.store.versions.len().min(4))
        } else {
            0
        }
    }

    pub(crate) fn api_read(&mut self, m: usize, epoch: u32, op: u32) {
        if !self.api_reachable(m) {
            return;
        }
        let n = self.store.versions.len() - self.behind(m);
        let version = Store::version(n);
        let seen = match self.store.versions.get(n - 1) {
            Some(record) => RecordSeen::Found {
                record: record.clone(),
                version,
            },
            None => RecordSeen::Absent,
        };
        self.answer(m, epoch, op, Event::Record(seen));
    }

    /// A write that arrives is applied, even when the one who asked has given up or is dead.
    pub(crate) fn api_write(&mut self, m: usize, epoch: u32, op: u32, expect: &Version, record: Record) {
        if !self.api_reachable(m) {
            return;
        }
        let before = self.store.record().cloned();
        let written = self.store.replace(expect, record.clone());
        if written {
            self.note(|| {
                let rule: Vec<&str> = record.rule.standbys.iter().map(|dir| dir.0.as_str()).collect();
                let leader = record.rule.leader.as_ref().map_or("-", |dir| dir.0.as_str());
                format!(
                    "record: term {} {:?} {}, rule {} + {} of {:?}{}   (by m{m})",
                    record.term,
                    record.phase,
                    record.leader,
                    leader,
                    record.rule.quorum,
                    rule,
                    if record.given_up.is_empty() {
                        ""
                    } else {
                        ", without some"
                    }
                )
            });
            self.invariant_terms_grow(before.as_ref(), &record);
            self.invariant_commands_once(before.as_ref(), &record);
            self.accept_loss(before.as_ref(), &record);
            self.invariant_rule_covers(&record);
            self.spring(record.phase, &record.leader);
            self.spread();
        }
        let version = Store::version(self.store.versions.len());
        let outcome = if written {
            CasOutcome::Written { version }
        } else {
            CasOutcome::Conflict
        };
        self.answer(m, epoch, op, Event::Cas(outcome));
    }

    pub(crate) fn api_deadline(&mut self, m: usize, epoch: u32, op: u32, write: bool) {
        let member = &mut self.members[m];
        if member.epoch != epoch || member.operation != op || member.agent.is_none() {
            return;
        }
        member.operation += 1;
        let event = if write {
            Event::Cas(CasOutcome::Unknown)
        } else {
            Event::Record(RecordSeen::Unreachable)
        };
        self.step(m, event);
    }

    /// Watches tell of the last version, sooner or later.
    fn spread(&mut self) {
        let version = self.store.versions.len();
        for m in 0..self.members.len() {
            let lagging = self.weather.watch_lag > self.now;
            let delay = if lagging {
                self.rng.range(50, 5_000)
            } else {
                self.rng.range(3, 40)
            };
            let epoch = self.members[m].epoch;
            self.push(delay, Ev::Watch { m, epoch, version });
            if lagging && version > 1 && self.rng.chance(300) {
                // a watch that was broken off lists again, from a cache that is behind
                let old = version - 1 - self.rng.index(version.min(3) - 1);
                self.push(delay + 20, Ev::Watch { m, epoch, version: old });
            }
        }
    }

    pub(crate) fn watch(&mut self, m: usize, version: usize) {
        if !self.api_reachable(m) {
            return;
        }
        if let Some(record) = self.store.versions.get(version - 1).cloned() {
            let seen = RecordSeen::Found {
                record,
                version: Store::version(version),
            };
            self.step(m, Event::RecordHint(seen));
        }
    }
}
