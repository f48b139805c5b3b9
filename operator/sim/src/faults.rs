//! Faults strike, and end.

use holdfast_core::failover::{MemberName, Phase, Record};
use holdfast_core::instance::{Command, Event, Mutant};

use crate::event::Ev;
use crate::model::{Engine, Run};
use crate::plan::Fault;
use crate::world::World;

impl World {
    pub(crate) fn strike(&mut self, n: usize) {
        if let Some((_, fault)) = self.plan.faults.get(n).cloned() {
            self.strike_with(n, fault);
        }
    }

    /// Lies in wait for the record's next phase.
    pub(crate) fn spring(&mut self, phase: Phase, leader: &MemberName) {
        if self.ambushes.is_empty() {
            return;
        }
        let Some(leader) = self.index(leader) else { return };
        let members = self.members.len();
        let (now, later) = std::mem::take(&mut self.ambushes)
            .into_iter()
            .partition(|(at, _, _)| *at == phase);
        self.ambushes = later;
        let now: Vec<(Phase, u64, Fault)> = now;
        for (_, after, fault) in now {
            let fault = fault.aimed(|m| (leader + m) % members);
            self.push(after, Ev::Spring { fault });
        }
    }

    /// Lies in wait for a change of the rule: strikes while its write is on its way. Says how much longer that takes.
    pub(crate) fn trap(&mut self, m: usize, record: &Record) -> u64 {
        let same = |now: &Record| (now.term, now.phase) == (record.term, record.phase) && now.rule != record.rule;
        if self.traps.is_empty() || !self.store.record().is_some_and(same) {
            return 0;
        }
        let (after, limbo, fault) = self.traps.remove(0);
        let members = self.members.len();
        let fault = fault.aimed(|other| (m + other) % members);
        self.push(after, Ev::Spring { fault });
        limbo
    }

    pub(crate) fn strike_with(&mut self, n: usize, fault: Fault) {
        let gone = |m: usize| self.members.get(m).is_none_or(|member| !member.present);
        if fault.members().into_iter().any(gone) {
            return;
        }
        self.note(|| format!("FAULT {fault:?}"));
        let now = self.now;
        match fault.clone() {
            Fault::KillEngine { member } => self.engine_crash(member, false, false),
            Fault::KillAgent { member, down } => self.agent_crash(member, false, down),
            Fault::PowerCut { member, down } => self.agent_crash(member, true, down),
            Fault::LoseVolume { member, down } => {
                self.agent_crash(member, true, down);
                self.lose_volume(member);
            }
            Fault::Freeze { member, lasts } => {
                self.members[member].frozen = now + lasts;
                self.push(lasts, Ev::Thaw { m: member });
            }
            Fault::CutOneWay { from, to, lasts } => self.cut(from, to, now + lasts),
            Fault::Cut { one, other, lasts } => {
                self.cut(one, other, now + lasts);
                self.cut(other, one, now + lasts);
            }
            Fault::Reject { from, to, lasts } if from != to => self.weather.reject[from][to] = now + lasts,
            Fault::Reject { .. } => {}
            Fault::Isolate { member, api, lasts } => {
                for other in 0..self.members.len() {
                    self.cut(member, other, now + lasts);
                    self.cut(other, member, now + lasts);
                }
                if api {
                    self.weather.api_cut[member] = now + lasts;
                }
            }
            Fault::Split { away, lasts } => {
                for one in 0..self.members.len() {
                    let side = away.contains(&one);
                    for other in (0..self.members.len()).filter(|other| away.contains(other) != side) {
                        self.cut(one, other, now + lasts);
                    }
                    if side {
                        self.weather.api_cut[one] = now + lasts;
                    }
                }
            }
            Fault::CutApi { member, lasts } => self.weather.api_cut[member] = now + lasts,
            Fault::ApiDown { lasts } => self.weather.api_down = now + lasts,
            Fault::ApiFlaky { lasts } => self.weather.api_flaky = now + lasts,
            Fault::WatchLag { lasts } => self.weather.watch_lag = now + lasts,
            Fault::Lossy { lasts } => self.weather.lossy = now + lasts,
            Fault::StallDisk { member, lasts } => self.members[member].stalled = now + lasts,
            Fault::SlowDisk { member, lasts } => self.members[member].slow = now + lasts,
            Fault::FullDisk { member, lasts } => self.members[member].full = now + lasts,
            Fault::SlowReload { lasts } => self.weather.slow_reload = now + lasts,
            Fault::Switchover { to } => {
                let to = to.map(|m| self.name(m));
                let id = format!("c{n}-{now}");
                self.ask(|spec| spec.command = Some(Command::Switchover { id, to }));
            }
            Fault::Restart { member } => {
                let (id, member) = (format!("c{n}-{now}"), self.name(member));
                self.ask(|spec| spec.command = Some(Command::Restart { id, member }));
            }
            Fault::DeletePod { member } => {
                if self.members[member].agent.is_some() {
                    self.step(member, Event::Shutdown);
                    let epoch = self.members[member].epoch;
                    self.push(30_000, Ev::Undo { fault: fault.clone() });
                    self.push(
                        30_000,
                        Ev::AgentStart {
                            m: member,
                            epoch: epoch + 1,
                        },
                    );
                }
            }
            Fault::Copies { copies } => {
                self.copies = copies;
                self.wish(|_| {});
            }
            Fault::Scale { members } => self.scale(members),
            Fault::Parameter => {
                self.wish(|spec| {
                    let version = spec.generation.to_string();
                    spec.parameters.insert("work_mem".to_owned(), version);
                });
                self.wake_operator();
            }
            Fault::ClockJump { member, by } => self.members[member].leapt += by,
            Fault::OperatorAway { lasts } => self.weather.operator = now + lasts,
            Fault::Operators { lasts } => {
                self.weather.operators = now + lasts;
                // in the end the one that knows writes again
                let fault = Fault::OldWish;
                self.push(lasts, Ev::Undo { fault });
                self.wake_operator();
            }
            Fault::AcceptLoss { patience } => {
                self.person.looks = true;
                self.push(0, Ev::Person { patience });
            }
            Fault::RuleTrap { after, limbo, fault } => self.traps.push((after, limbo, *fault)),
            Fault::Ambush { phase, after, fault } => self.ambushes.push((phase, after, *fault)),
            Fault::Durability { durability } => self.wish(|spec| spec.durability = durability),
            Fault::Leaving { member, lasts } => {
                self.members[member].leaving = true;
                self.ask(|_| {});
                self.push(lasts, Ev::Undo { fault: fault.clone() });
            }
            Fault::FenceByHand { member, lasts } => {
                self.members[member].fenced = true;
                self.ask(|_| {});
                self.push(lasts, Ev::Undo { fault: fault.clone() });
            }
            Fault::OldWish => {
                let n = self.specs.len().saturating_sub(2);
                self.tell_wish(n);
                self.push(1_500, Ev::Undo { fault });
            }
        }
    }

