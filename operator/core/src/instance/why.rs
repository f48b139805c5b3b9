//! Why an agent does, or waits: the one wording for status, Events, logs and metrics.

use std::fmt;

use crate::failover::{MemberName, Term};
use crate::plan::{Reason, Severity};

/// A reason, with what a person needs to know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The record has not been read since the start.
    WaitsForRecord,
    /// No volume state or operator's wish seen yet.
    WaitsForSpec,
    /// This member makes the first data directory.
    Bootstrapping,
    /// The record says that initdb has run, but this volume is empty: never a second initdb.
    FirstVolumeLost,
    /// Copies from a member.
    Cloning { from: MemberName },
    /// Rewinds to the leader's log.
    Rewinding { to: MemberName },
    /// Follows the leader.
    Following { leader: MemberName, term: Term },
    /// Leads.
    Leading { term: Term },
    /// Leads, but commits wait for standbys.
    WaitsForStandbys { have: usize, need: usize },
    /// Sealed for an election.
    Sealed { term: Term },
    /// The election cannot prove that no commit is lost without these members' return.
    ProofImpossible { needs: Vec<MemberName> },
    /// Opened an election because the leader is gone.
    ElectionOpened { term: Term, leader: MemberName },
    /// Elected; promoting.
    Promoting { term: Term },
    /// Stopped itself: a newer term exists or nobody can be reached.
    Fenced { because: String },
    /// The rule is being changed.
    RuleChanging,
    /// Work failed; tried again later or by the next rung of the heal ladder.
    WorkFailed { what: &'static str, why: String },
    /// The directory was set aside.
    SetAside { why: String },
    /// What was set aside is put back in its place.
    PutBack { term: Term },
    /// Stopped by a person.
    FencedByHand,
    /// Going down as asked.
    ShuttingDown,
}

impl Reason for Why {
    fn reason(&self) -> &'static str {
        match self {
            Why::WaitsForRecord => "WaitsForRecord",
            Why::WaitsForSpec => "WaitsForSpec",
            Why::Bootstrapping => "Bootstrapping",
            Why::FirstVolumeLost => "FirstVolumeLost",
            Why::Cloning { .. } => "Cloning",
            Why::Rewinding { .. } => "Rewinding",
            Why::Following { .. } => "Following",
            Why::Leading { .. } => "Leading",
            Why::WaitsForStandbys { .. } => "WaitsForStandbys",
            Why::Sealed { .. } => "Sealed",
            Why::ProofImpossible { .. } => "ProofImpossible",
            Why::ElectionOpened { .. } => "ElectionOpened",
            Why::Promoting { .. } => "Promoting",
            Why::Fenced { .. } => "Fenced",
            Why::RuleChanging => "RuleChanging",
            Why::WorkFailed { .. } => "WorkFailed",
            Why::SetAside { .. } => "SetAside",
            Why::PutBack { .. } => "PutBack",
            Why::FencedByHand => "FencedByHand",
            Why::ShuttingDown => "ShuttingDown",
        }
    }

    fn severity(&self) -> Severity {
        match self {
            Why::FirstVolumeLost
            | Why::ProofImpossible { .. }
            | Why::Fenced { .. }
            | Why::WorkFailed { .. }
            | Why::SetAside { .. }
            | Why::PutBack { .. }
            | Why::ElectionOpened { .. } => Severity::Warning,
            _ => Severity::Normal,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::WaitsForRecord => f.write_str("waits to read the authority record; serves nobody until then"),
            Why::WaitsForSpec => f.write_str("waits for the operator's wish"),
            Why::Bootstrapping => f.write_str("makes the first data directory"),
            Why::FirstVolumeLost => f.write_str(
                "the first member's volume is empty although initdb has run once; restore its volume or delete and re-create the replica set",
            ),
            Why::Cloning { from } => write!(f, "copies the data from {from}"),
            Why::Rewinding { to } => write!(f, "rewinds its data to {to}'s log"),
            Why::Following { leader, term } => write!(f, "follows {leader} (term {term})"),
            Why::Leading { term } => write!(f, "leads term {term}"),
            Why::WaitsForStandbys { have, need } => {
                write!(f, "commits wait: {have} of {need} required standbys are caught up")
            }
            Why::Sealed { term } => write!(f, "sealed for the election of term {term}"),
            Why::ProofImpossible { needs } => {
                f.write_str("no member can prove that it holds every acknowledged commit; the return of one of these would prove it:")?;
                needs.iter().try_for_each(|m| write!(f, " {m}"))
            }
            Why::ElectionOpened { term, leader } => write!(f, "opened the election of term {term}: {leader} is gone"),
            Why::Promoting { term } => write!(f, "elected for term {term}; promoting"),
            Why::Fenced { because } => write!(f, "stopped its engine: {because}"),
            Why::RuleChanging => f.write_str("changes the set of standbys that acknowledge commits"),
            Why::WorkFailed { what, why } => write!(f, "{what} failed: {why}"),
            Why::PutBack { term } => write!(
                f,
                "puts the data directory back that it had set aside: the election of term {term} lacks it"
            ),
            Why::SetAside { why } => write!(f, "set its data directory aside: {why}"),
            Why::FencedByHand => f.write_str("fenced by a person; `kubectl holdfast unfence` lets it go"),
            Why::ShuttingDown => f.write_str("shuts down as asked"),
        }
    }
}
