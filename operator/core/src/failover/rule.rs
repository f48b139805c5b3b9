//! Which rule should be in force, and the record's rule while one changes into another.

use std::collections::BTreeSet;

use super::record::{DirId, Rule};
use crate::instance::{Durability, SyncNames};

/// The rule that covers two others while either may be in force: a commit acknowledged under one of them is held by at
/// least `min(q, q')` members of `S ∪ S'`.
pub fn widen(a: &Rule, b: &Rule) -> Rule {
    Rule {
        leader: a.leader.clone(),
        standbys: a.standbys.union(&b.standbys).cloned().collect(),
        quorum: a.quorum.min(b.quorum),
    }
}

/// The setting that enforces a rule. With `Quorum` it asks for `copies - 1` standbys even where the record's rule has fewer
/// (a new leader that found fewer serves readers, and commits wait): what the engine asks may be more than the record says,
/// never less.
pub fn setting(rule: &Rule, durability: Durability, copies: u16) -> SyncNames {
    let need = asked_for(rule, durability, copies);
    if need == 0 {
        return SyncNames::Alone;
    }
    if rule.standbys.is_empty() {
        return SyncNames::Nobody;
    }
    SyncNames::Any {
        quorum: need,
        standbys: rule.standbys.clone(),
    }
}

fn asked_for(rule: &Rule, durability: Durability, copies: u16) -> u16 {
    match durability {
        Durability::Quorum => copies.saturating_sub(1).max(rule.quorum),
        Durability::Preferred | Durability::Async => rule.quorum,
    }
}

/// Whether a setting is the one that enforces a rule. A leader asks at every step, so nothing is copied.
pub fn is_setting(sync: &SyncNames, rule: &Rule, durability: Durability, copies: u16) -> bool {
    let need = asked_for(rule, durability, copies);
    match sync {
        SyncNames::Alone => need == 0,
        SyncNames::Nobody => need != 0 && rule.standbys.is_empty(),
        SyncNames::Any { quorum, standbys } => {
            need != 0 && *quorum == need && !rule.standbys.is_empty() && *standbys == rule.standbys
        }
    }
}

/// The rule that a new leader begins with, once `able` standbys have flushed past its promotion point: all of them, of
/// which `copies - 1` or, when they are fewer, all acknowledge.
pub fn first(leader: Option<DirId>, durability: Durability, copies: u16, able: &BTreeSet<DirId>) -> Rule {
    let none = Rule {
        leader,
        ..Rule::default()
    };
    match durability {
        Durability::Async => none,
        _ => desired(&none, Durability::Preferred, copies, able),
    }
}

/// The rule that a leader should have, given who is able to acknowledge. In this order:
///
/// 1. `Async`, or one copy: the leader alone.
/// 2. Enough able standbys: all of them, `copies - 1` of which acknowledge. Lost ones leave, so that the next election needs
///    no seal of theirs.
/// 3. `Preferred` with fewer: the able ones, all of which acknowledge.
/// 4. `Quorum` with fewer: as now, plus who is able; commits wait. A rule that has not members enough for `copies` yet
///    stays as it is until it has.
pub fn desired(now: &Rule, durability: Durability, copies: u16, able: &BTreeSet<DirId>) -> Rule {
    let leader = now.leader.clone();
    let need = copies.saturating_sub(1);
    if durability == Durability::Async || need == 0 {
        return Rule {
            leader,
            standbys: BTreeSet::new(),
            quorum: 0,
        };
    }
    if able.len() >= usize::from(need) {
        return Rule {
            leader,
            standbys: able.clone(),
            quorum: need,
        };
    }
    if durability == Durability::Preferred {
        let quorum = u16::try_from(able.len()).unwrap_or(need);
        return Rule {
            leader,
            standbys: able.clone(),
            quorum,
        };
    }
    let standbys: BTreeSet<DirId> = now.standbys.union(able).cloned().collect();
    if standbys.len() < usize::from(need) {
        return now.clone();
    }
    Rule {
        leader,
        standbys,
        quorum: need,
    }
}

