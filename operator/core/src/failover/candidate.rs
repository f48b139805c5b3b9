//! Who is elected.

use std::collections::BTreeMap;

use super::proof::{Missing, Seal, missing, proves};
use super::record::{DirId, MemberName, Position, Rule};

/// What an election knows: seals of one term, by member.
#[derive(Clone, Copy, Debug)]
pub struct Election<'a> {
    /// The rule that acknowledged commits obeyed.
    pub rule: &'a Rule,
    /// Every seal of this term that was heard, mine included.
    pub seals: &'a BTreeMap<MemberName, Seal>,
    /// What is testified for beside them: directories that are not in their place. They prove like seals, and are nobody's to be
    /// elected with.
    pub beside: &'a [Seal],
    /// Among equals this one is elected.
    pub prefer: &'a MemberName,
    /// Directories that a person has given up.
    pub lost: &'a [DirId],
}

impl Election<'_> {
    /// Whether `member` could be elected: the seals that are not ahead of its own prove, hence it holds every acknowledged
    /// commit (Raft's argument: of two logs the one with the later term of last record, then the longer, contains every
    /// commit of the other).
    pub fn proves_for(&self, member: &MemberName) -> bool {
        let Some(own) = self.seals.get(member) else {
            return false;
        };
        let all = self.seals.values().chain(self.beside);
        let behind = all.filter(|seal| seal.position <= own.position);
        proves(self.rule, behind, self.lost)
    }

    /// The order of candidates: position (term of the last record, then LSN), then preference, then members' order.
    fn rank<'b>(&self, member: &'b MemberName, at: Position) -> (Position, bool, std::cmp::Reverse<&'b MemberName>) {
        (at, member == self.prefer, std::cmp::Reverse(member))
    }

    /// Whether `me` should take the election now: it is proved for me, and no `live` member ranks higher.
    pub fn elects(&self, me: &MemberName, live: impl Fn(&MemberName) -> bool) -> bool {
        if !self.proves_for(me) {
            return false;
        }
        self.ranks_first(me, live)
    }

    /// Whether no `live` sealed member ranks above `me`.
    pub fn ranks_first(&self, me: &MemberName, live: impl Fn(&MemberName) -> bool) -> bool {
        let Some(own) = self.seals.get(me) else { return false };
        let mine = self.rank(me, own.position);
        !self
            .seals
            .iter()
            .any(|(other, seal)| other != me && live(other) && self.rank(other, seal.position) > mine)
    }

    /// What is missing for a proof.
    pub fn missing(&self) -> Missing {
        let sealed = |dir: &DirId| self.seals.values().chain(self.beside).any(|seal| seal.dir == *dir);
        missing(self.rule, sealed, self.lost)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::failover::{Lsn, Term};

    fn name(n: usize) -> MemberName {
        MemberName(format!("m{n}"))
    }

    fn seals(positions: &[(u32, u64)]) -> BTreeMap<MemberName, Seal> {
        let seal = |i: usize, (term, lsn): (u32, u64)| Seal {
            dir: DirId(format!("d{i}")),
            position: Position {
                term: Term(term),
                lsn: Lsn(lsn),
            },
            led: None,
        };
        positions
            .iter()
            .enumerate()
            .map(|(i, p)| (name(i), seal(i, *p)))
            .collect()
    }

    fn rule(n: usize, quorum: u16) -> Rule {
        Rule {
            leader: Some(DirId("old".into())),
            standbys: (0..n).map(|i| DirId(format!("d{i}"))).collect(),
            quorum,
        }
    }

    #[test]
    fn a_longer_log_of_an_older_term_loses() {
        let (rule, seals) = (rule(2, 1), seals(&[(1, 900), (2, 100)]));
        let election = Election {
            rule: &rule,
            seals: &seals,
            beside: &[],
            prefer: &name(0),
            lost: &[],
        };
        assert!(!election.elects(&name(0), |_| true));
        assert!(election.elects(&name(1), |_| true));
    }

    #[test]
    fn a_dead_better_member_is_not_passed_by_when_its_seal_is_needed() {
        let (rule, seals) = (rule(2, 1), seals(&[(1, 10), (1, 20)]));
        let election = Election {
            rule: &rule,
            seals: &seals,
            beside: &[],
            prefer: &name(0),
            lost: &[],
        };
        assert!(
            !election.elects(&name(0), |m| *m == name(0)),
            "only m1 proves that 20 was not acknowledged by it"
        );
    }

    proptest! {
        /// At most one member takes an election when all are live, and it has the greatest position.
        #[test]
        fn one_winner(positions in prop::collection::vec((1u32..4, 1u64..5), 1..6), q in 1u16..3, prefer in 0usize..6) {
            let (rule, seals) = (rule(positions.len(), q), seals(&positions));
            let election = Election { rule: &rule, seals: &seals, beside: &[], prefer: &name(prefer), lost: &[] };
            let winners: Vec<_> = seals.keys().filter(|m| election.elects(m, |_| true)).collect();
            prop_assert!(winners.len() <= 1);
            for w in winners {
                prop_assert!(seals.values().all(|s| s.position <= seals[w].position));
            }
        }
    }
}
