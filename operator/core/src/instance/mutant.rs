//! Deliberate protocol bugs. The simulator must find every one of them; without the feature `mutants` none can be set.

/// A rule of the protocol, taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// `|S| - q` seals prove.
    ProofOffByOne,
    /// Any directory's seal counts, member of S or not.
    StrangersCount,
    /// A clone keeps its member's identity.
    IdentityIsPod,
    /// Positions compare by LSN alone.
    LsnOnly,
    /// A candidate ignores who is ahead of it.
    ElectsBehind,
    /// A member claims the term it follows before a record of it has arrived.
    ClaimsFollowing,
    /// A member takes a candidate's log before that is promoted though its own ends earlier.
    AttachesBehind,
    /// Members whose logs end with part of a record come to a candidate before it is promoted.
    TakesTorn,
    /// One that leadership is handed to leads with the log that it has.
    TakesWhatItHas,
    /// A leader that was promoted below where its log ended before claims the old term for what it has written since.
    ForgetsItsFork,
    /// The seal is answered while the WAL receiver still runs.
    SealsWhileReceiving,
    /// The seal is durable, but not where the log ended when it was given.
    SealForgetsBase,
    /// A half-cloned or half-rewound directory seals.
    HalfSeals,
    /// A standby counts whose member has not said that it follows this term.
    CountsStrays,
    /// The elected leader is recorded as `Leading` without waiting for standbys.
    LeadsAtOnce,
    /// The promoting leader takes commits, acknowledged alone.
    ServesWhilePromoting,
    /// The new leader's rule replaces the old one when it starts promoting.
    ForgetsOldRule,
    /// The rule in the record is replaced at once, not widened.
    NarrowsAtOnce,
    /// The engine's setting changes before the record is widened.
    SetsBeforeWidening,
    /// The record is narrowed before the flush past the point.
    NarrowsBeforeFlush,
    /// Walsenders that count by the old setting go on.
    LeavesWalsenders,
    /// Only the walsenders that the last look showed are ended.
    EndsOnlySeen,
    /// Only the walsenders of members that leave are ended.
    EndsOnlyLeavers,
    /// A leader that restarts opens its gate at once.
    NoComeBackGate,
    /// A leader that learns of a newer term goes on.
    IgnoresNewerTerm,
    /// A leader that reaches nobody goes on.
    NoFence,
    /// A leader believes old watch events about its own record.
    BelievesHints,
    /// A conditional write without an answer counts as written.
    UnknownIsWritten,
    /// The rule changes while a write of the record is under way, or one without an answer may still arrive.
    TrustsUnsettledRecord,
    /// A gate opens by a flush that another rule asked for.
    BackedByAnyRule,
    /// A gate that was closed opens again without waiting for what became visible meanwhile.
    ReopensAtOnce,
    /// A rule change keeps the point that it took before the gate was closed.
    KeepsPoint,
    /// A directory that a person gave up counts as sealed, a leader's as one that proves.
    GivenUpCounts,
    /// A person's request to elect without proof holds whatever has happened since.
    AcceptsAnyVersion,
    /// A directory that a person gave up is rewound when it comes back.
    RewindsForsaken,
    /// Members rewind to a leader that is still promoting.
    RewindsWhilePromoting,
    /// While a rule is being changed the gate is opened whatever setting is in force.
    OpensWhileChanging,
    /// The gate is opened by the setting in force, whatever walsenders may count by since the engine's start.
    ForgetsViews,
    /// A directory that took log a moment ago, and may be about to be named, is removed at once.
    RemovesAtOnce,
    /// A directory that the rule names is removed before the copy that replaces it is whole.
    ClonesOverNamed,
    /// Of the commands that are done only the last is remembered.
    ForgetsCommands,
    /// A member that was rewound and is refused again is rewound again.
    RewindsForEver,
    /// The first member runs initdb again when its volume is empty.
    SecondInitdb,
    /// The record is read from a cache. (In the simulator's world.)
    ReadsCache,
    /// A seal is answered before it is on disk, and a record read at start is from a cache: either alone does no harm,
    /// since the other makes up for it. (In the simulator's world.)
    SealNotSynced,
    /// A gate is taken for closed as soon as that is asked for.
    GateNotWatched,
    /// `Async`: a leader that hears a majority goes on without the record.
    AsyncTrustsMajority,
    /// `Async`: elects without proof as soon as it is wished for, whatever the leader knows of that.
    AsyncByWish,
    /// `Async`: elects without waiting for the lease.
    AsyncWithoutLease,
    /// `Async`: a leader whose machine refuses connections is taken for dead.
    AsyncByRefusal,
    /// `Async`: elects however far behind.
    AsyncWithoutBound,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 51] = [
        Mutant::ProofOffByOne,
        Mutant::StrangersCount,
        Mutant::IdentityIsPod,
        Mutant::LsnOnly,
        Mutant::ElectsBehind,
        Mutant::ClaimsFollowing,
        Mutant::AttachesBehind,
        Mutant::TakesTorn,
        Mutant::TakesWhatItHas,
        Mutant::ForgetsItsFork,
        Mutant::SealsWhileReceiving,
        Mutant::SealForgetsBase,
        Mutant::HalfSeals,
        Mutant::CountsStrays,
        Mutant::LeadsAtOnce,
        Mutant::ServesWhilePromoting,
        Mutant::ForgetsOldRule,
        Mutant::NarrowsAtOnce,
        Mutant::SetsBeforeWidening,
        Mutant::NarrowsBeforeFlush,
        Mutant::LeavesWalsenders,
        Mutant::EndsOnlySeen,
        Mutant::EndsOnlyLeavers,
        Mutant::NoComeBackGate,
        Mutant::IgnoresNewerTerm,
        Mutant::NoFence,
        Mutant::BelievesHints,
        Mutant::UnknownIsWritten,
        Mutant::TrustsUnsettledRecord,
        Mutant::BackedByAnyRule,
        Mutant::ReopensAtOnce,
        Mutant::KeepsPoint,
        Mutant::GivenUpCounts,
        Mutant::AcceptsAnyVersion,
        Mutant::RewindsForsaken,
        Mutant::RewindsWhilePromoting,
        Mutant::OpensWhileChanging,
        Mutant::ForgetsViews,
        Mutant::RemovesAtOnce,
        Mutant::ClonesOverNamed,
        Mutant::ForgetsCommands,
        Mutant::RewindsForEver,
        Mutant::SecondInitdb,
        Mutant::ReadsCache,
        Mutant::SealNotSynced,
        Mutant::GateNotWatched,
        Mutant::AsyncTrustsMajority,
        Mutant::AsyncByWish,
        Mutant::AsyncWithoutLease,
        Mutant::AsyncByRefusal,
        Mutant::AsyncWithoutBound,
    ];
}

/// Which bug is in force: none, ever, without the feature `mutants`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mutation {
    #[cfg(feature = "mutants")]
    pub(super) is: Option<Mutant>,
}

impl Mutation {
    #[cfg(feature = "mutants")]
    pub(super) fn is(self, mutant: Mutant) -> bool {
        self.is == Some(mutant)
    }

    #[cfg(not(feature = "mutants"))]
    pub(super) fn is(self, _: Mutant) -> bool {
        false
    }
}
