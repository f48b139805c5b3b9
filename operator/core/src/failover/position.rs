//! Where a directory's log ends, and whether that is on another log's history.

use super::record::{Lsn, Position, Term};

/// The position of a standby whose log is flushed up to `flushed`.
///
/// `base` is where its log ended when it last began to follow a leader, `following` that leader's term, and `history` the
/// history of that term's timeline: each ancestor with the LSN at which it ended, oldest first. In this order:
///
/// 1. Nothing came since `base`: the last record is still `base`'s. To claim `following` before a record of it has arrived
///    would let a member with an old tail win over one that holds acknowledged commits.
/// 2. What came is covered by an ancestor's part of the history: that ancestor wrote it.
/// 3. Otherwise the leader that is followed wrote it. With no leader on file, claim no more than `base`'s term.
///
/// `led`: this directory was promoted to that term itself. Its own part of the log may lie below `base`, which may have ended in the midst
/// of a record, of which the promotion left nothing.
pub fn position(base: Position, following: Option<Term>, led: bool, history: &[(Term, Lsn)], flushed: Lsn) -> Position {
    let covering = history.iter().find(|(_, end)| flushed <= *end).map(|(term, _)| *term);
    if let (Some(leader), None, true) = (following.filter(|_| led), covering, !history.is_empty()) {
        return Position {
            term: leader,
            lsn: flushed,
        };
    }
    if flushed <= base.lsn {
        let term = if flushed == base.lsn {
            base.term
        } else {
            covering.map_or(base.term, |c| c.min(base.term))
        };
        return Position { term, lsn: flushed };
    }
    let term = match (covering, following) {
        (Some(ancestor), Some(leader)) => ancestor.min(leader),
        (None, Some(leader)) => leader,
        (_, None) => base.term,
    };
    Position { term, lsn: flushed }
}

/// Whether a log that ends at `at` is a prefix of the log of a leader in `term` with this `history`, so that it can follow
/// without a rewind. An empty log always is.
pub fn on_history(at: Position, term: Term, history: &[(Term, Lsn)]) -> bool {
    if at.lsn == Lsn(0) {
        return true;
    }
    if at.term == term {
        return true;
    }
    history
        .iter()
        .any(|(ancestor, end)| *ancestor == at.term && at.lsn <= *end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Position = Position {
        term: Term(1),
        lsn: Lsn(20),
    };

    #[test]
    fn a_member_claims_nothing_of_a_leader_before_its_first_record() {
        assert_eq!(
            position(BASE, Some(Term(2)), false, &[(Term(1), Lsn(18))], Lsn(20)).term,
            Term(1)
        );
    }

    #[test]
    fn what_an_ancestor_wrote_is_the_ancestors() {
        let history = [(Term(1), Lsn(30)), (Term(2), Lsn(40))];
        let term = |lsn| position(BASE, Some(Term(4)), false, &history, Lsn(lsn)).term;
        assert_eq!(
            [term(25), term(30), term(31), term(40), term(41)],
            [1, 1, 2, 2, 4].map(Term)
        );
    }

    #[test]
    fn a_leader_that_was_promoted_below_its_base_claims_what_it_wrote_since() {
        let history = [(Term(1), Lsn(15))];
        let term = |led, history, lsn| position(BASE, Some(Term(2)), led, history, Lsn(lsn)).term;
        assert_eq!(
            [14, 15, 16, 20, 30].map(|lsn| term(true, &history, lsn)),
            [1, 1, 2, 2, 2].map(Term)
        );
        assert_eq!(term(true, &[], 16), Term(1), "it was not promoted");
        assert_eq!(term(false, &history, 16), Term(1), "another was");
    }

    #[test]
    fn without_a_leader_on_file_no_more_than_the_base_is_claimed() {
        assert_eq!(position(BASE, None, false, &[], Lsn(99)).term, Term(1));
    }

    #[test]
    fn a_divergent_tail_is_not_on_the_history() {
        let history = [(Term(1), Lsn(30))];
        let at = |term, lsn| Position {
            term: Term(term),
            lsn: Lsn(lsn),
        };
        assert!(on_history(at(1, 30), Term(3), &history));
        assert!(!on_history(at(1, 31), Term(3), &history));
        assert!(!on_history(at(2, 10), Term(3), &history));
        assert!(on_history(at(3, 99), Term(3), &history));
    }
}
