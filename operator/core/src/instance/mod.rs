//! The agent's whole behaviour as a sans-I/O state machine: events in, effects out.
//!
//! The agent's shell and the simulator run this very code. Nothing here reads a clock, draws a random number or touches a
//! disk: `now` comes with each event, identities are made by the shell and reported back, and whatever must be durable
//! before an answer leaves is an effect whose completion is an event.

pub mod effect;
pub mod event;
pub mod machine;
pub mod message;
pub mod mutant;
pub mod spec;
pub mod timings;
pub mod view;
pub mod why;

mod bootstrap;
mod change;
mod comeback;
mod detector;
mod early;
mod election;
mod endpoints;
mod fence;
mod gate;
mod handed;
mod heal;
mod heartbeat;
mod lead;
mod peers;
mod register;
#[cfg(test)]
mod rig;
mod seal;
mod subscribers;
mod switchover;
mod walsenders;

pub use effect::{Effect, Endpoints, HowToStop, StartAs, SyncNames, Upstream, Version};
pub use event::{
    Aside, CasOutcome, DiskState, Engine, Event, Origin, PrimarySeen, RecordSeen, Refusal, ReplicaSeen, StandbySeen,
    Testimony, VolumeSeen, Work, WorkResult,
};
pub use machine::Instance;
pub use message::{Heartbeat, Message, Role, SealAnswer};
pub use mutant::Mutant;
pub use spec::{Command, Durability, MemberSpec, SetSpec};
pub use subscribers::{LogicalSlot, stale_slots};
pub use timings::Timings;
pub use view::{State, View};
pub use why::Why;

use crate::failover::MemberName;

/// Monotonic milliseconds since the agent's process started. Never compared with another machine's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// This instant plus so many milliseconds.
    pub fn plus(self, ms: u64) -> Moment {
        Moment(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this instant, 0 if it is not later.
    pub fn since(self, earlier: Moment) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
