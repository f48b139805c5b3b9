use super::*;

fn own(name: &str) -> Own {
    Own {
        file: name.parse().unwrap(),
        empty: false,
        whole: true,
        ended: false,
    }
}

const FOUND: [Found; 5] = [
    Found::Absent,
    Found::Same,
    Found::Empty,
    Found::Different,
    Found::NoFile,
];
const SEGMENT: &str = "0000000100000000000000A3";
const PARTIAL: &str = "0000000100000000000000A3.partial";
const BACKUP: &str = "0000000100000000000000A3.00000028.backup";
const HISTORY: &str = "00000005.history";

#[test]
fn only_what_postgresql_archives_has_a_name() {
    let kind = |name: &str| name.parse::<LogFile>().map(|f| f.kind);
    assert_eq!(kind(SEGMENT), Ok(Kind::Segment));
    assert_eq!(kind(PARTIAL), Ok(Kind::Partial));
    assert_eq!(kind(BACKUP), Ok(Kind::Backup));
    assert_eq!(kind("0000001F.history"), Ok(Kind::History(Term(31))));
    for name in [
        "",
        ".",
        "..",
        "../0000000100000000000000A3",
        "/0000000100000000000000A3",
        "0000000100000000000000a3",
        "0000000100000000000000A",
        "0000000100000000000000A3.",
        "0000000100000000000000A3.part",
        "0000000100000000000000A3.backup",
        "5.history",
        "00000005.history.new",
        "postgresql.conf",
    ] {
        let why = kind(name).unwrap_err();
        assert_eq!(why.reason(), "NoLogFile");
        assert!(why.to_string().contains(&format!("{name:?}")), "{why}");
    }
}

#[test]
fn what_is_free_is_taken_and_what_is_taken_is_never_changed() {
    for name in [SEGMENT, PARTIAL, BACKUP, HISTORY] {
        assert_eq!(decide(&own(name), Found::Absent), Verdict::Push, "{name}");
        assert_eq!(decide(&own(name), Found::Same), Verdict::Done(Why::Archived), "{name}");
        assert_eq!(
            decide(&own(name), Found::NoFile),
            Verdict::Refuse(Why::NoFile),
            "{name}"
        );
    }
    for name in [SEGMENT, BACKUP, HISTORY] {
        assert_eq!(decide(&own(name), Found::Different), Verdict::Refuse(Why::OtherContent));
    }
    assert_eq!(decide(&own(SEGMENT), Found::Empty), Verdict::Refuse(Why::OtherContent));
}

#[test]
fn what_no_restore_reads_holds_nothing_up() {
    assert_eq!(
        decide(&own(PARTIAL), Found::Different),
        Verdict::Done(Why::OtherPartial)
    );
    assert_eq!(decide(&own(HISTORY), Found::Empty), Verdict::Done(Why::NumberTaken));
    let keeps = Own {
        empty: true,
        ..own(HISTORY)
    };
    for found in FOUND {
        assert_eq!(decide(&keeps, found), Verdict::Done(Why::KeepsANumber));
    }
}

#[test]
fn a_part_of_a_segment_never_comes_into_the_archive() {
    let part = |ended| Own {
        whole: false,
        ended,
        ..own(SEGMENT)
    };
    for found in FOUND.into_iter().filter(|found| *found != Found::Same) {
        assert_eq!(decide(&part(true), found), Verdict::Done(Why::EndedWithin));
        let held_up_for_nothing = found == Found::Different;
        let torn = if held_up_for_nothing {
            Verdict::Done(Why::OtherAndTorn)
        } else {
            Verdict::Refuse(Why::Torn)
        };
        assert_eq!(decide(&part(false), found), torn);
    }
    for ended in [true, false] {
        let verdict = decide(&part(ended), Found::Same);
        assert_eq!(verdict, Verdict::Done(Why::Archived), "nothing to push");
    }
    let whole = Own {
        ended: true,
        ..own(SEGMENT)
    };
    assert_eq!(decide(&whole, Found::Absent), Verdict::Push);
    assert_eq!(decide(&whole, Found::Different), Verdict::Done(Why::EndedWithin));
    assert_eq!(decide(&whole, Found::NoFile), Verdict::Refuse(Why::NoFile));
}

