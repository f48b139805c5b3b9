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

/// The same without the directories that a person has given up: so many of the rest of S that they meet every acknowledging
/// set, as far as that has anybody left. A commit that none but these hold is lost. But as long as the leader is not given
/// up, it may be the one who is left.
fn seals_needed_without(rule: &Rule, lost: &[DirId]) -> usize {
    let given_up = rule.standbys.iter().filter(|dir| lost.contains(*dir)).count();
    let left = usize::from(rule.quorum).saturating_sub(given_up);
    let leader = rule.leader.as_ref().is_some_and(|leader| lost.contains(leader));
    let meets = if leader { left.max(1) } else { left };
    (rule.standbys.len() - given_up + 1).saturating_sub(meets)
}

/// Whether these seals hold every commit acknowledged under `rule`. In this order:
///
/// 1. Nothing was ever led (`rule.leader` is `None`): nothing proves, so that nobody but the first member makes a database.
/// 2. The rule's own leader is among them, its directory never rewound since it led: it holds everything.
/// 3. At least [`seals_needed`] members of S are among them.
///
/// `lost` names directories that a person has given up: commits that only they hold are lost, and no others.
pub fn proves<'a>(rule: &Rule, seals: impl IntoIterator<Item = &'a Seal>, lost: &[DirId]) -> bool {
    let seals = seals.into_iter().map(|seal| (&seal.dir, seal.led.is_some()));
    proven_by(rule, seals, lost)
}

/// The same, by directories, and whether each led and was never rewound since.
pub fn proven_by<'a>(rule: &Rule, seals: impl IntoIterator<Item = (&'a DirId, bool)>, lost: &[DirId]) -> bool {
    let Some(leader) = &rule.leader else { return false };
    let (mut members, mut own) = (0, false);
    for (dir, led) in seals {
        own |= led && dir == leader;
        members += usize::from(rule.standbys.contains(dir) && !lost.contains(dir));
    }
    own || members >= seals_needed_without(rule, lost)
}

/// What would complete a proof: the leader's own directory as it led, or any so many of these standbys'.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// The leader's directory, unless it is here.
    pub leader: Option<DirId>,
    /// Directories of S that are not here; none where not even all of them would do.
    pub standbys: Vec<DirId>,
    /// How many of these have to come. None: those who are here prove.
    pub of_them: usize,
}

/// What is missing for a proof beside the directories that are here, which may not have led. The same arguments as [`proves`].
pub fn missing(rule: &Rule, here: impl Fn(&DirId) -> bool, lost: &[DirId]) -> Missing {
    let (mut found, mut standbys) = (0, Vec::new());
    for dir in rule.standbys.iter().filter(|dir| !lost.contains(*dir)) {
        if here(dir) {
            found += 1;
        } else {
            standbys.push(dir.clone());
        }
    }
    let of_them = seals_needed_without(rule, lost).saturating_sub(found);
    if of_them == 0 || of_them > standbys.len() {
        standbys.clear();
    }
    Missing {
        leader: rule.leader.clone().filter(|dir| !here(dir)),
        standbys,
        of_them,
    }
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

    #[test]
    fn who_is_left_must_be_heard_before_a_loss_is_accepted() {
        let both = [seal(2, None), seal(3, None)];
        let lost = [dir(0), dir(1)];
        assert!(
            !proves(&rule(3, 1), &both[..1], &lost),
            "d3 may hold what only d0 and d1 held beside it"
        );
        assert!(proves(&rule(3, 1), &both, &lost));
        assert!(!proves(&rule(1, 1), &[], &lost[1..]), "the leader was not given up");
    }

    proptest! {
        /// With directories given up, a proof still holds what any other directory holds.
        #[test]
        fn only_what_nobody_else_holds_is_lost(n in 0usize..=6, q in 0u16..=6, sealed in 0u32..128, acked in 0u32..128, lost in 0u32..128) {
            prop_assume!(usize::from(q) <= n);
            let among = |bits: u32, from: usize| (from..=n).filter(move |i| bits >> i & 1 == 1);
            let sealed: Vec<Seal> = among(sealed, 1).map(|i| seal(i, None)).collect();
            let (acked, lost): (Vec<DirId>, Vec<DirId>) = (among(acked | 1, 0).map(dir).collect(), among(lost, 0).map(dir).collect());
            let kept = acked.iter().any(|dir| !lost.contains(dir));
            if acked.len() > usize::from(q) && kept && proves(&rule(n, q), &sealed, &lost) {
                prop_assert!(sealed.iter().any(|s| acked.contains(&s.dir)));
            }
        }

        /// Whoever is named completes a proof, and fewer do not.
        #[test]
        fn those_who_are_missing_would_prove(n in 0usize..=6, q in 0u16..=6, here in 0u32..128, lost in 0u32..128) {
            prop_assume!(usize::from(q) <= n);
            let rule = rule(n, q);
            let among = |bits: u32, from: usize| (from..=n).filter(move |i| bits >> i & 1 == 1);
            let mut sealed: Vec<Seal> = among(here, 1).map(|i| seal(i, None)).collect();
            let lost: Vec<DirId> = among(lost, 0).map(dir).collect();
            let is_here = |dir: &DirId| sealed.iter().any(|seal| seal.dir == *dir);
            let missing = missing(&rule, is_here, &lost);
            prop_assert_eq!(missing.of_them == 0, proves(&rule, &sealed, &lost));
            prop_assert_eq!(&missing.leader, &rule.leader);
            let leads: Vec<Seal> = sealed.iter().cloned().chain([seal(0, Some(Term(1)))]).collect();
            prop_assert!(proves(&rule, &leads, &lost));
            for (come, dir) in missing.standbys.iter().enumerate() {
                prop_assert_eq!(come >= missing.of_them, proves(&rule, &sealed, &lost));
                sealed.push(Seal { dir: dir.clone(), ..seal(1, None) });
            }
            prop_assert_eq!(proves(&rule, &sealed, &lost), missing.of_them == 0 || !missing.standbys.is_empty());
        }

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
