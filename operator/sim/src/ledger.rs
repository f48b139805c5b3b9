//! Who judges: what was promised to clients, and the invariants.

use holdfast_core::failover::{Phase, Record};
use holdfast_core::instance::{Durability, SyncNames};

use crate::model::{Rec, common};
use crate::world::World;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// When, in virtual milliseconds.
    pub at: u64,
    /// What happened.
    pub what: String,
}

/// What clients were promised.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// The longest log prefix that an acknowledged or a visible row ends.
    pub promised: Vec<Rec>,
    /// The rows acknowledged.
    pub acknowledged: u64,
    /// When the last one was.
    pub last: u64,
    /// When a leader last began to serve.
    pub opened: u64,
    /// The term that it served in.
    pub term: u32,
    /// The longest time without an acknowledgement between two, while faults struck.
    pub outage: u64,
    /// Elections won.
    pub openings: u64,
    /// The first broken promise.
    pub violation: Option<Violation>,
}

impl World {
    /// A promise is broken: the history ends here.
    pub fn violated(&mut self, invariant: &'static str, what: String) {
        self.note(|| format!("VIOLATION of {invariant}: {what}"));
        if self.ledger.violation.is_none() {
            self.ledger.violation = Some(Violation {
                invariant,
                at: self.now,
                what,
            });
        }
    }

    /// A commit is acknowledged.
    pub(crate) fn acknowledged(&mut self, m: usize, lsn: usize, rows: u64) {
        if self.wakes_deposed(m) {
            return;
        }
        self.ledger.acknowledged += rows;
        self.ledger.outage = self
            .ledger
            .outage
            .max(self.now - self.ledger.last.max(self.ledger.opened.min(self.now)));
        self.ledger.last = self.now;
        if !self.is_promised_already(m, lsn) {
            self.invariant_nothing_lost(m, "acknowledges");
        }
        self.invariant_backed(m, lsn, "acknowledges a commit");
        self.promise(m, lsn);
    }

    /// A gate opens: everything in the log becomes visible to readers.
    pub(crate) fn opened(&mut self, m: usize) {
        self.ledger.opened = self.now;
        self.ledger.openings += 1;
        let end = self.members[m].dir.as_ref().map_or(0, |dir| dir.log.len());
        self.note(|| format!("m{m}: serves, its log ends at {end}"));
        self.invariant_async_bound(m);
        self.ledger.term = self.members[m].dir.as_ref().map_or(0, |dir| dir.timeline);
        self.invariant_nothing_lost(m, "serves");
        // The records of recovery itself (a checkpoint) show nothing to readers; the rows before them do.
        let point = self.members[m].dir.as_ref().map_or(0, |dir| dir.flushed);
        self.invariant_backed(m, point.saturating_sub(1), "lets readers see a commit");
        self.promise(m, point.saturating_sub(1));
    }

    fn promise(&mut self, m: usize, lsn: usize) {
        let Some(dir) = &self.members[m].dir else { return };
        if lsn > self.ledger.promised.len() && lsn <= dir.log.len() {
            let from = self.ledger.promised.len();
            self.ledger.promised.extend_from_slice(&dir.log[from..lsn]);
        }
    }

    /// Whether a commit is part of what was promised: an answer that comes late, because the quorum's word was already
    /// there when the machine froze, tells of a commit that its successor has, too.
    fn is_promised_already(&self, m: usize, lsn: usize) -> bool {
        let Some(dir) = &self.members[m].dir else { return false };
        let promised = lsn.checked_sub(1).and_then(|at| self.ledger.promised.get(at));
        promised.is_some_and(|record| dir.has(lsn, record.chain))
    }

    /// I1: whoever serves or acknowledges has everything that was promised.
    pub(crate) fn invariant_nothing_lost(&mut self, m: usize, does: &str) {
        let Some(dir) = &self.members[m].dir else { return };
        let n = self.ledger.promised.len();
        let Some(last) = self.ledger.promised.last() else {
            return;
        };
        if !dir.has(n, last.chain) {
            let kept = common(&dir.log, &self.ledger.promised);
            let what = format!("m{m} {does}, and lacks {} of {n} promised records", n - kept);
            self.violated("I1", what);
        }
    }

