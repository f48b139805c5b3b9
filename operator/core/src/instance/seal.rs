//! Sealing: from here on this member acknowledges for no older term, and says where its log ends.

use std::sync::Arc;

use crate::failover::{DirId, Record, Seal, Term};

use super::effect::{Effect, HowToStop, StartAs};
use super::event::{Engine, Testimony, Work};
use super::machine::{Instance, Run};
use super::message::{Message, Role, SealAnswer};
use super::mutant::Mutant;
use super::{MemberName, Why};

impl Instance {
    /// Seals for `term`, in this order:
    ///
    /// 1. A running primary is stopped at once: its term is dead.
    /// 2. A directory that is not whole gives no seal; one that was given up for it may have left a testimony. One that was set
    ///    aside for it is put back when the election lasts: it can be a candidate.
    /// 3. A standby takes log from nobody; its receiver must be gone before its position is taken.
    /// 4. The seal, and where the log ends, are durable before anyone is told.
    /// 5. Then it answers, and sees whether it is elected.
    pub(super) fn seal(&mut self, term: Term, record: &Record) {
        self.role = Role::Sealed;
        if self.run == Run::Primary && self.mutation.is(Mutant::IgnoresNewerTerm) {
            return self.goes_on(record);
        }
        self.lead = None;
        if self.run == Run::Primary {
            return self.fence(&format!("term {term} has begun"));
        }
        if self.busy.is_some() {
            return;
        }
        if self.disk.half && self.fresh_is_consistent() {
            if self.writes_made() {
                return;
            }
            return self.persist(|disk| disk.half = false);
        }
        if self.put_back(term, record) {
            self.role = Role::Preparing;
            return self.wait(Why::Sealed { term });
        }
        if !self.whole() {
            self.role = Role::Preparing;
            self.wait(Why::Sealed { term });
            return self.testify(term);
        }
        self.hand = None;
        self.wait(Why::Sealed { term });
        let sealed = self.disk.sealed == Some(term);
        let Some(ready) = self.sealable(sealed) else { return };
        if !sealed {
            let position = self.position();
            let forgets = self.mutation.is(Mutant::SealForgetsBase);
            return self.persist(|disk| {
                disk.term = disk.term.max(term);
                disk.sealed = Some(term);
                disk.base = if forgets { disk.base } else { position };
                disk.following = None;
            });
        }
        self.answer(term);
        if record.term == term && ready {
            self.elect(record);
        }
    }

    /// A directory that was given up acknowledges nothing more, so where its log ended counts as its seal. It is no candidate.
    fn testify(&mut self, term: Term) {
        if self.run != Run::Down || self.testimony().is_none() {
            return;
        }
        if self.disk.sealed == Some(term) {
            return self.answer(term);
        }
        self.persist(|disk| {
            disk.term = disk.term.max(term);
            disk.sealed = Some(term);
            disk.following = None;
        });
    }

    /// Puts back what was set aside last, when nobody was elected for long, the rule names it, and what is in its place is
    /// neither whole nor named. `true`: something was begun.
    fn put_back(&mut self, term: Term, record: &Record) -> bool {
        let lasts = self.now.since(self.watch_since) >= self.timings.standby_lost;
        let named = |dir: &DirId| record.rule.standbys.contains(dir);
        let kept = |dir: &DirId| self.disk.aside.iter().any(|aside| aside.dir == *dir);
        let given_up = self.disk.testimony.as_ref().map(|testimony| &testimony.dir);
        let here = self.disk.dir.iter().chain(given_up).any(|dir| named(dir) && !kept(dir));
        let Some(aside) = self.disk.aside.iter().rfind(|aside| named(&aside.dir)) else {
            return false;
        };
        if !lasts || self.whole() || here || self.persisting.is_some() || !self.heal.ready(self.now) {
            return false;
        }
        let dir = aside.dir.clone();
        if self.run != Run::Down || !matches!(*self.engine, Engine::Down { .. }) {
            self.stop(HowToStop::Clean);
            return true;
        }
        self.say(Why::PutBack { term });
        self.busy = Some(Work::PutBack);
        self.out.push(Effect::PutBack { dir });
        true
    }

    /// What can be said for a directory that was given up, while no other has taken its place.
    pub(super) fn testimony(&self) -> Option<Testimony> {
        self.disk.testimony.clone().filter(|_| !self.whole())
    }

