//! The member's knowledge of the authority record, and its one read or write under way.

use std::sync::Arc;

use crate::failover::{Phase, Record, Term};

use super::effect::{Effect, Version};
use super::event::{CasOutcome, RecordSeen};
use super::machine::Instance;
use super::message::Message;
use super::mutant::Mutant;
use super::{Moment, Role};

/// A read or write under way.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    /// When that was asked for.
    Read(Moment),
    /// The record to be, and when that was asked for.
    Write(Box<Record>, Moment),
}

/// What is known of the record.
#[derive(Clone, Debug, Default)]
pub(super) struct Register {
    /// As last read, written or told, with its version.
    pub known: Option<(Arc<Record>, Version)>,
    /// Read afresh since this process started or thawed: until then it is acted on by nobody.
    pub trusted: bool,
    /// A write ended in conflict or without an answer: read before anything else.
    pub doubtful: bool,
    /// What is known was told by a watch or a peer since it was last read or written.
    pub told: bool,
    /// A write that ended without an answer may still arrive, even after a read that does not show it. Only another write
    /// that succeeds makes its version impossible.
    pub ghost: bool,
    /// The record says that elections may do without proof, or may come to say so by a write of this leader's that may still
    /// arrive.
    pub asynchronous: bool,
    /// Under way.
    pub operation: Option<Operation>,
    /// When the API server last answered.
    pub contact: Option<Moment>,
    /// When it was last asked to read, or had the answer to that: where answers take longer than the time between two reads,
    /// the next read must not take the place of every write.
    pub asked: Option<Moment>,
    /// How long the answer to its last write took.
    pub took: u64,
    /// When this member last thawed: what it asked for before may be answered with what was true before.
    pub thawed: Option<Moment>,
    /// When this member last wrote.
    pub written: Option<Moment>,
}

/// Phases of one term come in this order.
fn order(record: &Record) -> (Term, u8) {
    let phase = match record.phase {
        Phase::Sealing => 0,
        Phase::Promoting => 1,
        Phase::Leading => 2,
    };
    (record.term, phase)
}

impl Instance {
    /// The record, if it was read since start or thaw.
    pub(super) fn record(&self) -> Option<&Record> {
        self.register
            .known
            .as_ref()
            .filter(|_| self.register.trusted)
            .map(|(record, _)| record.as_ref())
    }

    /// The same, to keep while this machine changes.
    pub(super) fn record_shared(&self) -> Option<Arc<Record>> {
        let known = self.register.known.as_ref().filter(|_| self.register.trusted);
        known.map(|(record, _)| Arc::clone(record))
    }

    /// Answer to a read.
    pub(super) fn on_record(&mut self, seen: RecordSeen) {
        let asked = match self.register.operation.take() {
            Some(Operation::Read(asked)) => Some(asked),
            _ => None,
        };
        if asked < self.register.thawed {
            // The answer lay there while this machine was frozen.
            self.register.asked = None;
            return self.on_hint(seen);
        }
        self.register.asked = Some(self.now);
        match seen {
            RecordSeen::Found { record, version } => {
                self.register.contact = Some(self.now);
                self.register.trusted = true;
                self.register.doubtful = false;
                self.register.told = false;
                let older = self
                    .register
                    .known
                    .as_ref()
                    .is_some_and(|(known, _)| order(&record) < order(known));
                if !older {
                    self.learn(record, version);
                }
            }
            RecordSeen::Absent => self.register.contact = Some(self.now),
            RecordSeen::Unreachable => {}
        }
    }

    /// A watch event or a peer's word: may be old. It is believed in this order:
    ///
    /// 1. A later term or phase than known is news.
    /// 2. The same term and phase is another member's rule change: believed by all but the leader itself, who alone writes
    ///    the record then and must not take a rule of before for the one in force.
    /// 3. Anything else is old.
    pub(super) fn on_hint(&mut self, seen: RecordSeen) {
        let RecordSeen::Found { record, version } = seen else {
            return;
        };
        let Some((known, _)) = &self.register.known else { return };
        let mine = known.leader == self.me && !self.mutation.is(Mutant::BelievesHints);
        if order(&record) > order(known) || (order(&record) == order(known) && !mine) {
            self.register.told = true;
            self.learn(record, version);
        }
    }

    fn learn(&mut self, record: Record, version: Version) {
        let changed = self.register.known.as_ref().is_none_or(|(known, _)| {
            (known.term, known.phase, &known.leader) != (record.term, record.phase, &record.leader)
        });
        if changed {
            self.watch_since = self.now;
            self.lost_since = None;
        }
        self.register.asynchronous |= record.asynchronous;
        self.register.known = Some((Arc::new(record), version));
    }

