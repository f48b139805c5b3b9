//! Following a leader: directly where the log allows, else by rewind, else by a clone.

use std::sync::Arc;

use crate::failover::{Lsn, Phase, Position, Record, Term, position};

use super::effect::{Effect, HowToStop, StartAs, Upstream};
use super::event::{Aside, Engine, StandbySeen, Work};
use super::heal::Rung;
use super::machine::{Instance, Run};
use super::message::{Heartbeat, Role};
use super::mutant::Mutant;
use super::{MemberName, Why};

impl Instance {
    /// Follows the record's leader, in this order:
    ///
    /// 1. A running primary is stopped: it leads no more.
    /// 2. Whether the leader is still there.
    /// 3. One work at a time.
    /// 4. A half-made directory is made again; an empty volume is cloned.
    /// 5. By what the engine is: start what is down, attach a standby.
    pub(super) fn follow(&mut self, record: &Record) {
        self.role = Role::Replica;
        self.hand = None;
        if self.run == Run::Primary {
            return self.fence(&format!("{} leads term {}", record.leader, record.term));
        }
        self.lead = None;
        let lost = self.watch_leader(record);
        if self.busy.is_some() {
            self.role = Role::Preparing;
            return;
        }
        if self.persisting.is_some() || self.restart_if_asked(record) {
            return;
        }
        self.wait(lost.unwrap_or(Why::Following {
            leader: record.leader.clone(),
            term: record.term,
        }));
        if self.disk.half && self.heal.fresh == Some(record.term) {
            return self.settle_fresh(record);
        }
        if !self.whole() || self.foreign(record) {
            self.role = Role::Preparing;
            return self.clone_from(record);
        }
        self.drop_needless(record);
        let engine = Arc::clone(&self.engine);
        match &*engine {
            Engine::Down { .. } if self.others_back(record) => {}
            Engine::Down { .. } => self.start_standby(record),
            Engine::Starting => {}
            Engine::Silent => self.heal_silent(),
            Engine::Primary(_) => self.stop(HowToStop::Fence {
                kill_after_ms: self.timings.kill_after,
            }),
            Engine::Standby(seen) => self.attach(record, seen),
        }
    }

    /// The leader's last word, once its engine writes the record's term.
    fn leader_speaks(&self, record: &Record) -> Option<&Heartbeat> {
        let peer = self.peers.of.get(&record.leader)?;
        let leads = matches!(peer.last.role, Role::Leader | Role::Candidate);
        let writes = peer.last.position.term == record.term && peer.last.term == record.term;
        (leads && writes && self.live(&record.leader)).then_some(&peer.last)
    }

    fn upstream(&self, record: &Record) -> Option<Upstream> {
        let address = self.address(&record.leader)?;
        Some(Upstream {
            member: record.leader.clone(),
            term: record.term,
            address,
        })
    }

    /// A directory that was made to its end and whose control file is damaged since.
    pub(super) fn damaged(&self) -> bool {
        let damaged = self.volume.as_ref().is_some_and(|volume| volume.damaged);
        damaged && !self.disk.half
    }

    /// A directory of another database system than the record's.
    fn foreign(&self, record: &Record) -> bool {
        let own = self.volume.as_ref().and_then(|volume| volume.system_identifier);
        matches!((own, record.system_identifier), (Some(own), Some(set)) if own != set)
    }

    fn start_standby(&mut self, record: &Record) {
        if self.heal.rewinds == Some(record.term) && self.leader_speaks(record).is_some() {
            return self.rewind(record);
        }
        self.heal.rewinds = None;
        // Without a leader to rewind to or to copy from it starts as it is: its seal may be needed, or its log.
        if record.phase == Phase::Leading && self.leader_speaks(record).is_some() {
            match self.heal.rung() {
                Rung::Restart => {}
                Rung::Rewind => return self.rewind(record),
                Rung::Clone => return self.clone_from(record),
            }
        }
        let same = self.disk.following == Some(record.term) && self.disk.sealed.is_none();
        // Not before the candidate is ready: what it has not replayed may not be there after its promotion.
        let there = record.phase == Phase::Leading || self.offered(record) || self.leader_speaks(record).is_some();
        let upstream = if same && there { self.upstream(record) } else { None };
        self.start(StartAs::Standby { upstream });
    }

    /// A directory just cloned or rewound is half until its engine has become consistent.
    fn settle_fresh(&mut self, record: &Record) {
        self.role = Role::Preparing;
        if self.writes_made() {
            return;
        }
        match &*self.engine {
            Engine::Down { .. } if self.heal.rung() != Rung::Restart => self.heal.fresh = None,
            Engine::Down { .. } => {
                let upstream = self.upstream(record);
                self.start(StartAs::Standby { upstream });
            }
            Engine::Standby(_) => self.persist(|disk| disk.half = false),
            _ => {}
        }
    }