    /// What a directory that is given up now leaves behind: nothing, where the end of its log is not certain.
    pub(super) fn last_words(&self) -> Option<Testimony> {
        if self.disk.half || self.disk.dir.is_none() {
            return self.disk.testimony.clone();
        }
        // Since it was sealed it has taken no log.
        let sealed = self.disk.following.is_none().then_some(self.disk.base);
        Some(Testimony {
            dir: self.disk.dir.clone()?,
            position: self.clean_end.or(sealed)?,
        })
    }

    /// Brings the engine where its position is certain. `None`: not yet. `Some(true)`: it runs and could be promoted.
    fn sealable(&mut self, sealed: bool) -> Option<bool> {
        let engine = Arc::clone(&self.engine);
        match &*engine {
            Engine::Down { .. } => {
                if self.clean_end.is_some() && self.leaves_election_to_target() {
                    return Some(false);
                }
                self.start(StartAs::Standby { upstream: None });
                sealed.then_some(false)
            }
            Engine::Standby(seen) => {
                if self.mutation.is(Mutant::SealsWhileReceiving) {
                    return Some(true);
                }
                if matches!(&self.run, Run::Standby { upstream: Some(_) }) {
                    self.set_upstream(None);
                }
                let stopped = self.following == 0 && !seen.receiving;
                stopped.then_some(true)
            }
            Engine::Starting => {
                if matches!(&self.run, Run::Standby { upstream: Some(_) }) {
                    self.set_upstream(None);
                }
                sealed.then_some(false)
            }
            Engine::Silent => {
                self.heal_silent();
                sealed.then_some(false)
            }
            Engine::Primary(_) => {
                self.stop(HowToStop::Fence {
                    kill_after_ms: self.timings.kill_after,
                });
                None
            }
        }
    }

    /// Tells everybody, at once and then again now and then.
    fn answer(&mut self, term: Term) {
        let due = self
            .answered
            .is_none_or(|(t, at)| t != term || self.now.since(at) >= self.timings.reseal);
        let Some(answer) = self.my_seal(term) else { return };
        self.seals.insert(self.me.clone(), (answer.clone(), self.now));
        if !due {
            return;
        }
        self.answered = Some((term, self.now));
        for to in self.others() {
            self.out.push(Effect::Send {
                to,
                message: Message::Sealed(answer.clone()),
            });
        }
    }

    fn my_seal(&self, term: Term) -> Option<SealAnswer> {
        let beside = |own: &DirId| {
            let others = self.disk.aside.iter().filter(|aside| aside.dir != *own);
            let said = others.filter_map(|aside| {
                let dir = aside.dir.clone();
                aside.position.map(|position| Testimony { dir, position })
            });
            said.collect()
        };
        if let Some(Testimony { dir, position }) = self.testimony() {
            return Some(SealAnswer {
                term,
                beside: beside(&dir),
                dir,
                position,
                gone: true,
                led: None,
            });
        }
        let dir = self.disk.dir.clone()?;
        Some(SealAnswer {
            term,
            beside: beside(&dir),
            dir,
            gone: false,
            position: if self.mutation.is(Mutant::SealForgetsBase) {
                self.position()
            } else {
                self.disk.base
            },
            led: self.disk.led,
        })
    }

    /// Another member's seal. Seals of older terms are forgotten.
    pub(super) fn on_sealed(&mut self, from: MemberName, answer: SealAnswer) {
        self.called = self.called.max(answer.term);
        let known = self.spec.iter().flat_map(|spec| &spec.members).any(|m| m.name == from);
        if known && answer.term >= self.called {
            let newest = answer.term;
            self.seals.retain(|_, (seal, _)| seal.term >= newest);
            self.seals.insert(from, (answer, self.now));
        }
    }

    /// The seals of one term, as a proof needs them.
    pub(super) fn seals_of(&self, term: Term) -> std::collections::BTreeMap<MemberName, Seal> {
        let of_term = self.seals.iter().filter(|(_, (seal, _))| seal.term == term);
        of_term
            .map(|(member, (seal, _))| {
                let mut position = seal.position;
                if self.mutation.is(Mutant::LsnOnly) {
                    position.term = Term(0);
                }
                (
                    member.clone(),
                    Seal {
                        dir: seal.dir.clone(),
                        position,
                        led: seal.led,
                    },
                )
            })
            .collect()
    }

    /// What members testify for beside their seals of one term.
    pub(super) fn seals_beside(&self, term: Term) -> Vec<Seal> {
        let of_term = self.seals.values().filter(|(seal, _)| seal.term == term);
        let beside = of_term.flat_map(|(seal, _)| &seal.beside);
        beside
            .map(|testimony| Seal {
                dir: testimony.dir.clone(),
                position: testimony.position,
                led: None,
            })
            .collect()
    }
}
