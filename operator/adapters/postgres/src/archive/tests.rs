use std::os::unix::fs::symlink;

use super::*;

/// The archive of one set, and two data directories of the same database.
struct Place {
    dir: tempfile::TempDir,
    /// What reads segments that nothing follows.
    reader: PathBuf,
}

/// A segment of the database: so many pages, filled with one byte.
fn log(name: &str, fill: u8, pages: u64) -> Vec<u8> {
    let segment = Segment::named(name, pages * PAGE).unwrap();
    let mut content = Vec::new();
    for page in 0..pages {
        content.resize((page * PAGE) as usize, fill);
        content.extend([0x10, 0xd1, 0, 0]);
        content.extend(segment.timeline.0.to_le_bytes());
        content.extend((segment.begin.0 + page * PAGE).to_le_bytes());
        content.extend([0; 8]);
        if page == 0 {
            content.extend(IDENTIFIER.to_le_bytes());
            content.extend(u32::try_from(segment.size).unwrap().to_le_bytes());
            content.extend(u32::try_from(PAGE).unwrap().to_le_bytes());
        }
    }
    content.resize((pages * PAGE) as usize, fill);
    content
}

const PAGE: u64 = 8192;
const IDENTIFIER: u64 = 7_575_757_575_757_575_757;
const SEGMENT: &str = "0000000100000000000000A3";

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        for member in ["a-1", "a-2"] {
            std::fs::create_dir_all(dir.path().join(member).join("pg_wal/archive_status")).unwrap();
            std::fs::create_dir_all(dir.path().join(member).join("global")).unwrap();
            let mut control = IDENTIFIER.to_le_bytes().to_vec();
            control.extend([1; 100]);
            std::fs::write(dir.path().join(member).join("global/pg_control"), control).unwrap();
        }
        std::fs::create_dir(dir.path().join("archive")).unwrap();
        let mut place = Place {
            dir,
            reader: PathBuf::new(),
        };
        place.reader = place.program(
            "log ends",
            "echo 'pg_waldump: error: error in WAL record at 0/1: ...' >&2; exit 1",
        );
        place
    }

    fn wal(&self, member: &str, name: &str) -> PathBuf {
        self.dir.path().join(member).join("pg_wal").join(name)
    }

    /// After a segment the member's log goes on.
    fn push(&self, member: &str, name: &str, content: &[u8]) -> Result<Why> {
        let segment = Segment::named(name, content.len() as u64).filter(|s| !name.contains('.') && s.size > 0);
        let next = segment.and_then(|s| s.next(s.timeline));
        if let Some(next) = &next {
            std::fs::write(self.wal(member, next), log(next, 0, content.len() as u64 / PAGE)).unwrap();
        }
        let pushed = self.push_part(member, name, content);
        if let Some(next) = &next {
            std::fs::remove_file(self.wal(member, next)).unwrap();
        }
        pushed
    }

    /// No reader gets to the end of it.
    fn push_part(&self, member: &str, name: &str, content: &[u8]) -> Result<Why> {
        let from = self.wal(member, name);
        std::fs::write(&from, content).unwrap();
        self.push_from(member, name, from)
    }

    fn push_from(&self, member: &str, name: &str, from: PathBuf) -> Result<Why> {
        let push = Push {
            pgdata: self.dir.path().join(member),
            folder: self.dir.path().join("archive/ns.a"),
            member: member.into(),
            from,
            name: name.into(),
            reader: self.reader.clone(),
        };
        push.run().map(|pushed| pushed.why)
    }

    fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        path
    }

    fn archived(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join("archive/ns.a").join(IDENTIFIER.to_string());
        dir.join(name)
    }

    fn all(&self) -> Vec<String> {
        let all = std::fs::read_dir(self.archived("")).unwrap();
        let mut all: Vec<String> = all.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }
}

#[test]
fn the_command_is_one_process_whatever_its_words_are() {
    let archive = Archive {
        folder: "/arch ive/100%/it's.a".into(),
        program: "/bin/agent".into(),
    };
    assert_eq!(
        archive.command("a-1"),
        r#"exec '/bin/agent' wal-push '/arch ive/100%%/it'\''s.a' 'a-1' "%p" "%f""#
    );
}