    /// Answer to a write. Only a success is acted on; what became of anything else is found out by reading.
    pub(super) fn on_cas(&mut self, outcome: CasOutcome) {
        let Some(Operation::Write(record, asked)) = self.register.operation.take() else {
            return;
        };
        let record = *record;
        let version = match outcome {
            CasOutcome::Written { version } => version,
            CasOutcome::Unknown if self.mutation.is(Mutant::UnknownIsWritten) => self
                .register
                .known
                .as_ref()
                .map_or(Version(String::new()), |(_, version)| version.clone()),
            CasOutcome::Unknown => {
                self.register.ghost = true;
                return self.doubt();
            }
            CasOutcome::Conflict => {
                self.register.contact = Some(self.now);
                return self.doubt();
            }
        };
        self.register.contact = Some(self.now);
        self.register.took = self.now.since(asked);
        self.register.written = Some(self.now);
        self.register.ghost = false;
        self.register.told = false;
        let news = self.register.known.as_ref().is_none_or(|(known, _)| **known != record);
        let older = self
            .register
            .known
            .as_ref()
            .is_some_and(|(known, _)| order(&record) < order(known));
        if older {
            return;
        }
        self.learn(record.clone(), version.clone());
        // No write of before can arrive any more.
        self.register.asynchronous = record.asynchronous;
        // It may have been in force as early as that, however late the answer came.
        self.confirmed_at = Some(asked);
        if news {
            for peer in self.others() {
                let message = Message::Record {
                    record: record.clone(),
                    version: version.clone(),
                };
                self.out.push(Effect::Send { to: peer, message });
            }
        }
    }

    /// Whether the record is for sure as known, and will stay so until this leader writes it again.
    pub(super) fn settled(&self) -> bool {
        let writing = matches!(self.register.operation, Some(Operation::Write(..)));
        self.register.trusted && !self.register.doubtful && !self.register.ghost && !writing
    }

    /// Whether the record known is one that was read or written; else it is read.
    pub(super) fn sure_of_record(&mut self) -> bool {
        let sure = !self.register.told && !self.register.doubtful;
        if !sure {
            self.read();
        }
        sure
    }

    fn doubt(&mut self) {
        self.register.doubtful = true;
        self.register.asked = None;
    }

    /// Asks for a fresh read if nothing is under way.
    pub(super) fn read(&mut self) {
        if self.register.operation.is_none() {
            self.register.operation = Some(Operation::Read(self.now));
            self.register.asked = Some(self.now);
            self.out.push(Effect::ReadRecord);
        }
    }

    /// Writes on the version known, if nothing is under way or in doubt. Whether it was asked for.
    pub(super) fn write(&mut self, record: Record) -> bool {
        if self.register.operation.is_some() || self.register.doubtful || !self.register.trusted {
            return false;
        }
        let Some((_, version)) = &self.register.known else {
            return false;
        };
        self.register.asynchronous |= record.asynchronous;
        self.out.push(Effect::WriteRecord {
            expect: version.clone(),
            record: record.clone(),
        });
        self.register.operation = Some(Operation::Write(Box::new(record), self.now));
        true
    }

    /// Keeps the knowledge fresh: at once when in doubt, hurriedly while something is under way, else now and then.
    pub(super) fn keep_reading(&mut self) {
        let hurried = !self.register.trusted
            || self.register.doubtful
            || self.called > self.record().map_or(Term(0), |r| r.term)
            || !matches!(self.role, Role::Leader | Role::Replica)
            || self.lost_since.is_some()
            || self.isolated();
        let every = if hurried {
            self.timings.read_hurried
        } else if self.needs_the_record() {
            self.timings.detect
        } else {
            self.timings.read_quiet
        };
        let due = self.register.asked.is_none_or(|asked| self.now.since(asked) >= every);
        if due {
            self.read();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{follows, read, reads};
    use super::super::{Event, Moment};

    #[test]
    fn an_answer_to_a_question_of_before_a_freeze_is_not_believed() {
        let mut b = follows();
        let mut now = 100;
        while !reads(&b.step(Moment(now), Event::Tick)) {
            assert!(now < 10_000, "it never reads");
            now += 100;
        }
        // The answer came while it was frozen.
        let out = read(&mut b, now + 3_000);
        assert!(b.record().is_none(), "others may lead by now");
        assert!(reads(&out), "it asks anew: {out:?}");
        read(&mut b, now + 3_020);
        assert!(b.record().is_some());
    }
}
