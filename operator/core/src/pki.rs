//! When certificates are renewed, and how trust moves from one authority to the next without a moment of distrust.

use jiff::{SignedDuration, Timestamp};

/// The life of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// When it was issued. What it says itself is a little earlier, for clocks that are behind.
    pub issued: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
}

impl Validity {
    /// The instant at which `part` of `whole` parts of the lifetime are over.
    pub fn after(&self, part: i32, whole: i32) -> Timestamp {
        let lifetime = self.not_after.duration_since(self.issued);
        let share = SignedDuration::from_secs(lifetime.as_secs() / i64::from(whole.max(1)) * i64::from(part));
        self.issued.checked_add(share).unwrap_or(self.not_after)
    }
}

/// What is to be done about an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityStep {
    /// Nothing before this instant.
    Keep { until: Timestamp },
    /// Make a successor and let everybody trust both; issue from the present one.
    Announce,
    /// Everybody has trusted the successor for long enough: issue from it, and trust the old one until it ends.
    Switch,
}

/// The stage of an authority: its successor is announced at two thirds of its life and used when half of the time from then
/// to its end is over, which is at five sixths. The first half is for members to load a bundle that trusts both, the second to
/// load what the successor has issued; of an announcement that came late, because nobody was there to make it, each has
/// half of what is left.
pub fn authority(current: Validity, next: Option<Validity>, now: Timestamp) -> AuthorityStep {
    let Some(next) = next else {
        let until = current.after(4, 6);
        return if now >= until {
            AuthorityStep::Announce
        } else {
            AuthorityStep::Keep { until }
        };
    };
    let announced = Validity {
        issued: next.issued,
        ..current
    };
    let until = announced.after(1, 2);
    if now >= until {
        AuthorityStep::Switch
    } else {
        AuthorityStep::Keep { until }
    }
}

/// When a member's certificate is to be issued anew: `None` when now.
///
/// At two thirds of its life; at once when the authority issues no more by that name, or its host names are not as wanted.
pub fn renewal(leaf: Validity, issued_by_current: bool, names_as_wanted: bool, now: Timestamp) -> Option<Timestamp> {
    let due = leaf.after(2, 3);
    (issued_by_current && names_as_wanted && now < due).then_some(due)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * day)
    }

    const LIFE: fn() -> Validity = || Validity {
        issued: at(0),
        not_after: at(600),
    };

    #[test]
    fn trust_in_the_successor_comes_before_its_use() {
        assert_eq!(authority(LIFE(), None, at(399)), AuthorityStep::Keep { until: at(400) });
        assert_eq!(authority(LIFE(), None, at(400)), AuthorityStep::Announce);
        let next = Some(Validity {
            issued: at(400),
            not_after: at(1000),
        });
        assert_eq!(authority(LIFE(), next, at(499)), AuthorityStep::Keep { until: at(500) });
        assert_eq!(authority(LIFE(), next, at(500)), AuthorityStep::Switch);
    }

    #[test]
    fn a_successor_that_was_announced_late_is_not_used_at_once() {
        let next = |from: i64| {
            Some(Validity {
                issued: at(from),
                not_after: at(from + 600),
            })
        };
        let half = AuthorityStep::Keep { until: at(545) };
        assert_eq!(authority(LIFE(), next(490), at(500)), half);
        assert_eq!(authority(LIFE(), next(490), at(544)), half);
        assert_eq!(authority(LIFE(), next(490), at(545)), AuthorityStep::Switch);
        // After its end nobody trusts anybody any more.
        assert_eq!(authority(LIFE(), next(700), at(700)), AuthorityStep::Switch);
    }

    #[test]
    fn a_leaf_is_renewed_early_and_for_cause() {
        assert_eq!(renewal(LIFE(), true, true, at(399)), Some(at(400)));
        assert_eq!(renewal(LIFE(), true, true, at(400)), None);
        assert_eq!(renewal(LIFE(), false, true, at(1)), None);
        assert_eq!(renewal(LIFE(), true, false, at(1)), None);
    }
}
