//! Conditions, merged without a clock: the transition time moves only when the status moves.
//!
//! kstatus-compatible: `Ready` for people, `Reconciling` and `Stalled` True only while it is so, else False or left out, as
//! <https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md> asks of custom resources.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::plan::Reason;

/// The condition's status: a fact, its negation, or not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// Seen to be so.
    True,
    /// Seen not to be so.
    False,
    /// Not seen; never guessed.
    Unknown,
}

impl Truth {
    /// As Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Truth::True => "True",
            Truth::False => "False",
            Truth::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Truth {
    fn from(b: bool) -> Self {
        if b { Truth::True } else { Truth::False }
    }
}

/// A condition as decided, before it meets the one already in status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Condition type, for example `Ready`.
    pub kind: &'static str,
    /// Its truth.
    pub truth: Truth,
    /// CamelCase reason.
    pub reason: &'static str,
    /// A sentence for people, with the next step where there is one. Cut at 1,024 bytes here (API limit: 32,768).
    pub message: String,
}

impl Wanted {
    /// A condition that takes its wording from a [`Reason`].
    pub fn because(kind: &'static str, truth: impl Into<Truth>, why: &impl Reason) -> Self {
        Wanted {
            kind,
            truth: truth.into(),
            reason: why.reason(),
            message: clip(why.to_string(), 1024),
        }
    }
}

/// Cuts a text at a character boundary, so that a hostile or huge input cannot fill a status or an Event.
pub fn clip(mut text: String, max_bytes: usize) -> String {
    if text.len() > max_bytes {
        let mut end = max_bytes.saturating_sub('…'.len_utf8());
        while end > 0 && !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Whether a condition is there and `True`.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    conditions
        .iter()
        .any(|c| c.type_ == kind && c.status == Truth::True.as_str())
}

/// Merges decided conditions into the ones in status. Types that are not in `wanted` are dropped (a closed set), and
/// `lastTransitionTime` changes only when the status does.
pub fn merge(old: &[Condition], wanted: &[Wanted], generation: Option<i64>, now: jiff::Timestamp) -> Vec<Condition> {
    wanted
        .iter()
        .map(|w| {
            let since = old
                .iter()
                .find(|o| o.type_ == w.kind && o.status == w.truth.as_str())
                .map_or(Time(now), |o| o.last_transition_time.clone());
            Condition {
                type_: w.kind.to_owned(),
                status: w.truth.as_str().to_owned(),
                reason: w.reason.to_owned(),
                message: w.message.clone(),
                last_transition_time: since,
                observed_generation: generation,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(truth: Truth) -> Wanted {
        Wanted {
            kind: "Ready",
            truth,
            reason: "X",
            message: String::new(),
        }
    }

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let t0 = jiff::Timestamp::UNIX_EPOCH;
        let t1 = t0 + jiff::SignedDuration::from_secs(60);
        let first = merge(&[], &[wanted(Truth::False)], Some(1), t0);
        let same = merge(&first, &[wanted(Truth::False)], Some(2), t1);
        assert_eq!(same[0].last_transition_time.0, t0);
        assert_eq!(same[0].observed_generation, Some(2));
        let moved = merge(&same, &[wanted(Truth::True)], Some(2), t1);
        assert_eq!(moved[0].last_transition_time.0, t1);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let cut = clip("é".repeat(100), 11);
        assert!(cut.len() <= 11 && cut.ends_with('…'), "{cut}");
    }
}
