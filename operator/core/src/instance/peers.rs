//! What this member has heard of the others.

use std::collections::BTreeMap;

use crate::failover::{DirId, Lsn, MemberName, Term};

use super::Moment;
use super::machine::Instance;
use super::message::{Heartbeat, Role};

/// More members than a set can have: whoever else sends is not listened to.
const MOST_PEERS: usize = 32;
/// Directories remembered by member, for messages to people.
const MOST_DIRS: usize = 64;

/// One peer.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Its last heartbeat.
    pub last: Heartbeat,
    /// When that came.
    pub heard: Moment,
    /// When its machine refused a connection, if nothing was heard of it since.
    pub refused: Option<Moment>,
    /// When it last said that it is a healthy leader or candidate, and of which term.
    pub led: Option<(Term, Moment)>,
}

/// All peers, and which member had which directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    pub of: BTreeMap<MemberName, Peer>,
    pub dirs: BTreeMap<DirId, MemberName>,
    /// The farthest that the leader of a term was heard to be, for `Async`'s bound.
    pub farthest: Option<(Term, Lsn)>,
    /// When that leader was last heard.
    pub farthest_at: Moment,
}

impl Instance {
    /// Every other member that should exist.
    pub(super) fn others(&self) -> Vec<MemberName> {
        let members = self.spec.iter().flat_map(|spec| &spec.members);
        members
            .map(|m| m.name.clone())
            .filter(|name| *name != self.me)
            .collect()
    }

    pub(super) fn on_heartbeat(&mut self, from: MemberName, beat: Heartbeat) {
        if self.peers.of.len() >= MOST_PEERS && !self.peers.of.contains_key(&from) {
            return;
        }
        self.called = self.called.max(beat.term);
        for dir in beat.dir.iter().chain(&beat.gone).chain(&beat.beside) {
            if self.peers.dirs.get(dir) == Some(&from) {
                continue;
            }
            if self.peers.dirs.len() >= MOST_DIRS && !self.peers.dirs.contains_key(dir) {
                self.peers.dirs.pop_first();
            }
            self.peers.dirs.insert(dir.clone(), from.clone());
        }
        let leads = beat.healthy && matches!(beat.role, Role::Leader | Role::Candidate | Role::Preparing);
        let before = self.peers.of.get(&from).and_then(|peer| peer.led);
        let led = if leads { Some((beat.term, self.now)) } else { before };
        if matches!(beat.role, Role::Leader) {
            let at = (beat.term, beat.position.lsn);
            self.peers.farthest_at = self.now;
            self.peers.farthest = Some(self.peers.farthest.map_or(at, |far| far.max(at)));
        }
        self.peers.of.insert(
            from,
            Peer {
                last: beat,
                heard: self.now,
                refused: None,
                led,
            },
        );
    }

    /// A peer's machine refuses connections: news of one that was heard just before, so that its address is known to be right.
    pub(super) fn on_refused(&mut self, by: &MemberName) {
        let (now, detect) = (self.now, self.timings.detect);
        if let Some(peer) = self.peers.of.get_mut(by).filter(|peer| now.since(peer.heard) <= detect) {
            peer.refused = peer.refused.or(Some(now));
        }
    }

    /// Whether a peer was heard lately.
    pub(super) fn live(&self, member: &MemberName) -> bool {
        let heard = self.peers.of.get(member).map(|peer| peer.heard);
        heard.is_some_and(|at| self.now.since(at) <= self.timings.live)
    }

    /// Whether a majority of members, this one included, was heard within `ms`.
    pub(super) fn majority_within(&self, ms: u64) -> bool {
        let half = self.spec.as_ref().map_or(0, |spec| spec.members.len()) / 2;
        self.heard_within(ms).nth(half).is_some()
    }

    /// Whether every other member was heard within `ms`.
    pub(super) fn everybody_within(&self, ms: u64) -> bool {
        let all = self.spec.as_ref().map_or(0, |spec| spec.members.len());
        self.heard_within(ms).count() == all
    }

    /// The members that were heard within `ms`, this one included.
    fn heard_within(&self, ms: u64) -> impl Iterator<Item = &MemberName> {
        let members = self.spec.iter().flat_map(|spec| &spec.members).map(|m| &m.name);
        let heard = move |name: &MemberName| {
            let peer = self.peers.of.get(name);
            peer.is_some_and(|peer| self.now.since(peer.heard) <= ms)
        };
        members.filter(move |name| **name == self.me || heard(name))
    }

    /// Where a member is reached: as it said itself, else as the operator saw it.
    pub(super) fn address(&self, member: &MemberName) -> Option<String> {
        self.address_of(member).map(str::to_owned)
    }

    /// The same, to look at.
    pub(super) fn address_of(&self, member: &MemberName) -> Option<&str> {
        let said = self.peers.of.get(member).and_then(|peer| peer.last.address.as_deref());
        let seen = self
            .spec
            .iter()
            .flat_map(|s| &s.members)
            .find(|m| m.name == *member)
            .and_then(|m| m.address.as_deref());
        if self.live(member) {
            said.or(seen)
        } else {
            seen.or(said)
        }
    }

    /// The member that has or had a directory; its own name if none is known.
    pub(super) fn member_of(&self, dir: &DirId) -> MemberName {
        self.known_member(dir)
            .cloned()
            .unwrap_or_else(|| MemberName(dir.0.clone()))
    }

    /// The same, to look at.
    pub(super) fn member_of_str<'a>(&'a self, dir: &'a DirId) -> &'a str {
        self.known_member(dir).map_or(&dir.0, |member| &member.0)
    }

    /// The member that has or had a directory.
    pub(super) fn known_member(&self, dir: &DirId) -> Option<&MemberName> {
        if self.disk.dir.as_ref() == Some(dir) {
            return Some(&self.me);
        }
        self.peers.dirs.get(dir)
    }
}
