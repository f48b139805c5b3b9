//! Why the operator acts, waits or stays: the one wording for conditions, Events, logs and metrics.

use std::fmt;

use crate::failover::MemberName;
use crate::plan::{Reason, Severity};

/// A reason about a replica set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Everything is as wanted.
    AsWanted,
    /// The spec cannot be carried out.
    SpecRefused(String),
    /// Volumes or a record of a former object by this name are there, and nobody asked to adopt them.
    VolumesExist { volumes: Vec<MemberName> },
    /// The deletion policy was changed, or data was adopted under it.
    DeletionPolicy { data_goes: bool },
    /// The API server refuses to bring it into force.
    DeletionPolicyRefused { message: String },
    /// The record is for the first member to initialise.
    MakingRecord { first: MemberName },
    /// The record cannot be read: somebody wrote into it.
    RecordUnreadable,
    /// Members are being made.
    MakingMember { member: MemberName },
    /// The first member must be up before others are made.
    WaitsForFirst { member: MemberName, what: String },
    /// The first member's image tells the digest for the others.
    WaitsForImage { member: MemberName },
    /// A pod ended for good and is replaced.
    ReplacingPod { member: MemberName },
    /// A pod is being deleted.
    PodGoing { member: MemberName },
    /// A member is being removed by a scale-down.
    RemovingMember { member: MemberName, waits: &'static str },
    /// A restart or a new Pod for changed settings, one member at a time.
    Rolling { member: MemberName, because: String },
    /// A rolling change waits until all members are fit.
    RollingWaits { member: MemberName },
    /// Members are there, not all fit yet.
    WaitsForMembers { fit: usize, of: usize, what: String },
    /// The object is being deleted.
    Deleting,
}

impl Reason for Why {
    fn reason(&self) -> &'static str {
        match self {
            Why::AsWanted => "AsWanted",
            Why::SpecRefused(_) => "SpecRefused",
            Why::VolumesExist { .. } => "VolumesExist",
            Why::DeletionPolicy { .. } => "DeletionPolicyApplied",
            Why::DeletionPolicyRefused { .. } => "DeletionPolicyRefused",
            Why::MakingRecord { .. } => "MakingRecord",
            Why::RecordUnreadable => "RecordUnreadable",
            Why::MakingMember { .. } => "MakingMember",
            Why::WaitsForFirst { .. } => "WaitsForFirstMember",
            Why::WaitsForImage { .. } => "WaitsForImage",
            Why::ReplacingPod { .. } => "ReplacingPod",
            Why::PodGoing { .. } => "PodGoing",
            Why::RemovingMember { .. } => "RemovingMember",
            Why::Rolling { .. } => "Rolling",
            Why::RollingWaits { .. } => "RollingWaits",
            Why::WaitsForMembers { .. } => "WaitsForMembers",
            Why::Deleting => "Deleting",
        }
    }

    fn severity(&self) -> Severity {
        match self {
            Why::SpecRefused(_) | Why::VolumesExist { .. } | Why::RecordUnreadable => Severity::Warning,
            _ => Severity::Normal,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::AsWanted => f.write_str("every member is as wanted"),
            Why::SpecRefused(what) => f.write_str(what),
            Why::VolumesExist { volumes } => {
                f.write_str("data of a former HAReplicaSet by this name is there")?;
                for v in volumes {
                    write!(f, " {v}")?;
                }
                f.write_str("; set spec.bootstrap.adopt: true to take it over, or choose another name")
            }
            Why::DeletionPolicy { data_goes: true } => {
                f.write_str("volumes, record and Secrets go with this object from now on: deletionPolicy is Delete")
            }
            Why::DeletionPolicy { data_goes: false } => {
                f.write_str("volumes, record and Secrets stay when this object is deleted: deletionPolicy is Retain")
            }
            Why::DeletionPolicyRefused { message } => write!(
                f,
                "spec.deletionPolicy is not in force, see the objects' own owner references before this object is deleted: {message}"
            ),
            Why::MakingRecord { first } => write!(f, "{first} may make the first data directory"),
            Why::RecordUnreadable => f.write_str(
                "the authority record in the Lease cannot be read; restore the annotation holdfast.dev/record from an audit log or backup, Holdfast never guesses it",
            ),
            Why::MakingMember { member } => write!(f, "makes member {member}"),
            Why::WaitsForFirst { member, what } => write!(f, "waits for {member}: {what}"),
            Why::WaitsForImage { member } => write!(f, "waits for {member}'s image, whose digest the others will run"),
            Why::ReplacingPod { member } => write!(f, "replaces the ended pod of {member}"),
            Why::PodGoing { member } => write!(f, "waits for {member}'s pod to go"),
            Why::RemovingMember { member, waits } => write!(f, "removes {member}: {waits}"),
            Why::Rolling { member, because } => write!(f, "renews {member}: {because}"),
            Why::RollingWaits { member } => write!(f, "the rolling change waits until {member} is fit again"),
            Why::WaitsForMembers { fit, of, what } => write!(f, "{fit} of {of} members are fit; {what}"),
            Why::Deleting => f.write_str("being deleted"),
        }
    }
}
