//! The authority record and its vocabulary.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A leadership term: grows by one with each election, never goes back.
///
/// A term *is* the PostgreSQL timeline of what its leader writes: before promoting, a member occupies the timeline
/// numbers up to `term - 1` with empty history files, so that `pg_promote` takes exactly `term`. Two would-be leaders can
/// therefore never write different content under one timeline. The first term, and `initdb`'s timeline, is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub u32);

impl Term {
    /// The term after this one; stays at the largest when the 4 billion terms are used up (the election then fails its
    /// conditional write, because terms must grow).
    pub fn next(self) -> Term {
        Term(self.0.saturating_add(1))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A byte position in the write-ahead log, as PostgreSQL's `pg_lsn`: written `16/B374D848`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Not of the form `16/B374D848`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a log position: expected two hexadecimal numbers such as 16/B374D848")]
pub struct BadLsn(pub String);

impl FromStr for Lsn {
    type Err = BadLsn;

    fn from_str(s: &str) -> Result<Self, BadLsn> {
        let bad = || BadLsn(s.chars().take(64).collect());
        let (hi, lo) = s.split_once('/').ok_or_else(bad)?;
        let hi = u32::from_str_radix(hi, 16).map_err(|_| bad())?;
        let lo = u32::from_str_radix(lo, 16).map_err(|_| bad())?;
        Ok(Lsn((u64::from(hi) << 32) | u64::from(lo)))
    }
}

impl Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A member's name: its Pod's and its PersistentVolumeClaim's name, for example `registry-2`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberName(pub String);

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one data directory: made once at `initdb` or clone and kept beside the data. A lost disk comes back with another
/// one, as a stranger that no rule counts. Also the standby's `application_name`, so at most 63 bytes of `[a-z0-9_]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DirId(pub String);

impl fmt::Display for DirId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a data directory's log ends: compared by term of the last record first, LSN second, never by LSN alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The term (= timeline) that wrote the last record.
    pub term: Term,
    /// The end of what is flushed to disk.
    pub lsn: Lsn,
}

/// When a commit is acknowledged: the `leader` and `quorum` members of `standbys` have flushed it.
///
/// Directories are named, not pods. An empty set with quorum 0 acknowledges alone (`Async`, one member, or bootstrap).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The leader's directory that this rule belongs to; `None` only before the first `initdb`.
    pub leader: Option<DirId>,
    /// S: the directories that may acknowledge.
    pub standbys: BTreeSet<DirId>,
    /// q: how many of them must have flushed a commit.
    pub quorum: u16,
}

/// Where leadership stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// An election is open: members of older terms are dead, seals are being collected.
    Sealing,
    /// `leader` is elected and promoting (or, in the first term, initialising). Nothing can be acknowledged.
    Promoting,
    /// `leader` serves, and `rule` is in force.
    Leading,
}

/// How many commands are remembered as done beside the last one. A member that is so many commands behind has not heard of
/// its set for long, and hears of the newest first when it does.
pub const COMMANDS_KEPT: usize = 8;

/// The authority record: the one linearizable register of a replica set, kept as JSON in an annotation of its `Lease` and
/// changed only by resourceVersion-conditional replace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The term in force.
    pub term: Term,
    /// What is going on in it.
    pub phase: Phase,
    /// Who leads or is about to; in `Sealing`, who opened the election or, in a switchover, its target: among equally
    /// advanced members this one is elected.
    pub leader: MemberName,
    /// The rule that the acknowledged commits of the last `Leading` phase obeyed. In `Sealing` and `Promoting` it is still
    /// the old leader's rule: what must be proved.
    pub rule: Rule,
    /// PostgreSQL's system identifier, once `initdb` has run: a volume with another one is never served from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<u64>,
    /// The id of the last command that a change of this record carried out (switchover, failover accepting loss).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_command: Option<String>,
    /// The ids of those before it, oldest first, as many as [`COMMANDS_KEPT`]. Members hear of a command each in their own
    /// time: one that still knows an older command than the last must not carry it out again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier_commands: Vec<String>,
    /// Directories that a person has given up, in `Sealing` and `Promoting`: what only they hold need not be proved. Written
    /// on the very version of the record that the person saw, and gone once somebody leads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<DirId>,
    /// The leader takes `Async` for its wish, and gives up when it does not hear everybody. Only while this is so may an election
    /// do without proof: members hear of a changed wish each in their own time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asynchronous: bool,
    /// The directories that were given up in the last election that somebody won without proof. One that comes back with
    /// commits of its own is set aside: it may be the only copy of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forsaken: Vec<DirId>,
    /// In `Promoting`, where the leader of before has handed over without an election: where its log ends, by its clean stop. That proves
    /// whatever `rule` acknowledged, for one whose own log ends there; anybody else who is named here has to elect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed: Option<Position>,
}

