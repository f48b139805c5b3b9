//! When to ask the Git server again.

use jiff::{SignedDuration, Timestamp};

use super::Why;
use crate::plan::Decision;

/// What is known about earlier polls of one source.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// `spec.suspend`.
    pub suspended: bool,
    /// When the last poll ended; `None` before the first.
    pub last: Option<Timestamp>,
    /// A webhook or a changed spec asks for a poll at once.
    pub asked: bool,
    /// Polls that failed in a row.
    pub failures: u32,
    /// `spec.interval`.
    pub interval: SignedDuration,
    /// A number in [0, 1), drawn once per poll, that spreads sources over time.
    pub jitter: f64,
}

/// The one step that polling has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the server where the ref stands.
    Poll,
}

/// The shortest time between two polls, webhook or not: a stream of pushes must not become a stream of requests.
pub const FLOOR: SignedDuration = SignedDuration::from_secs(1);

/// 1. Suspended: never. 2. Never polled: now. 3. Asked: now, but no sooner than `FLOOR` after the last. 4. When due.
pub fn decide(view: &View, now: Timestamp) -> Decision<Step, Why> {
    if view.suspended {
        return Decision::Stay(Why::Suspended);
    }
    let Some(last) = view.last else {
        return Decision::Do {
            steps: vec![Step::Poll],
            why: Why::NotDue,
        };
    };
    let due = if view.asked {
        after(last, FLOOR)
    } else {
        after(last, pause(view))
    };
    if now >= due {
        Decision::Do {
            steps: vec![Step::Poll],
            why: Why::NotDue,
        }
    } else {
        Decision::Wait {
            until: due,
            why: Why::NotDue,
        }
    }
}

/// The pause after the last poll. After failures it starts at 2 s and doubles up to the interval, or a minute where the
/// interval is shorter: a source that fails must not press harder than one that works.
fn pause(view: &View) -> SignedDuration {
    let base = match view.failures {
        0 => view.interval,
        n => SignedDuration::from_secs(1_i64 << n.clamp(1, 12)).min(view.interval.max(SignedDuration::from_mins(1))),
    };
    // Up to 10 % later, never earlier: the interval is what people asked for at most.
    base + SignedDuration::try_from_secs_f64(base.as_secs_f64() * 0.1 * view.jitter.clamp(0.0, 1.0)).unwrap_or_default()
}

/// When a commit that was not taken is tried again, although it is the same: the cluster may have changed. Newer commits
/// do not wait for this. From 2 s, doubling to 5 minutes.
pub fn retry(last: Timestamp, failures: u32) -> Timestamp {
    after(
        last,
        SignedDuration::from_secs(1_i64 << failures.clamp(1, 12)).min(SignedDuration::from_mins(5)),
    )
}

/// The pause before a watch that failed so often in a row is begun again: from 1 s, doubling to a minute.
pub fn watch_pause(failures: u32) -> std::time::Duration {
    std::time::Duration::from_secs((1_u64 << failures.clamp(1, 8).saturating_sub(1)).min(60))
}

fn after(instant: Timestamp, pause: SignedDuration) -> Timestamp {
    instant.checked_add(pause).unwrap_or(Timestamp::MAX)
}

/// Reads a duration as the CRD allows it: `60s`, `5m`, `1h30m`.
pub fn duration(text: &str) -> Option<SignedDuration> {
    text.parse::<SignedDuration>().ok().filter(|d| d.is_positive())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View {
            suspended: false,
            last: Some(Timestamp::UNIX_EPOCH),
            asked: false,
            failures: 0,
            interval: SignedDuration::from_secs(60),
            jitter: 0.5,
        }
    }

    #[test]
    fn polls_when_due_asked_or_new_and_never_when_suspended() {
        let at = |s| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(s);
        assert!(matches!(decide(&view(), at(62)), Decision::Wait { until, .. } if until == at(63)));
        assert!(matches!(decide(&view(), at(63)), Decision::Do { .. }));
        assert!(matches!(
            decide(&View { asked: true, ..view() }, at(2)),
            Decision::Do { .. }
        ));
        assert!(matches!(
            decide(&View { asked: true, ..view() }, at(0)),
            Decision::Wait { .. }
        ));
        assert!(matches!(
            decide(&View { last: None, ..view() }, at(0)),
            Decision::Do { .. }
        ));
        assert_eq!(
            decide(
                &View {
                    suspended: true,
                    asked: true,
                    ..view()
                },
                at(99)
            ),
            Decision::Stay(Why::Suspended)
        );
    }

    #[test]
    fn failures_back_off() {
        let wait = |failures| {
            pause(&View {
                failures,
                jitter: 0.0,
                ..view()
            })
            .as_secs()
        };
        assert_eq!([1, 2, 3, 8, 9, 4_000_000].map(wait), [2, 4, 8, 60, 60, 60]);
        let tried = |failures| retry(Timestamp::UNIX_EPOCH, failures).as_second();
        assert_eq!([1, 2, 9, 99].map(tried), [2, 4, 300, 300]);
        let paused = |failures| watch_pause(failures).as_secs();
        assert_eq!([0, 1, 2, 6, 7, u32::MAX].map(paused), [1, 1, 2, 32, 60, 60]);
    }

    #[test]
    fn durations_are_read_as_the_crd_allows_them() {
        for (text, seconds) in [("60s", 60), ("5m", 300), ("1h30m", 5400), ("1h1m1s", 3661)] {
            assert_eq!(duration(text).map(|d| d.as_secs()), Some(seconds), "{text}");
        }
        assert_eq!(duration("0s"), None);
        assert_eq!(duration("soon"), None);
    }
}