#[test]
fn the_first_content_of_a_name_is_kept_and_the_same_counts_as_archived() {
    let place = Place::new();
    let first = log(SEGMENT, 1, 40);
    let second = [&first[..first.len() - 1], &[2]].concat();
    assert_eq!(place.push("a-1", SEGMENT, &first).unwrap(), Why::Archived);
    assert_eq!(place.push("a-1", SEGMENT, &first).unwrap(), Why::Archived);
    assert_eq!(place.push("a-2", SEGMENT, &first).unwrap(), Why::Archived);
    for other in [second, log(SEGMENT, 1, 39), log(SEGMENT, 1, 41)] {
        let why = place.push("a-2", SEGMENT, &other).unwrap_err().to_string();
        let there = place.archived(SEGMENT);
        assert!(
            why.contains(&*there.to_string_lossy()) && why.contains("move it out"),
            "{why}"
        );
        assert!(!why.contains('\n'), "one line: {why}");
        assert_eq!(std::fs::read(there).unwrap(), first);
    }
    assert_eq!(place.all(), [SEGMENT], "nothing unfinished is left");
}

/// A segment that was ended early is followed by zeros; a standby that did not get those has what was in the file before.
#[test]
fn what_follows_a_log_that_was_ended_early_is_the_same_on_all() {
    let mut place = Place::new();
    place.reader = "/bin/true".into();
    let mut zeros = log(SEGMENT, 1, 40);
    zeros[10 * PAGE as usize..].fill(0);
    let mut left = zeros.clone();
    left[11 * PAGE as usize..].copy_from_slice(&log("0000000100000000000000A2", 5, 40)[11 * PAGE as usize..]);
    assert_eq!(place.push_part("a-2", SEGMENT, &left).unwrap(), Why::Archived);
    assert_eq!(std::fs::read(place.archived(SEGMENT)).unwrap(), zeros);
    for content in [&zeros, &left] {
        assert_eq!(place.push_part("a-1", SEGMENT, content).unwrap(), Why::Archived);
    }
}

/// Of a record that is longer than a segment no reader finds both ends in it.
#[test]
fn a_segment_without_a_record_is_whole_if_all_its_pages_are_there() {
    let mut place = Place::new();
    place.reader = place.program(
        "no record",
        "echo 'pg_waldump: error: could not find a valid record after 0/1' >&2; exit 1",
    );
    let mut content = log(SEGMENT, 1, 40);
    assert_eq!(place.push_part("a-1", SEGMENT, &content).unwrap(), Why::Archived);
    let next = "0000000100000000000000A4";
    content = log(next, 1, 40);
    content[39 * PAGE as usize..].fill(0);
    place.push_part("a-1", next, &content).unwrap_err();
}

/// Its timeline ended in the next segment, which has another name since.
#[test]
fn a_log_goes_on_under_the_names_that_a_promotion_gives() {
    for name in ["0000000100000000000000A4.partial", "0000000300000000000000A4"] {
        let place = Place::new();
        let end = format!("1\t0/{:X}\tx\n", 0xA4 * 40 * PAGE + 500);
        std::fs::write(place.wal("a-1", "00000003.history"), end).unwrap();
        let content = log(SEGMENT, 1, 40);
        place.push_part("a-1", SEGMENT, &content).unwrap_err();
        std::fs::write(place.wal("a-1", name), log("0000000100000000000000A4", 1, 40)).unwrap();
        assert_eq!(
            place.push_part("a-1", SEGMENT, &content).unwrap(),
            Why::Archived,
            "{name}"
        );
    }
}

#[test]
fn what_is_no_segment_of_this_database_is_neither_pushed_nor_replaced() {
    let place = Place::new();
    let good = log(SEGMENT, 1, 40);
    let other = |at: usize| {
        let mut content = good.clone();
        content[at] ^= 1;
        content
    };
    // Its timeline, its place, its database, its size, that of its pages.
    let wrong = [
        other(4 + 1),
        other(8 + 3),
        other(24),
        other(33),
        other(36),
        vec![],
        vec![0; 40 * 8192],
    ];
    for content in &wrong {
        let why = place.push("a-1", SEGMENT, content).unwrap_err().to_string();
        assert!(why.contains("does not reach the file's end"), "{why}");
        assert!(!place.archived(SEGMENT).exists());
    }
    place.push("a-1", SEGMENT, &good).unwrap();
    for content in &wrong {
        assert_eq!(place.push("a-2", SEGMENT, content).unwrap(), Why::OtherAndTorn);
        assert_eq!(std::fs::read(place.archived(SEGMENT)).unwrap(), good);
    }
    // The first segment of a timeline begins with what its ancestor wrote.
    let younger = SEGMENT.replacen('1', "2", 1);
    assert_eq!(place.push("a-1", &younger, &good).unwrap(), Why::Archived);
}

