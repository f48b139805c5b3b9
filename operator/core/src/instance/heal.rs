//! The heal ladder: restart, rewind, clone; with attempts and pauses.

use crate::failover::Term;

use super::effect::HowToStop;
use super::event::Work;
use super::machine::Instance;
use super::{Effect, Moment, Why};

/// Crashes of a standby's engine before it is rewound, and before it is cloned.
const CRASHES_TO_REWIND: u32 = 5;
const CRASHES_TO_CLONE: u32 = 7;
/// An engine that ran this long has recovered, in milliseconds.
const WELL_AFTER: u64 = 60_000;

/// A rung of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rung {
    Restart,
    Rewind,
    Clone,
}

/// Where a member stands on the ladder.
#[derive(Clone, Debug, Default)]
pub(super) struct Heal {
    /// Crashes and failed starts since it last ran well.
    pub crashes: u32,
    /// Failed works on the directory in a row.
    pub tries: u32,
    /// No next attempt before this.
    pub until: Option<Moment>,
    /// Since when the engine runs.
    pub runs_since: Option<Moment>,
    /// The term whose leader the directory is being copied from or rewound to.
    pub making: Option<Term>,
    /// The directory was made from this term's leader and is not consistent yet.
    pub fresh: Option<Term>,
    /// The directory was rewound to this term's leader.
    pub rewound: Option<Term>,
    /// The directory is to be rewound to this term's leader, and that has not begun.
    pub rewinds: Option<Term>,
    /// The engine is being brought down to give the directory up for this term's leader.
    pub retires: Option<Term>,
}

impl Heal {
    /// Whether the pause is over.
    pub fn ready(&self, now: Moment) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    /// What to try next with a standby that is down.
    pub fn rung(&self) -> Rung {
        match self.crashes {
            c if c >= CRASHES_TO_CLONE => Rung::Clone,
            c if c >= CRASHES_TO_REWIND => Rung::Rewind,
            _ => Rung::Restart,
        }
    }

    /// What was learned of a directory does not hold for the one that took its place.
    pub fn another_directory(&mut self) {
        self.crashes = 0;
        self.rewinds = None;
        self.rewound = None;
        self.fresh = None;
    }

    /// Nothing less than a clone will do.
    pub fn clone_next(&mut self) {
        self.crashes = CRASHES_TO_CLONE;
    }

    /// The engine answers.
    pub fn well(&mut self, now: Moment) {
        let since = *self.runs_since.get_or_insert(now);
        if now.since(since) >= WELL_AFTER {
            self.crashes = 0;
            self.tries = 0;
            self.rewound = None;
        }
    }
}

impl Instance {
    /// The engine ended by itself: first restart at once, then with pauses that double.
    pub(super) fn crashed(&mut self, what: &'static str, why: &str) {
        self.heal.runs_since = None;
        self.pause(self.heal.crashes);
        self.heal.crashes = self.heal.crashes.saturating_add(1);
        self.say(Why::WorkFailed {
            what,
            why: why.to_owned(),
        });
    }

    /// A work failed: tried again after a pause that doubles. A start that cannot succeed puts the member on the rung of the clone; a
    /// rewind marks its directory before it begins, so after one that failed nothing is left but a clone.
    pub(super) fn failed(&mut self, work: Work, why: &str, permanent: bool) {
        let what = match work {
            Work::Initdb => "initdb",
            Work::Clone => "clone",
            Work::Rewind => "rewind",
            Work::Promote => "promotion",
            Work::Start => "start",
            Work::Stop => "stop",
            Work::SetAside => "setting aside",
            Work::PutBack => "putting back what was set aside",
            Work::DropAside => "removing what was set aside",
            Work::Persist | Work::EndWalsenders | Work::Follow | Work::SetSync | Work::Gate | Work::Slots => {
                "engine call"
            }
        };
        self.heal.making = None;
        if work == Work::Start {
            self.heal.crashes = if permanent {
                CRASHES_TO_CLONE
            } else {
                self.heal.crashes.saturating_add(1)
            };
        }
        if matches!(work, Work::Clone | Work::Rewind | Work::Initdb) {
            self.heal.fresh = None;
        }
        self.pause(self.heal.tries.saturating_add(1));
        self.heal.tries = self.heal.tries.saturating_add(1);
        self.say(Why::WorkFailed {
            what,
            why: why.to_owned(),
        });
    }

    fn pause(&mut self, times: u32) {
        let doubled = self
            .timings
            .backoff
            .saturating_mul(1 << times.saturating_sub(1).min(10));
        let pause = if times == 0 {
            0
        } else {
            doubled.min(self.timings.backoff_max)
        };
        self.heal.until = Some(self.now.plus(pause));
    }

    /// An engine that has not answered for long is stopped, and started again.
    pub(super) fn heal_silent(&mut self) {
        let long = self
            .silent_since
            .is_some_and(|at| self.now.since(at) > self.timings.silent);
        if long && self.busy.is_none() {
            self.stop(HowToStop::Fence {
                kill_after_ms: self.timings.kill_after,
            });
        }
    }

    /// Tells people once.
    pub(super) fn say(&mut self, why: Why) {
        if self.said.as_ref() != Some(&why) {
            self.said = Some(why.clone());
            self.out.push(Effect::Say(why));
        }
    }
}