/// Whether a rule is the one that [`desired`] would make of it. `able` are in order. A leader asks at every step, so nothing
/// is copied.
pub fn is_desired<'a>(
    now: &Rule,
    durability: Durability,
    copies: u16,
    able: impl ExactSizeIterator<Item = &'a DirId>,
) -> bool {
    let need = copies.saturating_sub(1);
    if durability == Durability::Async || need == 0 {
        return now.standbys.is_empty() && now.quorum == 0;
    }
    let enough = able.len() >= usize::from(need);
    if enough || durability == Durability::Preferred {
        let quorum = if enough {
            need
        } else {
            u16::try_from(able.len()).unwrap_or(need)
        };
        return now.quorum == quorum && now.standbys.iter().eq(able);
    }
    let new = able.filter(|dir| !now.standbys.contains(*dir)).count();
    now.standbys.len() + new < usize::from(need) || (new == 0 && now.quorum == need)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::failover::proof::seals_needed;

    fn set(bits: u8) -> BTreeSet<DirId> {
        (0..6)
            .filter(|i| bits >> i & 1 == 1)
            .map(|i| DirId(format!("d{i}")))
            .collect()
    }

    fn rule(bits: u8, quorum: u16) -> Rule {
        Rule {
            leader: Some(DirId("l".into())),
            standbys: set(bits),
            quorum,
        }
    }

    #[test]
    fn preferred_shrinks_even_to_none_and_quorum_does_not() {
        let now = rule(0b11, 1);
        assert_eq!(desired(&now, Durability::Preferred, 2, &set(0)), rule(0, 0));
        assert_eq!(desired(&now, Durability::Quorum, 2, &set(0)), now);
        assert_eq!(desired(&now, Durability::Quorum, 2, &set(0b10)), rule(0b10, 1));
    }

    proptest! {
        /// Never a rule that could not be met by its own members: `|S| >= q`.
        #[test]
        fn a_rule_has_members_enough(s in 0u8..64, q in 0u16..6, able in 0u8..64, copies in 1u16..7, d in 0usize..3) {
            let now = rule(s, q);
            prop_assume!(now.standbys.len() >= usize::from(q));
            let durability = [Durability::Quorum, Durability::Preferred, Durability::Async][d];
            let to = desired(&now, durability, copies, &set(able));
            prop_assert!(to.standbys.len() >= usize::from(to.quorum));
            let wide = widen(&now, &to);
            prop_assert!(wide.standbys.len() >= usize::from(wide.quorum));
        }

        /// What is asked without making a rule or a setting is what comparing with it would tell.
        #[test]
        fn asking_agrees_with_making(s in 0u8..64, q in 0u16..6, t in 0u8..64, able in 0u8..64, copies in 0u16..7, d in 0usize..3) {
            let durability = [Durability::Quorum, Durability::Preferred, Durability::Async][d];
            let able = set(able);
            let rules = [rule(s, q), desired(&rule(s, q), durability, copies, &able)];
            for now in &rules {
                let same = desired(now, durability, copies, &able) == *now;
                prop_assert_eq!(is_desired(now, durability, copies, able.iter()), same);
            }
            let settings = [SyncNames::Nobody, SyncNames::Alone, setting(&rule(t, q), durability, copies), setting(&rules[1], durability, copies)];
            for sync in settings {
                let same = setting(&rules[1], durability, copies) == sync;
                prop_assert_eq!(is_setting(&sync, &rules[1], durability, copies), same);
            }
        }

        /// Seals that prove under the wide rule meet every acknowledging set of both rules that it covers.
        #[test]
        fn the_wide_rule_covers_both(s in 1u8..64, t in 1u8..64, q in 1u16..6, r in 1u16..6, sealed in 0u8..64, acked in 0u8..64) {
            let (a, b) = (rule(s, q), rule(t, r));
            prop_assume!(a.standbys.len() >= usize::from(q) && b.standbys.len() >= usize::from(r));
            let wide = widen(&a, &b);
            let sealed: BTreeSet<_> = set(sealed).intersection(&wide.standbys).cloned().collect();
            for one in [&a, &b] {
                let acked: BTreeSet<_> = set(acked).intersection(&one.standbys).cloned().collect();
                if sealed.len() >= seals_needed(&wide) && acked.len() >= usize::from(one.quorum) {
                    prop_assert!(!sealed.is_disjoint(&acked));
                }
            }
        }
    }
}
