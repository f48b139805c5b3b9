//! What must hold of every history.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::{Attempt, Outcome, Row};

/// A promise broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Acknowledged, but not there.
    Lost { row: Row, member: String, term: u32 },
    /// Refused, but there.
    Resurrected { row: Row },
    /// There, but nobody wrote it.
    Invented { row: Row },
    /// There twice.
    Doubled { row: Row },
    /// A client that waits for each answer finds a later row without an earlier acknowledged one before it in the log.
    OutOfOrder { earlier: Row, later: Row },
    /// A member acknowledged a row that was sent after a newer term's leader had acknowledged one.
    Overlap {
        old_member: String,
        old_term: u32,
        new_member: String,
        new_term: u32,
        by_us: u64,
    },
    /// Two members acknowledged in one term.
    TwoLeaders { term: u32, members: BTreeSet<String> },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Lost { row, member, term } => write!(
                f,
                "row {} of client {} was acknowledged by {member} in term {term} and is lost",
                row.number, row.client
            ),
            Violation::Resurrected { row } => {
                write!(
                    f,
                    "row {} of client {} was refused and is there",
                    row.number, row.client
                )
            }
            Violation::Invented { row } => write!(f, "row {} of client {} was never written", row.number, row.client),
            Violation::Doubled { row } => write!(f, "row {} of client {} is there twice", row.number, row.client),
            Violation::OutOfOrder { earlier, later } => write!(
                f,
                "client {}: row {} comes before row {} that was acknowledged earlier",
                later.client, later.number, earlier.number
            ),
            Violation::Overlap {
                old_member,
                old_term,
                new_member,
                new_term,
                by_us,
            } => write!(
                f,
                "{old_member} (term {old_term}) acknowledged a row sent {by_us} µs after {new_member} (term {new_term}) had acknowledged one"
            ),
            Violation::TwoLeaders { term, members } => {
                write!(f, "in term {term} more than one member acknowledged: {members:?}")
            }
        }
    }
}

/// Compares what clients were told with what is there. `rows` are read back in the order in which they were committed.
/// Every violation is returned; none means that the history keeps the promises.
pub fn judge(attempts: &[Attempt], rows: &[Row]) -> Vec<Violation> {
    let mut found = presence(attempts, rows);
    found.extend(order(attempts, rows));
    found.extend(leaders(attempts));
    found.extend(overlap(attempts));
    found
}

fn row(attempt: &Attempt) -> Row {
    Row {
        client: attempt.client,
        number: attempt.number,
    }
}

fn presence(attempts: &[Attempt], rows: &[Row]) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for r in rows {
        if !seen.insert(*r) {
            found.push(Violation::Doubled { row: *r });
        }
    }
    let mut written = BTreeSet::new();
    for attempt in attempts {
        let r = row(attempt);
        written.insert(r);
        match &attempt.outcome {
            Outcome::Acknowledged { member, term } if !seen.contains(&r) => {
                found.push(Violation::Lost {
                    row: r,
                    member: member.clone(),
                    term: *term,
                });
            }
            Outcome::Refused if seen.contains(&r) => found.push(Violation::Resurrected { row: r }),
            _ => {}
        }
    }
    found.extend(seen.difference(&written).map(|r| Violation::Invented { row: *r }));
    found
}

/// A client sends row n+1 only after it was told about row n, so acknowledged rows are in the log in the client's order.
fn order(attempts: &[Attempt], rows: &[Row]) -> Vec<Violation> {
    let place: BTreeMap<Row, usize> = rows.iter().enumerate().map(|(i, r)| (*r, i)).collect();
    let mut last: BTreeMap<u32, (usize, Row)> = BTreeMap::new();
    let mut mine: Vec<&Attempt> = attempts
        .iter()
        .filter(|a| matches!(a.outcome, Outcome::Acknowledged { .. }))
        .collect();
    mine.sort_by_key(|a| (a.client, a.number));
    let mut found = Vec::new();
    for attempt in mine {
        let r = row(attempt);
        let Some(at) = place.get(&r) else { continue };
        if let Some((before, earlier)) = last.get(&r.client)
            && before > at
        {
            found.push(Violation::OutOfOrder {
                earlier: *earlier,
                later: r,
            });
        }
        last.insert(r.client, (*at, r));
    }
    found
}

fn leaders(attempts: &[Attempt]) -> Vec<Violation> {
    let mut by_term: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for attempt in attempts {
        if let Outcome::Acknowledged { member, term } = &attempt.outcome {
            by_term.entry(*term).or_default().insert(member.clone());
        }
    }
    by_term
        .into_iter()
        .filter(|(_, members)| members.len() > 1)
        .map(|(term, members)| Violation::TwoLeaders { term, members })
        .collect()
}

