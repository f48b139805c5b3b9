//! Logical subscribers: whom they must not run ahead of, and which of their slots a standby may not keep.

use std::collections::BTreeSet;

use crate::failover::{DirId, MemberName, Record, Rule};

use super::effect::Effect;
use super::event::PrimarySeen;
use super::machine::Instance;

/// A logical slot, as a standby's engine shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogicalSlot {
    /// Its name.
    pub name: String,
    /// Made with `failover = true`; never so before PostgreSQL 17.
    pub failover: bool,
    /// The engine itself copies it from the primary; never so before PostgreSQL 17.
    pub synced: bool,
}

/// The slots that a standby drops once it follows another; `led`: its directory was a primary's when its engine started.
///
/// 1. A copy that the engine keeps is the engine's.
/// 2. Any other that is made for failover is left from when this member led: nobody can make one on a standby. While it is
///    there the engine refuses to copy the primary's slot of that name, and with it all others.
/// 3. What else a former primary has holds log and rows for a subscriber that has gone elsewhere. On a standby that did not
///    lead, somebody made it there: it stays.
pub fn stale_slots(slots: &[LogicalSlot], led: bool) -> Vec<&str> {
    let stale = |slot: &&LogicalSlot| !slot.synced && (slot.failover || led);
    slots.iter().filter(stale).map(|slot| slot.name.as_str()).collect()
}

/// The standbys that can back a change before a subscriber gets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backers<'a> {
    /// Those that could acknowledge lately.
    pub able: Vec<&'a DirId>,
    /// Those of them that have flushed nearly all.
    pub near: Vec<&'a DirId>,
}

/// The members that must have flushed a change before a subscriber gets it, so that a failover never leaves a subscriber
/// with what the new primary does not have. PostgreSQL waits for *all* that are named, so no more are named than needed:
///
/// 1. A rule that asks for `q` standbys: any `q` of its S do, because each proof under the rule meets one of them. Those that
///    are named stay, if they are as fit as others; a standby that is away or far behind is replaced.
/// 2. Fewer than `q` are there: all of S. Commits wait for them, and subscribers do.
/// 3. A rule that asks for none: those that are there and near. It is the best that can be had without making anybody wait.
///
/// Asked at every look at the engine, so members are whatever `member_of` makes of a directory: their names, not copied.
pub fn backing<'a, M: Ord>(
    rule: &'a Rule,
    there: &Backers<'a>,
    member_of: impl Fn(&'a DirId) -> M,
    named: impl Fn(&M) -> bool,
) -> Vec<M> {
    if rule.quorum == 0 {
        return there.near.iter().copied().map(member_of).collect();
    }
    let members = |of: &[&'a DirId]| -> Vec<M> {
        let counted = of.iter().copied().filter(|dir| rule.standbys.contains(*dir));
        let mut members: Vec<M> = counted.map(&member_of).collect();
        members.sort_unstable();
        members.dedup();
        members
    };
    let (mut able, near) = (members(&there.able), members(&there.near));
    let need = usize::from(rule.quorum);
    if able.len() < need {
        return rule.standbys.iter().map(member_of).collect();
    }
    able.sort_by_key(|m| (!near.contains(m), !named(m)));
    able.truncate(need);
    able
}

