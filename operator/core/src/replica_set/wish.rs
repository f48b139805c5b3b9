//! The wish that agents read: a pure function of the plan and what exists.

use crate::failover::MemberName;
use crate::instance::{Command, MemberSpec, SetSpec};

use super::view::SetView;

/// Makes the wish. Members that are to go are listed as leaving for as long as their Pod exists, so that the leader counts
/// without them and drops their slots.
pub fn wish(view: &SetView, command: Option<Command>) -> SetSpec {
    let spec_of = |name: MemberName, leaving: bool| MemberSpec {
        address: view.pods.get(&name).filter(|p| !p.deleting).and_then(|p| p.ip.clone()),
        fenced: view.plan.fenced.contains(&name),
        name,
        leaving,
    };
    let wanted = view.wanted().into_iter().map(|m| spec_of(m, false));
    let leaving = view.surplus().into_iter().map(|m| spec_of(m, true));
    SetSpec {
        generation: view.generation,
        members: wanted.chain(leaving).collect(),
        durability: view.plan.durability,
        copies: view.plan.copies,
        maximum_lag_bytes: view.plan.maximum_lag_bytes,
        read_lag_bytes: view.plan.read_lag_bytes,
        parameters: view.plan.parameters.clone(),
        command,
    }
}

impl Command {
    /// The request's identity: carried out once.
    pub fn id(&self) -> &str {
        match self {
            Command::Switchover { id, .. }
            | Command::FailoverAcceptingLoss { id, .. }
            | Command::Restart { id, .. } => id,
        }
    }
}
