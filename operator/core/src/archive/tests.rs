use super::*;

fn own(name: &str) -> Own {
    Own {
        file: name.parse().unwrap(),
        empty: false,
        ended: false,
    }
}

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
    let ended = Own {
        ended: true,
        ..own(SEGMENT)
    };
    let keeps = Own {
        empty: true,
        ..own(HISTORY)
    };
    for found in [
        Found::Absent,
        Found::Same,
        Found::Empty,
        Found::Different,
        Found::NoFile,
    ] {
        assert_eq!(decide(&ended, found), Verdict::Done(Why::EndedWithin));
        assert_eq!(decide(&keeps, found), Verdict::Done(Why::KeepsANumber));
    }
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