#[test]
fn a_timeline_ended_where_a_later_one_says_so_or_does_not_name_it() {
    let (segment, other) = (Lsn(0x400_0000), Lsn(0x200_0000));
    let of = |timeline: u32, known: &[(u32, &[(u32, u64)])]| {
        let ancestors = |list: &[(u32, u64)]| list.iter().map(|(t, end)| (Term(*t), Lsn(*end))).collect();
        let known = known.iter().map(|(term, list)| (Term(*term), ancestors(list)));
        ended(Term(timeline), segment, &known.collect())
    };
    assert!(!of(1, &[]));
    assert!(of(1, &[(2, &[(1, segment.0 - 8)])]));
    assert!(of(1, &[(2, &[(1, other.0)])]), "it goes on where nobody followed");
    assert!(!of(1, &[(2, &[(1, segment.0)])]), "it went on in the next segment");
    assert!(of(4, &[(6, &[(1, other.0)])]), "no ancestor");
    assert!(
        !of(6, &[(4, &[(1, other.0)]), (6, &[(1, other.0)])]),
        "an older one says nothing"
    );
    // A would-be primary's beside the real one's.
    assert!(of(1, &[(4, &[(1, other.0)]), (6, &[(1, segment.0 + 8)])]));
}

#[test]
fn a_history_has_those_of_its_ancestors_in_it() {
    // As PostgreSQL 15 writes it.
    let (two, four): (&[u8], &[u8]) = (b"1\t0/2000000\tx y\n", b"1\t0/2000000\tx y\n\n2\t0/3000000\tz\n");
    let six = [four, b"\n4\t0/4000000\tno recovery target specified\n"].concat();
    assert_eq!(ancestor(&six, Term(4)), Some(four));
    assert_eq!(ancestor(&six, Term(2)), Some(two));
    assert_eq!(ancestor(four, Term(2)), Some(two));
    assert_eq!(ancestor(&six, Term(1)), Some(&b""[..]));
    for absent in [3, 5, 6, 0] {
        assert_eq!(ancestor(&six, Term(absent)), None, "{absent}");
    }
    assert_eq!(ancestor(b"", Term(1)), None);
    assert_eq!(ancestor(b"\xff\n \n# 2\n  2\tx", Term(2)), Some(&b"\xff\n \n# 2\n"[..]));
}

#[test]
fn a_history_brings_all_before_it_the_newest_first() {
    let names = |name: &str| -> Vec<String> { before(&name.parse().unwrap()).map(|f| f.name().to_owned()).collect() };
    assert_eq!(
        names(HISTORY),
        ["00000004.history", "00000003.history", "00000002.history"]
    );
    assert!(names("00000002.history").is_empty() && names(SEGMENT).is_empty());
}

#[test]
fn archiving_fails_while_the_last_word_is_a_failure_or_nothing_is_said_for_long() {
    let fine = Counts {
        archived: Some(5),
        failed: Some(("A".into(), 9)),
        waiting: 2,
        oldest: Some(("B".into(), 4)),
    };
    assert_eq!(failing(&fine), None);
    assert_eq!(failing(&Counts::default()), None, "nothing to archive yet");
    let failed = Counts {
        archived: Some(30),
        ..fine.clone()
    };
    assert_eq!(failing(&failed), Some("A"));
    let never = Counts {
        archived: None,
        ..fine.clone()
    };
    assert_eq!(failing(&never), Some("A"));
    let stuck = Counts {
        archived: None,
        failed: None,
        waiting: 1,
        oldest: Some(("B".into(), 61)),
    };
    assert_eq!(failing(&stuck), Some("B"));
    let behind = Counts {
        archived: Some(1),
        ..stuck
    };
    assert_eq!(failing(&behind), None, "it catches up");
}