impl Instance {
    /// Keeps subscribers behind the standbys of the rule; while the rule changes, behind those of both rules, so that what a
    /// subscriber got under the old one is known to be flushed by the new one's when the record is narrowed to it.
    pub(super) fn keep_subscribers(&mut self, record: &Record, seen: &PrimarySeen) {
        let Some(lead) = &self.lead else { return };
        let bound = self.spec.as_ref().map_or(0, |spec| spec.read_lag_bytes);
        let is_near = |dir: &&DirId| {
            let behind = |r: &super::ReplicaSeen| seen.flushed.0.saturating_sub(r.flushed.0);
            seen.replicas.iter().any(|r| r.dir == **dir && behind(r) <= bound)
        };
        let able: Vec<&DirId> = lead.able.keys().collect();
        let near = able.iter().copied().filter(is_near).collect();
        let there = Backers { able, near };
        let (rule, other) = match &self.change {
            Some(change) => (&change.from, Some(&change.to)),
            None => (&record.rule, None),
        };
        let named = |m: &&str| lead.backing.iter().flatten().any(|named| named.0 == **m);
        let member_of = |dir| self.member_of_str(dir);
        let mut wanted = backing(rule, &there, member_of, named);
        if let Some(other) = other {
            wanted.extend(backing(other, &there, member_of, named));
        }
        wanted.sort_unstable();
        wanted.dedup();
        let as_asked = |before: &BTreeSet<MemberName>| before.iter().map(|m| m.0.as_str()).eq(wanted.iter().copied());
        if lead.backing.as_ref().is_some_and(as_asked) {
            return;
        }
        let wanted: BTreeSet<MemberName> = wanted.into_iter().map(|m| MemberName(m.to_owned())).collect();
        if let Some(lead) = &mut self.lead {
            lead.backing = Some(wanted.clone());
            self.out.push(Effect::HoldSubscribers(wanted));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::failover::proof::seals_needed;

    fn dirs(bits: u8) -> BTreeSet<DirId> {
        let of = |i: u8| DirId(format!("d{i}"));
        (0..6).filter(|i| bits >> i & 1 == 1).map(of).collect()
    }

    fn member(dir: &DirId) -> MemberName {
        MemberName(dir.0.replace('d', "m"))
    }

    fn rule(bits: u8, quorum: u16) -> Rule {
        Rule {
            leader: Some(DirId("l".into())),
            standbys: dirs(bits),
            quorum,
        }
    }

    fn names(bits: u8) -> BTreeSet<MemberName> {
        dirs(bits).iter().map(member).collect()
    }

    fn there(able: u8, near: u8) -> (BTreeSet<DirId>, BTreeSet<DirId>) {
        (dirs(able), dirs(near & able))
    }

    fn backing(
        rule: &Rule,
        there: &(BTreeSet<DirId>, BTreeSet<DirId>),
        member_of: impl Fn(&DirId) -> MemberName,
        named: &BTreeSet<MemberName>,
    ) -> BTreeSet<MemberName> {
        let there = Backers {
            able: there.0.iter().collect(),
            near: there.1.iter().collect(),
        };
        let backing = super::backing(rule, &there, member_of, |m| named.contains(m));
        backing.into_iter().collect()
    }

    #[test]
    fn a_standby_that_is_away_or_slow_holds_nobody_back_while_another_is_there() {
        let both = backing(&rule(0b11, 1), &there(0b11, 0b11), member, &names(0b10));
        assert_eq!(both, names(0b10), "who is named stays");
        let away = backing(&rule(0b11, 1), &there(0b01, 0b01), member, &names(0b10));
        assert_eq!(away, names(0b01));
        let slow = backing(&rule(0b11, 1), &there(0b11, 0b01), member, &names(0b10));
        assert_eq!(slow, names(0b01));
    }

    #[test]
    fn where_commits_wait_subscribers_wait_and_where_nobody_is_asked_they_do_not() {
        let none = backing(&rule(0b11, 1), &there(0, 0), member, &names(0b10));
        assert_eq!(none, names(0b11));
        assert_eq!(backing(&rule(0, 0), &there(0, 0), member, &names(0b10)), names(0));
        assert_eq!(backing(&rule(0, 0), &there(0b11, 0b01), member, &names(0)), names(0b01));
    }

    #[test]
    fn a_former_primarys_slots_are_stale_and_the_engines_copies_and_a_replicas_own_are_not() {
        let slot = |name: &str, failover, synced| LogicalSlot {
            name: name.into(),
            failover,
            synced,
        };
        let all = [
            slot("copy", true, true),
            slot("left", true, false),
            slot("plain", false, false),
        ];
        assert_eq!(stale_slots(&all, false), ["left"]);
        assert_eq!(stale_slots(&all, true), ["left", "plain"]);
    }

    proptest! {
        /// Whoever is elected by a proof has met a member that has all that a subscriber got, if they have what is named.
        #[test]
        fn each_proof_meets_one_that_is_named(s in 1u8..64, q in 1u16..6, able in 0u8..64, near in 0u8..64, sealed in 0u8..64, before in 0u8..64) {
            let rule = rule(s, q);
            prop_assume!(rule.standbys.len() >= usize::from(q));
            let named = backing(&rule, &there(able, near), member, &names(before));
            prop_assert!(named.len() >= usize::from(q));
            let sealed: BTreeSet<DirId> = dirs(sealed).intersection(&rule.standbys).cloned().collect();
            if sealed.len() >= seals_needed(&rule) {
                prop_assert!(sealed.iter().any(|dir| named.contains(&member(dir))));
            }
        }
    }
}
