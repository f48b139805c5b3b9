//! The operator, as far as members feel it: it writes wishes, and makes and deletes Pods, one step at a time. It keeps
//! nothing between steps, so one that is killed between two is one that is slow.

use holdfast_core::failover::{MemberName, Phase, Record};
use holdfast_core::instance::{Command, Event, MemberSpec, SetSpec};

use crate::event::Ev;
use crate::model::Run;
use crate::plan::Fault;
use crate::world::{ADDRESS, World};

/// The version of the parameters in a wish.
pub fn parameters(spec: &SetSpec) -> u64 {
    let version = spec.parameters.get("work_mem");
    version.and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl World {
    /// The members as a wish lists them: those that should be, and those whose Pods are not gone yet.
    fn listed(&self) -> Vec<MemberSpec> {
        let all = self.members.iter().enumerate();
        all.filter(|(m, member)| *m < self.wanted || member.present)
            .map(|(m, member)| MemberSpec {
                name: member.name.clone(),
                address: Some(ADDRESS.to_owned()),
                leaving: member.leaving || m >= self.wanted,
                fenced: member.fenced,
            })
            .collect()
    }

    /// A person changes what is wished: that is a new generation.
    pub(crate) fn wish(&mut self, change: impl FnOnce(&mut SetSpec)) {
        self.generation += 1;
        self.ask(change);
    }

    /// The operator writes its wish anew; members hear of it one by one.
    pub(crate) fn ask(&mut self, change: impl FnOnce(&mut SetSpec)) {
        let Some(mut spec) = self.specs.last().cloned() else {
            return;
        };
        spec.generation = self.generation;
        change(&mut spec);
        spec.members = self.listed();
        spec.copies = self.copies.min(self.wanted as u16);
        self.specs.push(spec);
        self.tell_wish(self.specs.len() - 1);
        if self.weather.operators > self.now && self.specs.len() > 1 {
            // the other operator has not heard of it, and undoes it
            let n = self.specs.len() - 2;
            self.tell_wish(n);
        }
    }

    /// Writes a wish, the last one or one of before; every member hears of it in its own time.
    pub(crate) fn tell_wish(&mut self, wish: usize) {
        self.told.push(wish);
        let n = self.told.len() - 1;
        let away = self.weather.operator.saturating_sub(self.now);
        for m in 0..self.members.len() {
            let (epoch, delay) = (self.members[m].epoch, self.rng.range(5, 500));
            // one that cannot hear it now hears it later
            let late = self.weather.api_cut[m]
                .max(self.weather.api_down)
                .saturating_sub(self.now);
            let delay = away + delay + late;
            self.push(delay, Ev::Spec { m, epoch, n });
        }
    }

    /// A member hears the n-th wish that was written, if it has heard no later one.
    pub(crate) fn hear_wish(&mut self, m: usize, n: usize) {
        if n < self.members[m].told {
            return;
        }
        let (now, spec) = (self.now, self.specs[self.told[n]].clone());
        let member = &mut self.members[m];
        member.told = n;
        // it came from the API server
        member.contact = now;
        if member
            .spec
            .as_ref()
            .is_none_or(|known| known.generation <= spec.generation)
        {
            member.spec = Some(spec.clone());
        }
        self.step(m, Event::Spec(spec));
    }

    /// Something is to be done.
    pub(crate) fn wake_operator(&mut self) {
        if !self.operating {
            self.operating = true;
            let delay = self.rng.range(20, 600);
            self.push(delay, Ev::Operate);
        }
    }

    /// One step of the operator, in this order: missing Pods are made, surplus ones removed, parameters rolled out.
    pub(crate) fn operate(&mut self) {
        if self.weather.operator > self.now {
            let back = self.weather.operator - self.now + 50;
            return self.push(back, Ev::Operate);
        }
        self.operating = false;
        // An old one would let a Pod go while the leader takes its member in: with the leader lost as well, a person must bring
        // it back. That is not modelled.
        let Some(record) = self.store.record().cloned() else {
            return;
        };
        if self.make_pod() || self.shrink_set(&record) || self.roll(&record) {
            self.wake_operator();
        }
    }

    fn make_pod(&mut self) -> bool {
        let Some(m) = (0..self.wanted).find(|m| !self.members[*m].present) else {
            return false;
        };
        self.note(|| format!("operator: makes the Pod of m{m}"));
        self.members[m].present = true;
        self.members[m].epoch += 1;
        let (epoch, delay) = (self.members[m].epoch, self.rng.range(50, 800));
        self.push(delay, Ev::AgentStart { m, epoch });
        self.ask(|_| {});
        true
    }

    fn shrink_set(&mut self, record: &Record) -> bool {
        let surplus = (self.wanted..self.members.len()).rev();
        let Some(m) = surplus.into_iter().find(|m| self.members[*m].present) else {
            return false;
        };
        if self.members[m].deleting {
            return true;
        }
        if record.leader == self.members[m].name {
            let id = format!("leave-{m}-{}", record.term);
            self.command(Command::Switchover { id, to: None });
            return true;
        }
        let dir = self.members[m].dir.as_ref().map(|dir| &dir.id);
        let counts = dir.is_some_and(|d| record.rule.standbys.contains(d) || record.rule.leader.as_ref() == Some(d));
        if counts || (dir.is_none() && record.phase != Phase::Leading) {
            return true;
        }
        self.note(|| format!("operator: deletes the Pod of m{m}"));
        self.members[m].deleting = true;
        if self.members[m].agent.is_some() {
            self.step(m, Event::Shutdown);
            let fault = Fault::DeletePod { member: m };
            self.push(30_000, Ev::Undo { fault });
        } else {
            self.pod_gone(m);
        }
        true
    }

    /// The Pod of a member that is not wanted any more is gone. Its volume stays.
    pub(crate) fn pod_gone(&mut self, m: usize) {
        let member = &mut self.members[m];
        (member.present, member.deleting) = (false, false);
        member.epoch += 1;
        self.ask(|_| {});
        self.wake_operator();
    }

    fn roll(&mut self, record: &Record) -> bool {
        let wish = self.specs.last().map_or(0, parameters);
        let mut order: Vec<usize> = (0..self.wanted).collect();
        order.sort_by_key(|m| self.members[*m].name == record.leader);
        let old = order
            .into_iter()
            .find(|m| self.members[*m].engine.parameters < wish && self.members[*m].engine.run != Run::Down);
        let Some(m) = old else {
            return (0..self.wanted).any(|m| self.members[m].engine.parameters < wish);
        };
        if (0..self.wanted).all(|m| self.fit(m)) {
            let id = format!("restart-{wish}-{m}-{}", self.members[m].epoch);
            let member = self.members[m].name.clone();
            self.command(Command::Restart { id, member });
        }
        true
    }

    fn fit(&self, m: usize) -> bool {
        let engine = &self.members[m].engine;
        match engine.run {
            Run::Primary => engine.gate,
            Run::Standby => engine.receiver.is_some(),
            _ => false,
        }
    }

    fn command(&mut self, command: Command) {
        let same = self.specs.last().and_then(|spec| spec.command.as_ref());
        if same != Some(&command) {
            self.note(|| format!("operator: asks for {command:?}"));
            self.ask(|spec| spec.command = Some(command));
        }
    }

    /// The set is to have so many members.
    pub(crate) fn scale(&mut self, members: usize) {
        self.wanted = members.clamp(1, self.members.len());
        self.wish(|_| {});
        self.wake_operator();
    }

    /// The name of a member.
    pub(crate) fn name(&self, m: usize) -> MemberName {
        self.members[m].name.clone()
    }
}
