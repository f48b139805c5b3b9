//! Faults strike, and end.

use holdfast_core::instance::{Command, Event, SetSpec};

use crate::model::{Engine, Run};
use crate::plan::Fault;
use crate::world::{Ev, World};

impl World {
    pub(crate) fn strike(&mut self, n: usize) {
        let Some((_, fault)) = self.plan.faults.get(n).cloned() else {
            return;
        };
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
            Fault::Isolate { member, api, lasts } => {
                for other in 0..self.members.len() {
                    self.cut(member, other, now + lasts);
                    self.cut(other, member, now + lasts);
                }
                if api {
                    self.weather.api_cut[member] = now + lasts;
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
                let to = to.map(|m| self.members[m].name.clone());
                let id = format!("c{n}");
                self.wish(|spec| spec.command = Some(Command::Switchover { id, to }));
            }
            Fault::Restart { member } => {
                let (id, member) = (format!("c{n}"), self.members[member].name.clone());
                self.wish(|spec| spec.command = Some(Command::Restart { id, member }));
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
            Fault::Copies { copies } => self.wish(|spec| spec.copies = copies),
            Fault::Durability { durability } => self.wish(|spec| spec.durability = durability),
            Fault::Leaving { member, lasts } => {
                self.wish(|spec| spec.members[member].leaving = true);
                self.push(lasts, Ev::Undo { fault: fault.clone() });
            }
            Fault::FenceByHand { member, lasts } => {
                self.wish(|spec| spec.members[member].fenced = true);
                self.push(lasts, Ev::Undo { fault: fault.clone() });
            }
            Fault::OldWish => {
                let n = self.specs.len().saturating_sub(2);
                for m in 0..self.members.len() {
                    let epoch = self.members[m].epoch;
                    self.push(1, Ev::Spec { m, epoch, n });
                }
            }
        }
    }

    pub(crate) fn undo(&mut self, fault: Fault) {
        match fault {
            Fault::Leaving { member, .. } => self.wish(|spec| spec.members[member].leaving = false),
            Fault::FenceByHand { member, .. } => self.wish(|spec| spec.members[member].fenced = false),
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

    /// The operator writes a new wish; members hear of it one by one.
    fn wish(&mut self, change: impl FnOnce(&mut SetSpec)) {
        let Some(mut spec) = self.specs.last().cloned() else {
            return;
        };
        spec.generation += 1;
        change(&mut spec);
        self.specs.push(spec);
        let n = self.specs.len() - 1;
        for m in 0..self.members.len() {
            let (epoch, delay) = (self.members[m].epoch, self.rng.range(5, 500));
            // one that cannot hear it now hears it later
            let late = self.weather.api_cut[m]
                .max(self.weather.api_down)
                .saturating_sub(self.now);
            self.push(delay + late, Ev::Spec { m, epoch, n });
        }
    }

    /// The agent dies, and with it the engine (it is process 1). A new one starts after `down` ms.
    fn agent_crash(&mut self, m: usize, power: bool, down: u64) {
        self.members[m].frozen = 0;
        self.engine_crash(m, power, true);
        let member = &mut self.members[m];
        if member.agent.take().is_some() || member.epoch == 0 {
            member.epoch += 1;
            let epoch = member.epoch;
            self.push(down, Ev::AgentStart { m, epoch });
        }
    }

    /// The agent ends as asked; the kubelet starts a new Pod.
    pub(crate) fn agent_exit(&mut self, m: usize) {
        if self.members[m].engine.run != Run::Down {
            self.violated("I8", format!("m{m}: its agent ended before its engine"));
        }
        let member = &mut self.members[m];
        member.agent = None;
        member.epoch += 1;
        let (epoch, down) = (member.epoch, self.rng.range(100, 1_500));
        self.push(down, Ev::AgentStart { m, epoch });
    }

    fn lose_volume(&mut self, m: usize) {
        self.lost_volume = true;
        self.lost.extend(self.members[m].dir.as_ref().map(|dir| dir.id.clone()));
        self.ghosts.extend(self.members[m].dir.take());
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
