//! Every delay and deadline of the machine, in one place, each with its arithmetic. Milliseconds.

/// Timings of one member. All members of a set use the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timings {
    /// Between heartbeats to each peer.
    pub heartbeat: u64,
    /// A leader not heard (or heard as unhealthy) for this long is lost: four heartbeats, so that lost messages are not
    /// enough. With seal, promotion and traffic (below 1 s together) and a client that itself waits 1.5 s for an answer, a
    /// silent leader costs its clients less than 5 s.
    pub detect: u64,
    /// A standby not heard for this long leaves the rule, if the rule allows. As `detect`.
    pub standby_lost: u64,
    /// The n-th member waits n times this before it opens an election, so that two seldom do at once.
    pub stagger: u64,
    /// Neither the record nor enough members (a majority; in `Async` all) reached for this long: the leader stops its engine.
    pub fence: u64,
    /// `Async` only: after so long without a word from the leader its lease is taken to have run out: twice `fence` bears
    /// clocks that run apart by a third, and a slow stop.
    pub lease: u64,
    /// The record is read afresh this often while something is under way, such as an election.
    pub read_hurried: u64,
    /// The record is read afresh this often when all is quiet. Watches tell sooner.
    pub read_quiet: u64,
    /// The leader renews the record this often.
    pub renew: u64,
    /// A gate opens within this time of asking for the last write of the record: about what another member needs to be elected
    /// and serve (three writes of the record, a seal on disk and a promotion; 250 ms and more). Others may have begun to miss the
    /// leader long before that write, so `detect` is no bound.
    pub confirm: u64,
    /// A leader may be about to name a standby in its rule for so long after that last took log: until the walsender is found
    /// dead (`wal_sender_timeout`, 5 s), the standby is forgotten (`standby_lost`) and a write has its answer (1 s).
    pub naming: u64,
    /// Seal answers are repeated this often while an election is open.
    pub reseal: u64,
    /// A peer that answered within this time is counted as live for an election.
    pub live: u64,
    /// How long a switchover's old leader leaves the election to others.
    pub yield_to_target: u64,
    /// A switchover that has not stopped the old leader in this time is called off.
    pub switchover: u64,
    /// An engine that does not answer for this long is stopped and started again.
    pub silent: u64,
    /// A step between two events longer than this means that the machine was frozen.
    pub thaw: u64,
    /// SIGKILL this long after an immediate shutdown was asked for.
    pub kill_after: u64,
    /// While a member is not connected, its slot is asked for again this often.
    pub reslot: u64,
    /// A candidate whose proof is complete waits this long for the seals of the other standbys of the rule before it promotes, so that
    /// its first rule names them. They seal at the same time as it does; a rule without them costs a change, which takes longer.
    pub hope: u64,
    /// `Preferred`: a new leader waits this long for standbys before it serves with fewer.
    pub gather: u64,
    /// First pause of the heal ladder; doubles up to `backoff_max`.
    pub backoff: u64,
    /// Longest pause of the heal ladder.
    pub backoff_max: u64,
    /// Looking at the engine: quiet.
    pub look_quiet: u64,
    /// Looking at the engine: in a transition.
    pub look_hurried: u64,
}

impl Default for Timings {
    fn default() -> Timings {
        Timings {
            heartbeat: 500,
            detect: 2_000,
            standby_lost: 2_000,
            stagger: 100,
            fence: 5_000,
            lease: 10_000,
            read_hurried: 300,
            read_quiet: 5_000,
            renew: 5_000,
            confirm: 200,
            naming: 8_000,
            reseal: 500,
            live: 2_000,
            yield_to_target: 2_000,
            switchover: 10_000,
            silent: 10_000,
            thaw: 2_000,
            kill_after: 1_000,
            reslot: 2_000,
            hope: 150,
            gather: 3_000,
            backoff: 500,
            backoff_max: 30_000,
            look_quiet: 500,
            look_hurried: 20,
        }
    }
}
