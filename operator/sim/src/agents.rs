//! Agents' processes, their steps, and what they send each other.

use holdfast_core::instance::{Event, Instance, Message, Moment, Work, WorkResult};

use crate::event::Ev;
use crate::world::World;

/// How long a message between members may be on its way when the network delays (ms).
const LONGEST_DELAY: u64 = 2_500;

impl World {
    /// One step of a member's agent, and what it wants done.
    pub fn step(&mut self, m: usize, event: Event) {
        let now: Moment = self.members[m].clock(self.now);
        let Some(agent) = self.members[m].agent.as_mut() else {
            return;
        };
        self.steps += 1;
        let effects = agent.step(now, event);
        for effect in effects {
            self.perform(m, effect);
        }
    }

    /// Tells an agent soon.
    pub fn tell(&mut self, m: usize, event: Event) {
        let epoch = self.members[m].epoch;
        let event = Box::new(event);
        self.push(1, Ev::Agent { m, epoch, event });
    }

    /// Tells an agent of the end of a work.
    pub fn tell_done(&mut self, m: usize, epoch: u32, work: Work, ok: bool) {
        let result = if ok {
            let shows = matches!(
                work,
                Work::Stop | Work::Initdb | Work::Clone | Work::Rewind | Work::SetAside | Work::PutBack
            );
            WorkResult::Ok {
                volume: shows.then(|| self.members[m].volume()),
            }
        } else {
            WorkResult::Failed {
                why: "it did not work out".to_owned(),
                permanent: false,
            }
        };
        self.push(
            1,
            Ev::Agent {
                m,
                epoch,
                event: Box::new(Event::Done { work, result }),
            },
        );
    }

    pub(crate) fn agent_start(&mut self, m: usize) {
        self.note(|| format!("m{m}: agent starts"));
        let timings = self.timings.clone();
        let member = &mut self.members[m];
        let agent = Instance::new(member.name.clone(), timings, m as u64);
        #[cfg(feature = "mutants")]
        let agent = agent.with_mutant(self.mutant);
        member.agent = Some(Box::new(agent));
        member.boot = self.now;
        member.leapt = 0;
        member.dark = false;
        member.told = 0;
        member.fresh = false;
        member.look_id += 1;
        let (epoch, volume, spec) = (member.epoch, member.volume(), member.spec.clone());
        self.tell(m, Event::Volume(volume));
        if let Some(spec) = spec {
            self.tell(m, Event::Spec(spec));
        }
        let n = self.told.len() - 1;
        let delay = if self.api_reachable(m) { 5 } else { 10_000 };
        self.push(delay, Ev::Spec { m, epoch, n });
        self.push(2, Ev::Tick { m, epoch });
        let (id, pause) = (self.members[m].look_id, 5);
        self.push(pause, Ev::Look { m, epoch, id });
    }

    /// Whether anything passes from one member to another.
    pub fn passes(&self, from: usize, to: usize) -> bool {
        from == to || self.weather.cut[from][to] <= self.now
    }

    /// Whether a connection to that member's agent is refused: its machine answers, and nobody listens.
    fn refuses(&self, from: usize, to: usize) -> bool {
        let member = &self.members[to];
        let gone = member.agent.is_none() && member.present && !member.dark && member.frozen <= self.now;
        let turned_away = self.weather.reject[from][to] > self.now;
        (gone || turned_away) && self.passes(from, to) && self.passes(to, from)
    }

    /// Tells an agent that was connected to another, once.
    fn tell_refused(&mut self, from: usize, to: usize) {
        if !std::mem::take(&mut self.weather.linked[from][to]) {
            return;
        }
        let mut delay = 1 + self.rng.below(4);
        if self.weather.lossy > self.now {
            delay += self.rng.below(200);
        }
        let (epoch, by) = (self.members[from].epoch, self.members[to].name.clone());
        let event = Box::new(Event::Refused { by });
        self.push(delay, Ev::Agent { m: from, epoch, event });
    }

    /// An agent's process is gone: its peers' connections break, and new ones are refused.
    pub(crate) fn hangs_up(&mut self, m: usize) {
        self.weather.linked[m].fill(false);
        for other in 0..self.members.len() {
            let here = other != m && self.members[other].agent.is_some();
            if here && self.refuses(other, m) && self.rng.chance(900) {
                self.tell_refused(other, m);
            }
        }
    }

    /// Sends a message: it may be refused, lost, late, doubled.
    pub fn send(&mut self, from: usize, to: usize, message: Message) {
        if !self.passes(from, to) {
            return;
        }
        if self.refuses(from, to) {
            return self.tell_refused(from, to);
        }
        self.weather.linked[from][to] = self.members[to].agent.is_some() && self.passes(to, from);
        let message = Box::new(message);
        let mut delay = 1 + self.rng.below(4);
        if self.weather.lossy > self.now {
            if self.rng.chance(200) {
                return;
            }
            if self.rng.chance(200) {
                delay += self.rng.below(LONGEST_DELAY);
            }
            if self.rng.chance(100) {
                let again = delay + self.rng.below(500);
                self.push(
                    again,
                    Ev::Arrive {
                        from,
                        m: to,
                        message: message.clone(),
                    },
                );
            }
        }
        self.push(delay, Ev::Arrive { from, m: to, message });
    }
}
