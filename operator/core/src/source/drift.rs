//! How often what somebody changes is put back.

use jiff::{SignedDuration, Timestamp};

/// What is remembered about put-backs of one object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fight {
    count: u32,
    last: Option<Timestamp>,
}

/// Put-backs that come without a pause: a person's slip is undone at once, and the first repetitions too.
const FREE: u32 = 3;
/// The longest pause between two put-backs; after twice that without drift the fight is forgotten.
const LONGEST: SignedDuration = SignedDuration::from_mins(10);

impl Fight {
    /// When the next put-back may happen.
    pub fn next(&self) -> Timestamp {
        let Some(last) = self.last else { return Timestamp::MIN };
        let pause = match self.count.checked_sub(FREE) {
            None => SignedDuration::ZERO,
            Some(n) => SignedDuration::from_secs(1_i64 << (n + 2).min(20)).min(LONGEST),
        };
        last.checked_add(pause).unwrap_or(Timestamp::MAX)
    }

    /// Whether somebody keeps changing the object.
    pub fn is_on(&self) -> bool {
        self.count > FREE
    }

    /// A put-back happened.
    pub fn put_back(&mut self, now: Timestamp) {
        let over = self.last.is_none_or(|last| now.duration_since(last) > LONGEST * 2);
        self.count = if over { 1 } else { self.count.saturating_add(1) };
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_undone_at_once_and_fights_ever_more_slowly() {
        let at = |s| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(s);
        let mut fight = Fight::default();
        assert!(fight.next() <= at(0));
        for _ in 0..2 {
            fight.put_back(at(0));
            assert!(fight.next() <= at(0) && !fight.is_on());
        }
        fight.put_back(at(0));
        assert_eq!(fight.next(), at(4));
        for _ in 0..20 {
            fight.put_back(at(0));
        }
        assert_eq!(fight.next(), at(600), "writes are bounded by six an hour");
        fight.put_back(at(1_900));
        assert!(fight.next() <= at(1_900), "forgotten after peace");
    }
}