    /// I5: what a leader promises is backed by the rule that the record holds for it: q directories of S have it flushed.
    fn invariant_backed(&mut self, m: usize, lsn: usize, does: &str) {
        let (Some(dir), Some(record)) = (&self.members[m].dir, self.store.record()) else {
            return;
        };
        let Some(rec) = lsn.checked_sub(1).and_then(|i| dir.log.get(i)) else {
            return;
        };
        if record.term.0 != dir.timeline {
            // deposed: that the row is not lost is I1's to judge
            return;
        }
        if record.phase != Phase::Leading || record.rule.leader.as_ref() != Some(&dir.id) {
            let what = format!("m{m} {does} at {lsn}, but the record does not name it as leading");
            return self.violated("I5", what);
        }
        let everyone = self
            .members
            .iter()
            .filter_map(|member| member.dir.as_ref())
            .chain(&self.ghosts);
        let holds =
            |d: &&crate::model::Dir| record.rule.standbys.contains(&d.id) && d.flushed >= lsn && d.has(lsn, rec.chain);
        let mut holders: Vec<&str> = everyone.filter(holds).map(|d| d.id.0.as_str()).collect();
        holders.sort_unstable();
        holders.dedup();
        if holders.len() < usize::from(record.rule.quorum) {
            let what = format!(
                "m{m} {does} at {lsn}, flushed by {holders:?}, while the rule asks for {} of {:?}",
                record.rule.quorum,
                record.rule.standbys.iter().map(|d| d.0.as_str()).collect::<Vec<_>>()
            );
            self.violated("I5", what);
        }
    }

    /// I2: never two members able to acknowledge.
    pub(crate) fn invariant_one_able(&mut self) {
        if self.members.iter().filter(|member| member.serves()).count() < 2 {
            return;
        }
        let able: Vec<usize> = (0..self.members.len()).filter(|m| self.able(*m)).collect();
        if able.len() > 1 {
            self.violated(
                "I2",
                format!("members {able:?} are able to acknowledge at the same time"),
            );
        }
    }

    /// `Async` only: a deposed leader that has just thawed acknowledges alone until its agent, which thawed with it, has
    /// stopped it. No rule can prevent that; it is part of the loss that `Async` accepts.
    fn wakes_deposed(&self, m: usize) -> bool {
        let member = &self.members[m];
        let term = self.store.record().map_or(0, |record| record.term.0);
        let deposed = member.dir.as_ref().is_some_and(|dir| dir.timeline < term);
        member.thawed > 0 && self.now - member.thawed < 1_200 && deposed && member.engine.sync == SyncNames::Alone
    }

    fn able(&self, m: usize) -> bool {
        let member = &self.members[m];
        if !member.serves() || member.frozen > self.now || self.wakes_deposed(m) {
            return false;
        }
        let SyncNames::Any { quorum, standbys } = &member.engine.sync else {
            return member.engine.sync == SyncNames::Alone;
        };
        let live = |conn: &&crate::model::Conn| {
            let standby = &self.members[conn.standby];
            standbys.contains(&conn.dir) && standby.engine.receiver == Some(conn.id) && standby.frozen <= self.now
        };
        self.walsenders(m).filter(live).count() >= usize::from(*quorum)
    }

    /// I3: terms never go back; nor do phases within a term; a term has one leader.
    pub(crate) fn invariant_terms_grow(&mut self, before: Option<&Record>, after: &Record) {
        let order = |phase: Phase| match phase {
            Phase::Sealing => 0,
            Phase::Promoting => 1,
            Phase::Leading => 2,
        };
        let Some(before) = before else { return };
        let ok = (before.term, order(before.phase)) <= (after.term, order(after.phase))
            && (before.term != after.term || before.phase == Phase::Sealing || before.leader == after.leader)
            && (before.term != after.term
                || before.system_identifier.is_none()
                || before.system_identifier == after.system_identifier);
        if !ok {
            let what = format!("the record goes from {:?} to {:?}", before, after);
            self.violated("I3", what);
        }
    }

    /// I10: no change of the record carries out a command that an earlier one has carried out.
    pub(crate) fn invariant_commands_once(&mut self, before: Option<&Record>, after: &Record) {
        let Some(id) = after.last_command.as_ref() else { return };
        if before.and_then(|before| before.last_command.as_ref()) == Some(id) {
            return;
        }
        // the last version is the one just written
        let earlier = self.store.versions.iter().rev().skip(1);
        if earlier
            .into_iter()
            .any(|version| version.last_command.as_ref() == Some(id))
        {
            self.violated(
                "I10",
                format!("command {id} is carried out again in term {}", after.term),
            );
        }
    }