#[test]
fn what_is_no_file_of_the_log_is_neither_pushed_nor_replaced() {
    let place = Place::new();
    let from = place.wal("a-1", SEGMENT);
    let segment = log(SEGMENT, 1, 1);
    std::fs::write(&from, &segment).unwrap();
    for name in ["postgresql.conf", "../../../escaped", "0000000100000000000000a3", ""] {
        let why = place.push_from("a-1", name, from.clone()).unwrap_err().to_string();
        assert!(why.contains(&format!("{name:?}")), "{why}");
    }
    assert!(!place.dir.path().join("archive/ns.a").exists());

    place.push("a-1", "00000002.history", b"1\t0/3000000\tx\n").unwrap();
    std::fs::create_dir(place.archived(SEGMENT)).unwrap();
    assert!(
        place
            .push("a-1", SEGMENT, &segment)
            .unwrap_err()
            .to_string()
            .contains("no file")
    );
    std::fs::remove_dir(place.archived(SEGMENT)).unwrap();
    let elsewhere = place.dir.path().join("elsewhere");
    for target in [&elsewhere, &from] {
        symlink(target, place.archived(SEGMENT)).unwrap();
        assert!(
            place
                .push("a-1", SEGMENT, &segment)
                .unwrap_err()
                .to_string()
                .contains("no file")
        );
        assert!(!elsewhere.exists());
        std::fs::remove_file(place.archived(SEGMENT)).unwrap();
    }
    assert_eq!(place.push("a-1", SEGMENT, &segment).unwrap(), Why::Archived);
}

#[test]
fn an_archive_that_is_not_mounted_is_not_made() {
    let place = Place::new();
    std::fs::remove_dir(place.dir.path().join("archive")).unwrap();
    let segment = log(SEGMENT, 1, 1);
    let why = place.push("a-1", SEGMENT, &segment).unwrap_err().to_string();
    assert!(
        why.contains("archive/ns.a") && !place.dir.path().join("archive").exists(),
        "{why}"
    );
}

#[test]
fn what_a_dead_push_left_is_replaced_by_its_member_only() {
    let place = Place::new();
    place.push("a-1", "00000002.history", b"1\t0/3000000\tx\n").unwrap();
    let left = |member: &str| place.archived(&format!(".{SEGMENT}.{member}"));
    let whole = log(SEGMENT, 1, 1);
    std::fs::write(left("a-1"), "half").unwrap();
    std::fs::write(left("a-2"), "being written").unwrap();
    assert_eq!(place.push("a-1", SEGMENT, &whole).unwrap(), Why::Archived);
    assert!(!left("a-1").exists());
    assert_eq!(std::fs::read(left("a-2")).unwrap(), b"being written");
    // It died after the link, before it removed the former name.
    std::fs::hard_link(place.archived(SEGMENT), left("a-1")).unwrap();
    assert_eq!(place.push("a-1", SEGMENT, &whole).unwrap(), Why::Archived);
    assert!(!left("a-1").exists());
    assert_eq!(std::fs::read(place.archived(SEGMENT)).unwrap(), whole);
}

#[test]
fn of_many_at_the_same_time_one_is_archived_and_the_others_hear_of_it() {
    let place = Place::new();
    for round in 0..20_u8 {
        let name = format!("0000000100000000000000{round:02X}");
        let (one, two) = std::thread::scope(|s| {
            let push = |member: &'static str, byte: u8| {
                let (place, name) = (&place, name.clone());
                s.spawn(move || place.push(member, &name, &log(&name, byte, 128)))
            };
            let (one, two) = (push("a-1", 1), push("a-2", 2));
            (one.join().unwrap(), two.join().unwrap())
        });
        let kept = std::fs::read(place.archived(&name)).unwrap();
        let winner = if one.is_ok() { 1 } else { 2 };
        assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
        assert!(kept == log(&name, winner, 128), "the winner's, whole");
    }
}

#[test]
fn a_history_comes_with_a_file_for_each_number_before_it() {
    let place = Place::new();
    // One that this member knows is put there as it is.
    std::fs::write(place.wal("a-1", "00000003.history"), "1\t0/2000000\tx\n").unwrap();
    std::fs::write(place.wal("a-1", "00000004.history"), "").unwrap();
    let five = b"1\t0/2000000\tx\n3\t0/3000000\tx\n";
    assert_eq!(place.push("a-1", "00000005.history", five).unwrap(), Why::Archived);
    let numbers = [
        "00000002.history",
        "00000003.history",
        "00000004.history",
        "00000005.history",
    ];
    assert_eq!(place.all(), numbers);
    let content = |name: &str| std::fs::read_to_string(place.archived(name)).unwrap();
    assert_eq!(
        (content("00000002.history"), content("00000004.history")),
        (String::new(), String::new())
    );
    assert_eq!(content("00000003.history"), "1\t0/2000000\tx\n");

    // Nobody followed it: it stays out, and holds nothing up.
    let late = place.push("a-2", "00000004.history", b"1\t0/2500000\tx\n").unwrap();
    assert_eq!((late, content("00000004.history")), (Why::NumberTaken, String::new()));
    // A standby got the number from its leader.
    assert_eq!(place.push("a-2", "00000003.history", b"").unwrap(), Why::KeepsANumber);
    assert_eq!(place.push("a-2", "00000006.history", b"").unwrap(), Why::KeepsANumber);
    assert_eq!(place.all(), numbers);
    let other = place.push("a-2", "00000005.history", b"1\t0/2600000\tx\n").unwrap_err();
    assert!(other.to_string().contains("other content"), "{other}");

    // The push that brought the history died before it had brought those before it.
    std::fs::remove_file(place.archived("00000002.history")).unwrap();
    assert_eq!(place.push("a-1", "00000005.history", five).unwrap(), Why::Archived);
    assert_eq!(place.all(), numbers);
}