    /// Writes down once more what a fresh directory is, if that failed when it was made. Not after a seal for a later term.
    pub(super) fn writes_made(&mut self) -> bool {
        let unwritten = |term: &Term| self.disk.following != Some(*term) && self.disk.term <= *term;
        let Some(term) = self.heal.fresh.filter(unwritten) else {
            return false;
        };
        self.write_made(term, false);
        true
    }

    /// Whether a fresh directory has become consistent, whoever leads now.
    pub(super) fn fresh_is_consistent(&self) -> bool {
        self.heal.fresh.is_some() && matches!(*self.engine, Engine::Standby(_))
    }

    /// Attaches a running standby, in this order:
    ///
    /// 1. It follows this term already: keep the upstream's address right; a log that the engine refuses is rewound. One that is
    ///    refused after that, or because the leader has no more what it lacks, is cloned.
    /// 2. It must first follow nobody, so that its position is certain.
    /// 3. Its log is a prefix of the leader's: what it follows is written down, then it follows. While the candidate is still being
    ///    promoted its log must end where the candidate's does: what else it took would be an older term's, and it could not tell.
    /// 4. Its log has a tail of its own: it is rewound, but not before the leader is `Leading`.
    fn attach(&mut self, record: &Record, seen: &StandbySeen) {
        let Run::Standby { upstream: now } = &self.run else {
            return;
        };
        let attached = now.is_some();
        if self.heal.retires == Some(record.term) {
            return self.retire(record.term);
        }
        if self.disk.following == Some(record.term) && self.disk.sealed.is_none() {
            if let (Some(refusal), true) = (&seen.diverged, record.phase == Phase::Leading) {
                self.wait(Why::WorkFailed {
                    what: "following",
                    why: refusal.why.clone(),
                });
                let in_vain = refusal.removed || self.heal.rewound == Some(record.term);
                if in_vain && !self.mutation.is(Mutant::RewindsForEver) {
                    self.heal.clone_next();
                    return self.retire(record.term);
                }
                return self.rewind(record);
            }
            let same = |now: &Upstream| {
                now.member == record.leader
                    && now.term == record.term
                    && self
                        .address_of(&record.leader)
                        .is_none_or(|address| address == now.address)
            };
            // What it counted on did not come true: its log ends beyond where the leader's term begins.
            let history = self.leader_speaks(record).map(|beat| &beat.history);
            let own = self.position();
            let torn = own == self.disk.base && history.is_some_and(|h| !position::on_history(own, record.term, h));
            if torn && !self.mutation.is(Mutant::TakesTorn) {
                if record.phase == Phase::Leading {
                    self.rewind(record);
                }
                return;
            }
            // One that finds no slot there tries again much later.
            let ready = attached || self.offered(record) || self.leader_speaks(record).is_some();
            if ready && self.following == 0 && !now.as_ref().is_some_and(same) {
                let wanted = self.upstream(record);
                if wanted.is_some() {
                    self.set_upstream(wanted);
                }
            }
            return;
        }
        if attached {
            if !self.tail_comes(record, seen) {
                self.set_upstream(None);
            }
            return;
        }
        if self.following > 0 || seen.receiving {
            return;
        }
        let own = self.position();
        let on = match self.leader_speaks(record) {
            Some(beat) => position::on_history(own, record.term, &beat.history),
            None if self.ends_alike(record, own, seen) => true,
            None => return,
        };
        if on {
            let term = record.term;
            return self.persist(|disk| {
                disk.term = disk.term.max(term);
                disk.sealed = None;
                disk.base = own;
                disk.following = Some(term);
            });
        }
        if record.phase == Phase::Leading || self.mutation.is(Mutant::RewindsWhilePromoting) {
            self.rewind(record);
        }
    }

    /// A new leader's first rule names whom it hopes for, and a leader may be about to name whoever took log from it lately: its
    /// write of that may be on its way. One that cannot follow as it is keeps its directory, whose seal a proof may need, until
    /// the leader has had the time to do without it.
    fn still_counted_on(&mut self, record: &Record) -> bool {
        let whole = self.volume.as_ref().is_some_and(|volume| volume.whole) && !self.disk.half;
        let patience = self.timings.standby_lost.saturating_mul(2);
        let hoped_for = self.named(record) && self.now.since(self.watch_since) < patience;
        let follows = self.disk.following == Some(record.term) && self.disk.sealed.is_none();
        let streamed =
            follows && self.now.since(self.took_log) < self.timings.naming && !self.mutation.is(Mutant::RemovesAtOnce);
        let waits = whole && (hoped_for || streamed) && record.phase == Phase::Leading;
        if waits {
            self.wait(Why::Following {
                leader: record.leader.clone(),
                term: record.term,
            });
        }
        waits
    }

