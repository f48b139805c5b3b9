//! The shape of every decision: stay, wait until an instant, or do these steps.
//!
//! Controllers are pipelines `observe → decide → act → report`. `decide` returns a [`Decision`]; a gate (update windows,
//! approvals) will later sit between it and `act`, and needs nothing but this value.

use std::fmt;

/// What to do now about one object, decided from one complete view of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<Step, Why> {
    /// Nothing to do until something changes.
    Stay(Why),
    /// Nothing to do before `until`. A controller may look again earlier: at an event, or because something runs out.
    Wait { until: jiff::Timestamp, why: Why },
    /// Do these steps, in this order, for this reason.
    Do { steps: Vec<Step>, why: Why },
}

impl<Step, Why> Decision<Step, Why> {
    /// The reason, whichever way the decision went.
    pub fn why(&self) -> &Why {
        match self {
            Decision::Stay(why) | Decision::Wait { why, .. } | Decision::Do { why, .. } => why,
        }
    }

    /// The steps to perform; none unless the decision is [`Decision::Do`].
    pub fn steps(&self) -> &[Step] {
        match self {
            Decision::Do { steps, .. } => steps,
            _ => &[],
        }
    }
}

/// How serious a reason is: whether its Event is `Normal` or `Warning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Expected in healthy operation.
    Normal,
    /// A person may have to act.
    Warning,
}

/// One vocabulary for people and machines: a typed reason becomes the condition's reason, the Event, the log field and
/// the metric label, with no second wording anywhere.
pub trait Reason: fmt::Display {
    /// CamelCase, at most 128 characters, from a closed set: safe as a metric label.
    fn reason(&self) -> &'static str;
    /// Whether a person may have to act.
    fn severity(&self) -> Severity {
        Severity::Normal
    }
}
