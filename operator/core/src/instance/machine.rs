//! The machine.

use crate::failover::{MemberName, Position, Term};

use super::{Effect, Event, Moment, Role, State, Timings, View};

/// One member's agent, without its hands: see the module's documentation.
#[derive(Clone, Debug)]
pub struct Instance {
    me: MemberName,
    timings: Timings,
}

impl Instance {
    /// A machine that has seen nothing yet. `seed` only spreads members' timers.
    pub fn new(me: MemberName, timings: Timings, _seed: u64) -> Instance {
        Instance { me, timings }
    }

    /// Takes one event and says what to do, in this order.
    pub fn step(&mut self, _now: Moment, _event: Event) -> Vec<Effect> {
        let _ = (&self.me, &self.timings);
        Vec::new()
    }

    /// What status shows.
    pub fn view(&self) -> View {
        View {
            role: Role::Preparing,
            state: State::Starting,
            term: Term::default(),
            phase: None,
            leader: None,
            dir: None,
            system_identifier: None,
            position: Position::default(),
            replayed: Default::default(),
            lag_bytes: None,
            why: None,
            spec_generation: 0,
            gate_open: false,
            last_command: None,
        }
    }
}