    /// What was set aside and is named no more goes, one at a time, by a record that was read or written and not told.
    pub(super) fn drop_needless(&mut self, record: &Record) {
        let needless = |aside: &&Aside| !record.rule.standbys.contains(&aside.dir);
        let Some(aside) = self.disk.aside.iter().find(needless) else {
            return;
        };
        let (dir, keep) = (aside.dir.clone(), aside.led.is_some());
        if self.dropping.is_some() || self.persisting.is_some() || !self.heal.ready(self.now) || !self.sure_of_record()
        {
            return;
        }
        self.dropping = Some(dir.clone());
        self.out.push(Effect::DropAside { dir, keep });
    }

    /// A directory that is to be given up takes log from nobody first: where its log ends is then known, not only how far it
    /// was replayed. Then the engine is stopped.
    fn retire(&mut self, term: Term) {
        self.heal.retires = Some(term);
        if let (Engine::Standby(seen), Run::Standby { upstream }) = (&*self.engine, &self.run) {
            if upstream.is_some() {
                return self.set_upstream(None);
            }
            if self.following > 0 || seen.receiving {
                return;
            }
        }
        self.stop(HowToStop::Clean);
    }

    /// Whether the rule names this directory.
    fn named(&self, record: &Record) -> bool {
        let dir = self.disk.dir.as_ref();
        dir.is_some_and(|dir| record.rule.standbys.contains(dir))
    }

    /// Whether a person has given this directory up, and somebody was elected without what only it may hold.
    fn forsaken(&self, record: &Record) -> bool {
        let given_up = self.disk.dir.as_ref().is_some_and(|dir| record.forsaken.contains(dir));
        given_up && !self.disk.half && !self.mutation.is(Mutant::RewindsForsaken)
    }

    /// Rewinds to the leader's log: stop, mark the directory half, rewind. One that a person has given up is set aside instead,
    /// and a clone made: what it has beside the leader's log is nowhere else.
    fn rewind(&mut self, record: &Record) {
        if self.still_counted_on(record) {
            return;
        }
        if self.forsaken(record) {
            self.heal.clone_next();
            return match self.run {
                Run::Down => self.clone_from(record),
                _ => self.stop(HowToStop::Clean),
            };
        }
        self.heal.rewinds = Some(record.term);
        if self.run != Run::Down {
            return self.retire(record.term);
        }
        let (Some(_), Some(to)) = (self.leader_speaks(record), self.upstream(record)) else {
            return;
        };
        if !self.heal.ready(self.now) {
            return;
        }
        self.wait(Why::Rewinding {
            to: record.leader.clone(),
        });
        self.heal.fresh = None;
        if !self.disk.half {
            let (term, testimony) = (record.term, self.last_words());
            return self.persist(|disk| {
                disk.term = disk.term.max(term);
                disk.half = true;
                disk.sealed = None;
                disk.led = None;
                disk.testimony = testimony;
            });
        }
        self.heal.rewinds = None;
        self.heal.making = Some(record.term);
        self.busy = Some(Work::Rewind);
        self.out.push(Effect::Rewind { to });
    }

    /// Clones, in this order:
    ///
    /// 1. The directory was marked half for a rewind that has not begun: rewind.
    /// 2. Not before the leader writes its term; over a whole directory, or a damaged one, not before it is `Leading`.
    /// 3. A directory that once led, or that a person gave up, or that the rule names, or whose control file is damaged, might hold the
    ///    only copy of something: it is set aside, not removed. What one that the rule names would seal with moves with it; it comes back if the
    ///    leader is lost before the copy is whole.
    /// 4. The old identity is given up before the copy begins.
    fn clone_from(&mut self, record: &Record) {
        if self.disk.half && self.heal.rewinds == Some(record.term) {
            return self.rewind(record);
        }
        if self.still_counted_on(record) {
            return;
        }
        if self.run != Run::Down {
            return self.stop(HowToStop::Clean);
        }
        if self.leader_speaks(record).is_none() || !self.heal.ready(self.now) {
            return;
        }
        let whole = self.volume.as_ref().is_some_and(|volume| volume.whole) && !self.disk.half;
        let damaged = self.damaged();
        if (whole || damaged) && record.phase != Phase::Leading {
            return;
        }
        let Some(from) = self.source(record) else { return };
        self.wait(Why::Cloning {
            from: from.member.clone(),
        });
        let (foreign, forsaken) = (self.foreign(record), self.forsaken(record));
        let named = self.named(record) && !foreign && !forsaken && !self.mutation.is(Mutant::ClonesOverNamed);
        if damaged || (whole && (self.disk.led.is_some() || foreign || forsaken || named)) {
            let because = if damaged { ": its control file is damaged" } else { "" };
            let why = format!(
                "{} leads term {}, and this directory cannot follow{because}",
                record.leader, record.term
            );
            // What is damaged can seal nothing, so it does not come back by itself.
            let aside = self.disk.dir.clone().filter(|_| named && whole).map(|dir| Aside {
                dir,
                led: self.disk.led,
                base: self.disk.base,
                following: self.disk.following,
                position: self.last_words().map(|testimony| testimony.position),
            });
            self.say(Why::SetAside { why: why.clone() });
            self.busy = Some(Work::SetAside);
            self.out.push(Effect::SetAside { why, aside });
            return;
        }
        // By hearsay nothing is removed.
        if whole && !self.sure_of_record() {
            return;
        }
        self.heal.fresh = None;
        let blank = self.disk.dir.is_none() && self.disk.half;
        if !blank {
            let (term, testimony) = (record.term, self.last_words());
            return self.persist(|disk| {
                disk.term = disk.term.max(term);
                disk.testimony = testimony;
                disk.dir = None;
                disk.sealed = None;
                disk.base = Position::default();
                disk.following = None;
                disk.led = None;
                disk.half = true;
            });
        }
        self.heal.making = Some(record.term);
        self.busy = Some(Work::Clone);
        self.out.push(Effect::Clone { from });
    }

