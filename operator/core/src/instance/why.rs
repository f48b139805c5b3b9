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
    /// The election cannot prove that no commit is lost without the leader's return, or that of so many of these standbys.
    ProofImpossible {
        leader: Option<MemberName>,
        standbys: Vec<MemberName>,
        of_them: usize,
    },
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
            Why::ProofImpossible {
                leader,
                standbys,
                of_them,
            } => {
                f.write_str("no member can prove that it holds every acknowledged commit; ")?;
                let names: Vec<&str> = standbys.iter().map(|m| m.0.as_str()).collect();
                let names = names.join(", ");
                let standbys = match of_them {
                    _ if standbys.is_empty() => None,
                    n if *n == standbys.len() && *n > 1 => Some(format!("of all of {names}")),
                    1 if standbys.len() == 1 => Some(format!("of {names}")),
                    n => Some(format!("of any {n} of {names}")),
                };
                match (leader, standbys) {
                    (Some(leader), Some(standbys)) => write!(f, "the return of {leader}, or {standbys}, would prove it"),
                    (Some(leader), None) if *of_them == 0 => {
                        write!(f, "a member that is here and holds more log may, or the return of {leader}")
                    }
                    (Some(leader), None) => write!(f, "only the return of {leader} would prove it"),
                    (None, Some(standbys)) => write!(f, "the return {standbys} would prove it"),
                    (None, None) if *of_them == 0 => f.write_str("a member that is here and holds more log may"),
                    (None, None) => f.write_str("the directories that could are gone, or those who have them are here and not ready yet"),
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_that_is_impossible_says_whose_return_would_do() {
        let told = |leader: Option<&str>, standbys: &[&str], of_them| {
            let name = |m: &str| MemberName(m.into());
            let why = Why::ProofImpossible {
                leader: leader.map(name),
                standbys: standbys.iter().map(|m| name(m)).collect(),
                of_them,
            };
            why.to_string().split_once("; ").unwrap().1.to_owned()
        };
        for (leader, standbys, of_them, text) in [
            (
                Some("a"),
                &["b", "c"][..],
                1,
                "the return of a, or of any 1 of b, c, would prove it",
            ),
            (
                Some("a"),
                &["b", "c"],
                2,
                "the return of a, or of all of b, c, would prove it",
            ),
            (Some("a"), &["b"], 1, "the return of a, or of b, would prove it"),
            (Some("a"), &[], 1, "only the return of a would prove it"),
            (
                None,
                &["b", "c", "d"],
                2,
                "the return of any 2 of b, c, d would prove it",
            ),
        ] {
            assert_eq!(told(leader, standbys, of_them), text);
        }
    }
}