impl Record {
    /// The record that the operator creates for a new replica set: `first` may run `initdb`, once, and nobody else ever.
    /// Bootstrap is a promotion whose old rule acknowledged nothing.
    pub fn bootstrap(first: MemberName) -> Record {
        Record {
            term: Term(1),
            phase: Phase::Promoting,
            leader: first,
            rule: Rule::default(),
            system_identifier: None,
            last_command: None,
            earlier_commands: Vec::new(),
            given_up: Vec::new(),
            asynchronous: false,
            forsaken: Vec::new(),
            handed: None,
        }
    }

    /// Whether its leader acknowledges alone, in `Async`: no other member needs to have what it acknowledged.
    pub fn acknowledges_alone(&self) -> bool {
        self.asynchronous && self.rule.quorum == 0
    }

    /// Whether a change of this record has carried the command out.
    pub fn has_done(&self, id: &str) -> bool {
        self.last_command
            .iter()
            .chain(&self.earlier_commands)
            .any(|done| done == id)
    }

    /// This record, once a command, if any, is carried out.
    pub fn having_done(mut self, id: Option<String>) -> Record {
        if id.is_some() && id != self.last_command {
            self.earlier_commands
                .extend(std::mem::replace(&mut self.last_command, id));
            let surplus = self.earlier_commands.len().saturating_sub(COMMANDS_KEPT);
            self.earlier_commands.drain(..surplus);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_reads_what_it_prints() {
        let lsn: Lsn = "16/B374D848".parse().unwrap();
        assert_eq!(lsn, Lsn(0x16_B374_D848));
        assert_eq!(lsn.to_string(), "16/B374D848");
        assert!("16".parse::<Lsn>().is_err() && "x/1".parse::<Lsn>().is_err() && "1/1FFFFFFFF".parse::<Lsn>().is_err());
    }

    #[test]
    fn commands_done_are_remembered_up_to_a_number() {
        let mut record = Record::bootstrap(MemberName("m".into()));
        for n in 0..20 {
            record = record.having_done(Some(n.to_string())).having_done(None);
            assert_eq!(record.last_command, Some(n.to_string()));
        }
        let known: Vec<u32> = (0..20).filter(|n| record.has_done(&n.to_string())).collect();
        assert_eq!(known, (11..20).collect::<Vec<_>>());
        assert_eq!(record.clone().having_done(Some("19".into())), record);
    }

    #[test]
    fn positions_compare_by_term_before_lsn() {
        let old_but_long = Position {
            term: Term(3),
            lsn: Lsn(900),
        };
        let new_but_short = Position {
            term: Term(4),
            lsn: Lsn(100),
        };
        assert!(new_but_short > old_but_long);
    }

    #[test]
    fn record_json_is_stable() {
        let json = serde_json::to_string(&Record::bootstrap(MemberName("a-1".into()))).unwrap();
        assert_eq!(
            json,
            r#"{"term":1,"phase":"Promoting","leader":"a-1","rule":{"leader":null,"standbys":[],"quorum":0}}"#
        );
    }
}