    /// Where to copy from: a healthy standby that holds log of this term rather than the leader, by turns with it.
    fn source(&self, record: &Record) -> Option<Upstream> {
        let fit = |(name, peer): &(&MemberName, &super::peers::Peer)| {
            let replica =
                peer.last.role == Role::Replica && peer.last.healthy && peer.last.position.term == record.term;
            replica && self.live(name)
        };
        let standby = self.peers.of.iter().find(fit).map(|(name, _)| name.clone());
        let member = standby.filter(|_| self.heal.tries.is_multiple_of(2));
        let Some(member) = member else {
            return self.upstream(record);
        };
        let address = self.address(&member)?;
        Some(Upstream {
            member,
            term: record.term,
            address,
        })
    }

    /// A directory was made: by initdb, clone or rewind. What it will follow is written down before it takes any log.
    pub(super) fn made(&mut self, work: Work) {
        let Some(term) = self.heal.making.take() else { return };
        let initdb = work == Work::Initdb;
        // another directory than the one that failed
        self.heal.crashes = 0;
        self.heal.fresh = (!initdb).then_some(term);
        self.heal.rewound = (work == Work::Rewind).then_some(term);
        self.write_made(term, initdb);
    }

    fn write_made(&mut self, term: Term, initdb: bool) {
        let mut dir = self.disk.dir.clone();
        if self.mutation.is(Mutant::IdentityIsPod) {
            dir = Some(super::super::failover::DirId(self.me.0.clone()));
        }
        self.persist(|disk| {
            disk.dir = dir;
            disk.term = disk.term.max(term);
            disk.sealed = None;
            disk.base = Position {
                term: Term(0),
                lsn: Lsn(0),
            };
            disk.following = Some(term);
            disk.led = initdb.then_some(term).or(disk.led);
            disk.half = !initdb;
            disk.testimony = None;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::rig::{begins_on, dir, hears, leader};
    use crate::instance::{DiskState, Event, Moment, VolumeSeen};

    /// "b" begins on a directory whose control file is damaged, and hears that "a" leads.
    fn damaged(half: bool) -> Vec<Effect> {
        let disk = DiskState {
            dir: Some(dir("d9")),
            half,
            ..DiskState::default()
        };
        let volume = VolumeSeen {
            disk,
            whole: false,
            damaged: true,
            system_identifier: None,
            clean: false,
            control: None,
        };
        let (mut b, mut out) = begins_on("b", volume);
        out.extend(b.step(Moment(5), Event::Engine(Engine::Down { clean: false })));
        let address = Some("10.0.0.1".into());
        let beat = Heartbeat { address, ..leader() };
        out.extend(hears(&mut b, 10, "a", beat));
        out.extend(b.step(Moment(100), Event::Tick));
        out
    }

    #[test]
    fn a_directory_with_a_damaged_control_file_is_set_aside_and_never_cloned_over() {
        let out = damaged(false);
        let aside =
            |effect: &Effect| matches!(effect, Effect::SetAside { aside: None, why } if why.contains("damaged"));
        assert!(out.iter().any(aside), "{out:?}");
        assert!(
            out.iter()
                .any(|effect| matches!(effect, Effect::Say(Why::SetAside { .. }))),
            "{out:?}"
        );
        assert!(
            !out.iter().any(|effect| matches!(effect, Effect::Clone { .. })),
            "{out:?}"
        );
    }

    #[test]
    fn one_that_was_never_made_to_its_end_is_made_again() {
        let out = damaged(true);
        assert!(
            !out.iter().any(|effect| matches!(effect, Effect::SetAside { .. })),
            "{out:?}"
        );
    }
}