/// Its own text has those of its ancestors: they are not empty because their member does not have them.
#[test]
fn a_history_comes_with_those_of_its_ancestors() {
    let place = Place::new();
    let three = "1\t0/2000000\tx\n";
    let five = format!("{three}\n3\t0/3000000\tx\n");
    // Of a would-be primary, which is no ancestor.
    std::fs::write(place.wal("a-1", "00000004.history"), "1\t0/2500000\ty\n").unwrap();
    place
        .push(
            "a-1",
            "00000007.history",
            format!("{five}\n5\t0/4000000\tx\n").as_bytes(),
        )
        .unwrap();
    let content = |n: u32| std::fs::read_to_string(place.archived(&format!("{n:08X}.history"))).unwrap();
    assert_eq!((content(3).as_str(), content(5)), (three, five.clone()));
    assert_eq!((content(2), content(6)), (String::new(), String::new()));
    assert_eq!(content(4), "1\t0/2500000\ty\n");
    assert_eq!(
        place.push("a-2", "00000005.history", five.as_bytes()).unwrap(),
        Why::Archived
    );
}

#[test]
fn a_part_of_a_segment_is_not_pushed_and_whole_ones_are_whatever_histories_say() {
    let mut place = Place::new();
    let pages = (1 << 20) / PAGE;
    std::fs::write(place.wal("a-1", "00000002.history"), "1\t0/350000\tx\n").unwrap();
    std::fs::write(place.wal("a-1", "00000003.history"), "").unwrap();
    let three = "000000010000000000000003";
    assert_eq!(
        place.push_part("a-1", three, &log(three, 7, pages)).unwrap(),
        Why::EndedWithin
    );
    for whole in ["000000010000000000000002", "000000020000000000000003", three] {
        let content = log(whole, 7, pages);
        assert_eq!(place.push("a-1", whole, &content).unwrap(), Why::Archived);
        // A part of the same name, on whom left the timeline there, changes nothing.
        let half = content.len() / 2;
        let part = [&content[..half], &vec![8; half][..]].concat();
        let why = if whole == three {
            Why::EndedWithin
        } else {
            Why::OtherAndTorn
        };
        assert_eq!(place.push_part("a-1", whole, &part).unwrap(), why);
        assert_eq!(std::fs::read(place.archived(whole)).unwrap(), content);
    }
    // Nothing says why it is a part; and the last segment of a log that does not go on yet is whole if it is read to its end.
    let four = log("000000020000000000000004", 7, pages);
    let push = |place: &Place| place.push_part("a-1", "000000020000000000000004", &four);
    assert!(push(&place).unwrap_err().to_string().contains("pg_waldump"));
    place.reader = place.dir.path().join("absent");
    assert!(push(&place).unwrap_err().to_string().contains("absent"));
    assert!(!place.archived("000000020000000000000004").exists());
    // It could not read the file, or was killed, which says nothing of the log.
    place.reader = "/bin/false".into();
    assert!(push(&place).unwrap_err().to_string().contains("exit status: 1"));
    place.reader = place.program("killed", "kill -9 $$");
    assert!(push(&place).unwrap_err().to_string().contains("signal"));
    place.reader = "/bin/true".into();
    assert_eq!(push(&place).unwrap(), Why::Archived);

    assert_eq!(
        place.push("a-1", "000000010000000000000004.partial", b"one").unwrap(),
        Why::Archived
    );
    let other = place.push("a-2", "000000010000000000000004.partial", b"two").unwrap();
    assert_eq!(other, Why::OtherPartial);
    assert_eq!(
        std::fs::read(place.archived("000000010000000000000004.partial")).unwrap(),
        b"one"
    );
}
