//! What this member tells its peers and status, after each decision.

use crate::failover::{DirId, Lsn, Phase, Term};

use super::effect::Effect;
use super::event::{Engine, Work};
use super::machine::Instance;
use super::message::{Heartbeat, Message, Role};
use super::view::{State, View};
use super::{Moment, Why};

/// What was last told.
#[derive(Clone, Debug, Default)]
pub(super) struct Beat {
    /// When this process began.
    pub started: Option<Moment>,
    /// When heartbeats were last sent, and what they said but for positions.
    pub sent: Option<(Moment, Heartbeat)>,
    /// Since when a hand-over is asked for that cannot begin.
    pub asked_since: Option<Moment>,
}

impl Instance {
    /// After each decision: how often to look at the engine, heartbeats, and reasons for people.
    pub(super) fn report(&mut self) {
        self.beat.started = self.beat.started.or(Some(self.now));
        let chatter = matches!(self.why, Some(Why::WaitsForStandbys { .. }));
        if !chatter && self.why.is_some() && self.why != self.said {
            self.said = self.why.clone();
            self.out.extend(self.why.clone().map(Effect::Say));
        }
        self.set_look();
        self.beat();
    }

    fn set_look(&mut self) {
        let leads =
            self.role == Role::Leader && self.served.gate && self.change.is_none() && self.served.asked.is_none();
        let follows = self.role == Role::Replica && self.following == 0 && matches!(*self.engine, Engine::Standby(_));
        let settled = self.record().is_none_or(|record| record.phase == Phase::Leading);
        let quiet = (leads || follows) && settled && self.hand.is_none() && self.lost_since.is_none();
        let every = if quiet {
            self.timings.look_quiet
        } else {
            self.timings.look_hurried
        };
        if self.look != every {
            self.look = every;
            self.out.push(Effect::Look { every_ms: every });
        }
    }

    /// Heartbeats: now and then, and at once when anything but a position changes.
    fn beat(&mut self) {
        if self.spec.is_none() || self.volume.is_none() {
            return;
        }
        let due = self
            .beat
            .sent
            .as_ref()
            .is_none_or(|(at, last)| self.now.since(*at) >= self.timings.heartbeat || self.news(last));
        if due {
            let beat = self.heartbeat();
            self.beat.sent = Some((self.now, beat.clone()));
            for to in self.others() {
                self.out.push(Effect::Send {
                    to,
                    message: Message::Heartbeat(beat.clone()),
                });
            }
        }
    }

    /// Whether anything but a position changed.
    fn news(&self, last: &Heartbeat) -> bool {
        let said = (
            last.term,
            last.role,
            last.position.term,
            last.healthy,
            last.hears_leader,
        );
        let dir = self.disk.dir.as_ref().filter(|_| self.whole());
        let address = self.my_spec().and_then(|m| m.address.as_ref());
        // A leader counts a standby from when it hears what that follows: not half a second later.
        last.following != self.follows()
            || last.ready != self.ready()
            || last.dir.as_ref() != dir
            || last.address.as_ref() != address
            || last.history != self.history()
            || said
                != (
                    self.highest_term(),
                    self.role,
                    self.position().term,
                    self.healthy(),
                    self.hears_leader(),
                )
    }

    fn highest_term(&self) -> Term {
        self.record()
            .map_or(self.disk.term, |record| record.term.max(self.disk.term))
    }

    fn history(&self) -> &[(Term, Lsn)] {
        match &*self.engine {
            Engine::Primary(seen) => &seen.history,
            _ => &[],
        }
    }

    /// The term whose log it takes, as written down.
    fn follows(&self) -> Option<Term> {
        self.disk.following.filter(|_| self.disk.sealed.is_none())
    }

    /// Directories that it has set aside and could answer for: by their last words, or by putting them back.
    pub(super) fn beside(&self) -> Vec<DirId> {
        self.beside_dirs().cloned().collect()
    }

    /// The same, to look at.
    pub(super) fn beside_dirs(&self) -> impl Iterator<Item = &DirId> {
        let aside = self.disk.aside.iter();
        let answers = aside.filter(|aside| aside.position.is_some() || !self.whole());
        answers.map(|aside| &aside.dir)
    }

    fn heartbeat(&self) -> Heartbeat {
        let history = self.history().to_vec();
        Heartbeat {
            term: self.highest_term(),
            role: self.role,
            dir: self.disk.dir.clone().filter(|_| self.whole()),
            gone: self.testimony().map(|testimony| testimony.dir),
            beside: self.beside(),
            following: self.follows(),
            position: self.position(),
            replayed: self.replayed(),
            healthy: self.healthy(),
            hears_leader: self.hears_leader(),
            history,
            ready: self.ready(),
            takes_over: true,
            address: self.my_spec().and_then(|m| m.address.clone()),
        }
    }

    /// Honest health: a leader's is a write of its own with a deadline; a member whose engine died says so at once.
    fn healthy(&self) -> bool {
        match (self.role, &*self.engine) {
            (Role::Leader | Role::Candidate, Engine::Primary(seen)) => seen.healthy,
            (Role::Candidate, engine) => *engine != Engine::Silent,
            (Role::Replica | Role::Sealed, Engine::Standby(_)) => true,
            _ => false,
        }
    }

    /// What status shows.
    pub fn view(&self) -> View {
        let record = self.record();
        let leader = record
            .filter(|record| record.phase != Phase::Sealing)
            .map(|record| record.leader.clone());
        let far = self.peers.farthest.map(|(_, lsn)| lsn);
        let replayed = self.replayed();
        View {
            role: self.role,
            state: self.state(),
            term: self.highest_term(),
            phase: record.map(|record| record.phase),
            leader,
            dir: self.disk.dir.clone(),
            system_identifier: record.and_then(|record| record.system_identifier),
            position: self.position(),
            replayed,
            lag_bytes: far
                .filter(|_| self.role == Role::Replica)
                .map(|far| far.0.saturating_sub(replayed.0)),
            why: self.why.clone(),
            spec_generation: self.spec.as_ref().map_or(0, |spec| spec.generation),
            gate_open: self.served.gate,
            last_command: record
                .and_then(|r| r.last_command.clone())
                .or_else(|| self.disk.last_command.clone()),
        }
    }

    fn state(&self) -> State {
        match self.busy {
            Some(Work::Initdb) => return State::Initializing,
            Some(Work::Clone) => return State::Cloning,
            Some(Work::Rewind) => return State::Rewinding,
            _ => {}
        }
        if matches!(self.why, Some(Why::FirstVolumeLost)) {
            return State::Failed;
        }
        match (&*self.engine, self.role) {
            (Engine::Down { .. }, Role::Preparing) => State::Starting,
            (Engine::Down { .. } | Engine::Silent, _) => State::Stopped,
            (Engine::Starting, _) => State::Starting,
            (Engine::Primary(_), _) => {
                if self.served.gate {
                    State::Serving
                } else {
                    State::Waiting
                }
            }
            (Engine::Standby(_), Role::Sealed) => State::Sealed,
            (Engine::Standby(seen), _) if seen.receiving => {
                let far = self.peers.farthest.map_or(Lsn(0), |(_, lsn)| lsn);
                let lag = far.0.saturating_sub(seen.replayed.0);
                if lag <= 16 << 20 {
                    State::Streaming
                } else {
                    State::CatchingUp
                }
            }
            (Engine::Standby(_), _) => State::CatchingUp,
        }
    }
}
