//! Proof that an elected member holds every acknowledged commit.

use super::record::{DirId, Position, Rule, Term};

/// One member's seal, as far as a proof needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The directory.
    pub dir: DirId,
    /// Where its log ends.
    pub position: Position,
    /// The term that it led, if it was never rewound since.
    pub led: Option<Term>,
}

/// How many members of S must be sealed: `|S| - q + 1`, so that they meet every set of q that acknowledged, and fewer than
/// q are left to acknowledge more. With q = 0 that is more than S has: only the leader's own directory proves.
pub fn seals_needed(rule: &Rule) -> usize {
    (rule.standbys.len() + 1).saturating_sub(usize::from(rule.quorum))
}

/// Whether these seals hold every commit acknowledged under `rule`. In this order:
///
/// 1. Nothing was ever led (`rule.leader` is `None`): nothing proves, so that nobody but the first member makes a database.
/// 2. The rule's own leader is among them, its directory never rewound since it led: it holds everything.
/// 3. At least [`seals_needed`] members of S are among them.
///
/// `lost` names directories that a person has given up: they count as sealed, and commits that only they hold are lost.
pub fn proves<'a>(rule: &Rule, seals: impl IntoIterator<Item = &'a Seal>, lost: &[DirId]) -> bool {
    let Some(leader) = &rule.leader else { return false };
    let mut members = lost.iter().filter(|dir| rule.standbys.contains(*dir)).count();
    let mut own = lost.contains(leader);
    for seal in seals {
        own |= seal.dir == *leader && seal.led.is_some();
        members += usize::from(rule.standbys.contains(&seal.dir) && !lost.contains(&seal.dir));
    }
    own || members >= seals_needed(rule)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::failover::Lsn;

    fn dir(n: usize) -> DirId {
        DirId(format!("d{n}"))
    }

    fn seal(n: usize, led: Option<Term>) -> Seal {
        Seal {
            dir: dir(n),
            position: Position {
                term: Term(1),
                lsn: Lsn(1),
            },
            led,
        }
    }

    fn rule(standbys: usize, quorum: u16) -> Rule {
        Rule {
            leader: Some(dir(0)),
            standbys: (1..=standbys).map(dir).collect(),
            quorum,
        }
    }

    #[test]
    fn before_the_first_leader_nothing_proves() {
        assert!(!proves(&Rule::default(), &[seal(0, Some(Term(1)))], &[]));
    }

    #[test]
    fn a_rewound_leader_proves_nothing() {
        assert!(proves(&rule(2, 1), &[seal(0, Some(Term(1)))], &[]));
        assert!(!proves(&rule(2, 1), &[seal(0, None)], &[]));
    }

    #[test]
    fn with_quorum_zero_only_the_leader_proves() {
        assert!(!proves(&rule(2, 0), &[seal(1, None), seal(2, None)], &[]));
    }

    proptest! {
        /// A set of seals that proves meets every set of q members that could have acknowledged.
        #[test]
        fn quorums_meet(n in 1usize..=6, q in 1u16..=6, sealed in 0u32..64, acknowledged in 0u32..64) {
            prop_assume!(usize::from(q) <= n);
            let sealed: Vec<Seal> = (1..=n).filter(|i| sealed >> (i - 1) & 1 == 1).map(|i| seal(i, None)).collect();
            let acked: Vec<DirId> = (1..=n).filter(|i| acknowledged >> (i - 1) & 1 == 1).map(dir).collect();
            if proves(&rule(n, q), &sealed, &[]) && acked.len() >= usize::from(q) {
                prop_assert!(sealed.iter().any(|s| acked.contains(&s.dir)));
            }
        }
    }
}
