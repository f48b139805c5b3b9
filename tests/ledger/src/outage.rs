//! The outage that users see: the time between the last acknowledgement before a fault and the first after it.

use crate::{Attempt, Outcome};

/// A time without any acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// The last acknowledgement before it (µs).
    pub from: u64,
    /// The first after it (µs).
    pub until: u64,
}

impl Outage {
    /// How long it was (µs).
    pub fn length(&self) -> u64 {
        self.until.saturating_sub(self.from)
    }
}

/// Every time of at least `floor_us` in which no client was acknowledged anything, in order.
pub fn outages(attempts: &[Attempt], floor_us: u64) -> Vec<Outage> {
    let mut acks: Vec<u64> = attempts
        .iter()
        .filter(|a| matches!(a.outcome, Outcome::Acknowledged { .. }))
        .map(|a| a.ended)
        .collect();
    acks.sort_unstable();
    acks.iter()
        .zip(acks.iter().skip(1))
        .map(|(from, until)| Outage {
            from: *from,
            until: *until,
        })
        .filter(|o| o.length() >= floor_us)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_between_acknowledgements_of_anybody() {
        let ack = |client, ended| Attempt {
            client,
            number: ended,
            sent: 0,
            ended,
            outcome: Outcome::Acknowledged {
                member: "a".into(),
                term: 1,
            },
        };
        let history = [
            ack(1, 10),
            ack(2, 20),
            ack(1, 520),
            Attempt {
                outcome: Outcome::Unknown,
                ..ack(2, 300)
            },
        ];
        assert_eq!(outages(&history, 100), [Outage { from: 20, until: 520 }]);
    }
}