/// Once a newer term has acknowledged anything, nothing *sent* later may be acknowledged by an older one. (A row sent before
/// may be acknowledged late: its answer can have been on its way.)
fn overlap(attempts: &[Attempt]) -> Vec<Violation> {
    // The first acknowledgement of each term: the instant from which every older term must be silent to new rows.
    let mut first: BTreeMap<u32, (u64, &str)> = BTreeMap::new();
    for attempt in attempts {
        if let Outcome::Acknowledged { member, term } = &attempt.outcome {
            let entry = first.entry(*term).or_insert((attempt.ended, member));
            if attempt.ended < entry.0 {
                *entry = (attempt.ended, member);
            }
        }
    }
    let mut found = Vec::new();
    for attempt in attempts {
        let Outcome::Acknowledged { member, term } = &attempt.outcome else {
            continue;
        };
        let newer = first
            .range(term.saturating_add(1)..)
            .find(|(_, (since, _))| attempt.sent > *since);
        if let Some((new_term, (since, new_member))) = newer {
            found.push(Violation::Overlap {
                old_member: member.clone(),
                old_term: *term,
                new_member: (*new_member).to_owned(),
                new_term: *new_term,
                by_us: attempt.sent - since,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(client: u32, number: u64, sent: u64, member: &str, term: u32) -> Attempt {
        Attempt {
            client,
            number,
            sent,
            ended: sent + 5,
            outcome: Outcome::Acknowledged {
                member: member.into(),
                term,
            },
        }
    }

    fn rows(list: &[(u32, u64)]) -> Vec<Row> {
        list.iter()
            .map(|(client, number)| Row {
                client: *client,
                number: *number,
            })
            .collect()
    }

    #[test]
    fn a_history_that_keeps_its_promises_is_clean() {
        let unknown = Attempt {
            outcome: Outcome::Unknown,
            ..ack(1, 2, 20, "a", 1)
        };
        let refused = Attempt {
            outcome: Outcome::Refused,
            ..ack(1, 3, 30, "a", 1)
        };
        let history = [ack(1, 1, 10, "a", 1), unknown, refused, ack(1, 4, 40, "b", 2)];
        assert_eq!(judge(&history, &rows(&[(1, 1), (1, 4)])), []);
        assert_eq!(
            judge(&history, &rows(&[(1, 1), (1, 2), (1, 4)])),
            [],
            "unknown may be there"
        );
    }

    #[test]
    fn each_broken_promise_is_found() {
        let history = [ack(1, 1, 10, "a", 1), ack(1, 2, 20, "a", 1)];
        assert!(matches!(
            judge(&history, &rows(&[(1, 1)]))[..],
            [Violation::Lost {
                row: Row { number: 2, .. },
                ..
            }]
        ));
        assert!(matches!(
            judge(&history, &rows(&[(1, 2), (1, 1)]))[..],
            [Violation::OutOfOrder { .. }]
        ));
        assert!(matches!(
            judge(&history, &rows(&[(1, 1), (1, 2), (1, 2)]))[..],
            [Violation::Doubled { .. }]
        ));
        assert!(matches!(
            judge(&history, &rows(&[(1, 1), (1, 2), (9, 9)]))[..],
            [Violation::Invented { .. }]
        ));
        let refused = [Attempt {
            outcome: Outcome::Refused,
            ..ack(1, 1, 10, "a", 1)
        }];
        assert!(matches!(
            judge(&refused, &rows(&[(1, 1)]))[..],
            [Violation::Resurrected { .. }]
        ));
    }

    #[test]
    fn an_old_leader_that_still_acknowledges_is_found() {
        let late_answer = [
            ack(1, 1, 100, "b", 2),
            Attempt {
                ended: 200,
                ..ack(2, 1, 90, "a", 1)
            },
        ];
        assert_eq!(
            judge(&late_answer, &rows(&[(1, 1), (2, 1)])),
            [],
            "sent before the new leader acknowledged"
        );
        let split = [ack(1, 1, 100, "b", 2), ack(2, 1, 150, "a", 1)];
        let found = judge(&split, &rows(&[(1, 1), (2, 1)]));
        assert!(matches!(found[..], [Violation::Overlap { by_us: 45, .. }]), "{found:?}");
        let two = [ack(1, 1, 100, "b", 2), ack(2, 1, 150, "a", 2)];
        assert!(matches!(
            judge(&two, &rows(&[(1, 1), (2, 1)]))[..],
            [Violation::TwoLeaders { .. }]
        ));
    }
}
