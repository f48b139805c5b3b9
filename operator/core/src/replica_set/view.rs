//! One complete view of a replica set's objects, as observed.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::archive::Archiving;
use crate::failover::{DirId, Lsn, MemberName, Position, Record, Term};
use crate::instance::Role;

use super::plan::Plan;
use super::retention::Ties;

/// Everything that a decision needs.
#[derive(Clone, Debug, PartialEq)]
pub struct SetView {
    /// When it was observed.
    pub at: Timestamp,
    /// The object's name.
    pub name: String,
    /// The object's UID: what carries another one belongs to a former object by this name.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// Deletion was asked for.
    pub deleting: bool,
    /// What is wanted.
    pub plan: Plan,
    /// The image resolved to a digest, if some member has shown it.
    pub resolved_image: Option<String>,
    /// The authority record; `None` when there is no Lease.
    pub record: Option<RecordView>,
    /// Volumes by member.
    pub volumes: BTreeMap<MemberName, VolumeView>,
    /// Secrets that unlock data (the authority's, the application's), by name.
    pub secrets: BTreeMap<String, Ties>,
    /// Pods by member.
    pub pods: BTreeMap<MemberName, PodView>,
    /// Hash of the Pod template that is wanted now (image, resources, placement …).
    pub template: String,
    /// The request in force in the wish, if any.
    pub command: Option<crate::instance::Command>,
    /// Id of the last request by a person that was taken up.
    pub consumed_request: Option<String>,
    /// The API server has just refused to have data go with this object, or stay.
    pub ties_refused: bool,
}

/// The record and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordView {
    /// As read; `None` when the annotation is missing or not readable.
    pub record: Option<Record>,
    /// Whose the Lease is.
    pub ties: Ties,
}

/// A member's volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeView {
    /// Whose it is.
    pub ties: Ties,
    /// Deletion was asked for.
    pub deleting: bool,
    /// Bytes asked for in the claim.
    pub requested_bytes: u64,
}

/// A member's Pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodView {
    /// Its UID.
    pub uid: String,
    /// Deletion was asked for.
    pub deleting: bool,
    /// It ended for good (`Failed` or `Succeeded`: evicted, node shutdown): it will not come back by itself.
    pub ended: bool,
    /// The kubelet's readiness, which is the agent's word.
    pub ready: bool,
    /// Waits for a node, an image, a volume: why, as Kubernetes says it.
    pub waiting: Option<String>,
    /// Its address.
    pub ip: Option<String>,
    /// Its node.
    pub node: Option<String>,
    /// Hash of the template that it was made from.
    pub template: String,
    /// Digest form of the engine's image, as the kubelet says.
    pub image_id: Option<String>,
    /// What its agent says of itself; `None` when it has not spoken yet or speaks for a former Pod.
    pub seen: Option<MemberSeen>,
}

/// After this long without a word what a member said last is not believed any more: three of its reports did not come.
pub const SILENT: SignedDuration = SignedDuration::from_secs(90);

/// What an agent says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberSeen {
    /// When it wrote this, by its own clock: another report has another time.
    pub written: Timestamp,
    /// When this report was first seen, by the operator's clock.
    pub heard: Timestamp,
    /// Its role.
    pub role: Role,
    /// What its engine does, in a word for status.
    pub state: String,
    /// Reason (closed set).
    pub reason: String,
    /// For people.
    pub message: String,
    /// The term it knows.
    pub term: Term,
    /// Its directory.
    pub dir: Option<DirId>,
    /// End of its log.
    pub position: Position,
    /// Replayed.
    pub replayed: Lsn,
    /// Bytes behind the leader.
    pub lag_bytes: Option<u64>,
    /// The generation of the wish that it has taken up.
    pub generation: i64,
    /// Streaming and caught up, or serving.
    pub fit: bool,
    /// Parameters that wait for a restart.
    pub pending_restart: Vec<String>,
    /// Refused parameters, as sentences.
    pub rejected: Vec<String>,
    /// Engine version.
    pub version: Option<String>,
    /// How its archiving goes; `None` where it archives nothing, or has not looked yet.
    pub archiving: Option<Archiving>,
    /// Bytes free on its volume, and the volume's size.
    pub volume: Option<(u64, u64)>,
}

impl SetView {
    /// Names of the wanted members in order of their number.
    pub fn wanted(&self) -> Vec<MemberName> {
        (1..=self.plan.members).map(|n| member(&self.name, n)).collect()
    }

    /// Members that exist (a Pod, or a volume of this object) beyond the wanted ones, highest number first.
    pub fn surplus(&self) -> Vec<MemberName> {
        let wanted = self.wanted();
        let mut extra: Vec<MemberName> = self.pods.keys().filter(|m| !wanted.contains(m)).cloned().collect();
        extra.sort_by_key(|m| std::cmp::Reverse(number(&self.name, m)));
        extra
    }

    /// Since when a member that has spoken has been silent; `None` while what it said can be believed.
    pub fn silent_since(&self, pod: &PodView) -> Option<Timestamp> {
        let heard = pod.seen.as_ref()?.heard;
        (self.at.duration_since(heard) > SILENT).then_some(heard)
    }

    /// When the first of those that are not ready would have been silent for too long. A ready one's silence is seen at the next
    /// look: the kubelet hears it.
    pub fn next_silence(&self) -> Option<Timestamp> {
        let unready = self
            .pods
            .values()
            .filter(|p| !p.ready && self.silent_since(p).is_none());
        let heard = unready.filter_map(|p| p.seen.as_ref()).map(|s| s.heard).min()?;
        heard.checked_add(SILENT + SignedDuration::from_secs(1)).ok()
    }

    /// The record, if it can be read.
    pub fn authority(&self) -> Option<&Record> {
        self.record.as_ref().and_then(|r| r.record.as_ref())
    }
}

/// In words, to the second.
pub fn not_heard_since(heard: Timestamp) -> String {
    let second = Timestamp::from_second(heard.as_second()).unwrap_or(heard);
    format!("not heard of since {second}")
}

/// The n-th member's name.
pub fn member(set: &str, n: u16) -> MemberName {
    MemberName(format!("{set}-{n}"))
}

/// The number in a member's name; 0 when it has none.
pub fn number(set: &str, member: &MemberName) -> u16 {
    member
        .0
        .strip_prefix(set)
        .and_then(|r| r.strip_prefix('-'))
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}