    pub(crate) fn undo(&mut self, fault: Fault) {
        match fault {
            Fault::Leaving { member, .. } => {
                self.members[member].leaving = false;
                self.ask(|_| {});
            }
            Fault::FenceByHand { member, .. } => {
                self.members[member].fenced = false;
                self.ask(|_| {});
            }
            Fault::OldWish => self.tell_wish(self.specs.len() - 1),
            // the kubelet's patience is over
            Fault::DeletePod { member } if self.members[member].agent.is_some() => self.agent_crash(member, false, 100),
            _ => {}
        }
    }

    fn cut(&mut self, from: usize, to: usize, until: u64) {
        if from != to {
            self.weather.cut[from][to] = until;
        }
    }

    /// The agent dies, and with it the engine (it is process 1). A new one starts after `down` ms.
    fn agent_crash(&mut self, m: usize, power: bool, down: u64) {
        self.members[m].frozen = 0;
        self.engine_crash(m, power, true);
        let power_loses = power && self.mutant == Some(Mutant::SealNotSynced);
        let surplus = self.members[m].deleting && m >= self.wanted;
        let member = &mut self.members[m];
        if let Some(before) = member.unsynced.take().filter(|_| power_loses) {
            member.disk = before;
        }
        if member.agent.take().is_some() || member.epoch == 0 {
            if surplus {
                return self.pod_gone(m);
            }
            member.epoch += 1;
            member.dark = power;
            let epoch = member.epoch;
            self.push(down, Ev::AgentStart { m, epoch });
            self.hangs_up(m);
        }
    }

    /// The agent ends as asked; the kubelet starts a new Pod.
    pub(crate) fn agent_exit(&mut self, m: usize) {
        if self.members[m].engine.run != Run::Down {
            self.violated("I8", format!("m{m}: its agent ended before its engine"));
        }
        if self.members[m].deleting && m >= self.wanted {
            self.members[m].agent = None;
            return self.pod_gone(m);
        }
        let member = &mut self.members[m];
        member.deleting = false;
        member.agent = None;
        member.epoch += 1;
        let (epoch, down) = (member.epoch, self.rng.range(100, 1_500));
        self.push(down, Ev::AgentStart { m, epoch });
        self.hangs_up(m);
    }

    fn lose_volume(&mut self, m: usize) {
        self.lost_volume = true;
        let mut all = std::mem::take(&mut self.members[m].aside);
        all.extend(self.members[m].dir.take());
        self.lost.extend(all.iter().map(|dir| dir.id.clone()));
        self.ghosts.extend(all);
        let member = &mut self.members[m];
        member.whole = false;
        member.disk = Default::default();
        member.spec = None;
        let fresh = Engine {
            epoch: member.engine.epoch + 1,
            ..member.engine.clone()
        };
        member.engine = fresh;
    }
}