    /// I5, seen from the record: what was promised is held by q directories of the rule that a leader writes, so that any
    /// `|S| - q + 1` of them prove it.
    pub(crate) fn invariant_rule_covers(&mut self, record: &Record) {
        let Some(last) = self.ledger.promised.last().filter(|_| record.phase == Phase::Leading) else {
            return;
        };
        let n = self.ledger.promised.len();
        let everyone = self
            .members
            .iter()
            .filter_map(|member| member.dir.as_ref())
            .chain(&self.ghosts);
        let holds =
            |d: &&crate::model::Dir| record.rule.standbys.contains(&d.id) && d.flushed >= n && d.has(n, last.chain);
        let mut holders: Vec<String> = everyone.filter(holds).map(|d| d.id.0.clone()).collect();
        holders.sort_unstable();
        holders.dedup();
        // What an election without proof has lost is taken out of what was promised when its leader opens its gate.
        let before = self.store.versions.iter().rev().find(|r| r.term < record.term);
        let lost = before.is_some_and(Record::acknowledges_alone) && self.ledger.term < record.term.0;
        if holders.len() < usize::from(record.rule.quorum) && !lost {
            let what = format!(
                "the record's new rule asks for {}, but only {holders:?} hold all of {n} promised",
                record.rule.quorum
            );
            self.violated("I5", what);
        }
    }

    /// I5, seen from a leader: one that reaches neither the API server nor members enough (a majority; in `Async` all)
    /// serves no longer than the fence allows: 5 s, by a clock that may run 9 % slow, and a second to stop. To reach a
    /// member is to hear a word of it, even of one that is gone a moment later.
    pub(crate) fn invariant_not_cut_off(&mut self, m: usize) {
        let member = &self.members[m];
        if self.api_reachable(m) || !member.serves() {
            self.members[m].contact = self.now;
            return;
        }
        let Some(spec) = &member.spec else { return };
        let others = spec
            .members
            .iter()
            .filter_map(|s| self.index(&s.name))
            .filter(|o| *o != m);
        let mut words: Vec<u64> = others.map(|o| member.words.get(&o).copied().unwrap_or(0)).collect();
        words.sort_unstable_by(|a, b| b.cmp(a));
        // Of its own term: what a later leader has written is not what this one leads by.
        let term = member.dir.as_ref().map_or(0, |dir| dir.timeline);
        let own = self.store.versions.iter().rev().find(|record| record.term.0 <= term);
        let record = own.is_some_and(|record| record.asynchronous);
        let enough = match record || spec.durability == Durability::Async {
            true => words.len(),
            false => spec.members.len() / 2,
        };
        let heard = match enough.checked_sub(1) {
            Some(last) => words.get(last).copied().unwrap_or(0),
            None => self.now,
        };
        let contact = heard.max(member.contact);
        self.members[m].contact = contact;
        if self.now - contact > 7_000 {
            self.violated(
                "I5",
                format!("m{m} serves, and has been cut off for longer than the fence"),
            );
        }
    }

    /// I6: in `Async` a new leader may lack acknowledged rows, but no more than the stated bound: `maximum_lag_bytes`, and
    /// what was written between its last heartbeat and the end of its term (2.5 s to detect, or 5 s to fence, and a heartbeat;
    /// up to 120 rows at this client's pace).
    fn invariant_async_bound(&mut self, m: usize) {
        let Some(dir) = &self.members[m].dir else { return };
        let loses = self
            .store
            .versions
            .iter()
            .rev()
            .find(|r| r.term.0 < dir.timeline && r.phase != Phase::Promoting);
        if !loses.is_some_and(Record::acknowledges_alone) {
            return;
        }
        let kept = common(&dir.log, &self.ledger.promised);
        let lost = self.ledger.promised.len() - kept;
        let old = loses.and_then(|record| self.index(&record.leader));
        let far = old
            .and_then(|old| self.members[m].elected_on.get(&old))
            .copied()
            .unwrap_or(0);
        let most = self.specs.iter().map(|spec| spec.maximum_lag_bytes).max().unwrap_or(0);
        if kept as u64 + most < far.min(self.ledger.promised.len() as u64) {
            let what =
                format!("m{m} serves from {kept}, though it had heard the old leader at {far}, more than {most} ahead");
            self.violated("I6", what);
        }
        let bound = self.specs.iter().map(|spec| spec.maximum_lag_bytes).max().unwrap_or(0) as usize + 120;
        if lost > bound {
            self.violated(
                "I6",
                format!("m{m} serves and lacks {lost} promised records, more than {bound}"),
            );
        }
        self.ledger.promised.truncate(kept);
    }
}
