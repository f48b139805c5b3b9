use std::os::unix::fs::symlink;

use super::*;

/// The archive of one set, and two data directories of the same database.
struct Place {
    dir: tempfile::TempDir,
}

const IDENTIFIER: u64 = 7_575_757_575_757_575_757;
const SEGMENT: &str = "0000000100000000000000A3";

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        for member in ["a-1", "a-2"] {
            std::fs::create_dir_all(dir.path().join(member).join("pg_wal")).unwrap();
            std::fs::create_dir_all(dir.path().join(member).join("global")).unwrap();
            let mut control = IDENTIFIER.to_ne_bytes().to_vec();
            control.extend([1; 100]);
            std::fs::write(dir.path().join(member).join("global/pg_control"), control).unwrap();
        }
        std::fs::create_dir(dir.path().join("archive")).unwrap();
        Place { dir }
    }

    fn wal(&self, member: &str, name: &str) -> PathBuf {
        self.dir.path().join(member).join("pg_wal").join(name)
    }

    fn push(&self, member: &str, name: &str, content: &[u8]) -> Result<Why> {
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
        };
        push.run().map(|pushed| pushed.why)
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
    let (first, second) = (vec![1; 300_000], [vec![1; 299_999], vec![2]].concat());
    assert_eq!(place.push("a-1", SEGMENT, &first).unwrap(), Why::Archived);
    assert_eq!(place.push("a-1", SEGMENT, &first).unwrap(), Why::Archived);
    assert_eq!(place.push("a-2", SEGMENT, &first).unwrap(), Why::Archived);
    for other in [second, vec![1; 299_999], vec![1; 300_001], vec![]] {
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

#[test]
fn what_is_no_file_of_the_log_is_neither_pushed_nor_replaced() {
    let place = Place::new();
    let from = place.wal("a-1", SEGMENT);
    std::fs::write(&from, "log").unwrap();
    for name in ["postgresql.conf", "../../../escaped", "0000000100000000000000a3", ""] {
        let why = place.push_from("a-1", name, from.clone()).unwrap_err().to_string();
        assert!(why.contains(&format!("{name:?}")), "{why}");
    }
    assert!(!place.dir.path().join("archive/ns.a").exists());

    place.push("a-1", "00000002.history", b"1\t0/3000000\tx\n").unwrap();
    std::fs::create_dir(place.archived(SEGMENT)).unwrap();
    assert!(
        place
            .push("a-1", SEGMENT, b"log")
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
                .push("a-1", SEGMENT, b"log")
                .unwrap_err()
                .to_string()
                .contains("no file")
        );
        assert!(!elsewhere.exists());
        std::fs::remove_file(place.archived(SEGMENT)).unwrap();
    }
    assert_eq!(place.push("a-1", SEGMENT, b"log").unwrap(), Why::Archived);
}

#[test]
fn an_archive_that_is_not_mounted_is_not_made() {
    let place = Place::new();
    std::fs::remove_dir(place.dir.path().join("archive")).unwrap();
    let why = place.push("a-1", SEGMENT, b"log").unwrap_err().to_string();
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
    std::fs::write(left("a-1"), "half").unwrap();
    std::fs::write(left("a-2"), "being written").unwrap();
    assert_eq!(place.push("a-1", SEGMENT, b"whole").unwrap(), Why::Archived);
    assert!(!left("a-1").exists());
    assert_eq!(std::fs::read(left("a-2")).unwrap(), b"being written");
    // It died after the link, before it removed the former name.
    std::fs::hard_link(place.archived(SEGMENT), left("a-1")).unwrap();
    assert_eq!(place.push("a-1", SEGMENT, b"whole").unwrap(), Why::Archived);
    assert!(!left("a-1").exists());
    assert_eq!(std::fs::read(place.archived(SEGMENT)).unwrap(), b"whole");
}

#[test]
fn of_many_at_the_same_time_one_is_archived_and_the_others_hear_of_it() {
    let place = Place::new();
    for round in 0..20_u8 {
        let name = format!("0000000100000000000000{round:02X}");
        let (one, two) = std::thread::scope(|s| {
            let push = |member: &'static str, byte: u8| {
                let (place, name) = (&place, name.clone());
                s.spawn(move || place.push(member, &name, &vec![byte; 1 << 20]))
            };
            let (one, two) = (push("a-1", 1), push("a-2", 2));
            (one.join().unwrap(), two.join().unwrap())
        });
        let kept = std::fs::read(place.archived(&name)).unwrap();
        let winner = if one.is_ok() { 1 } else { 2 };
        assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
        assert!(kept == vec![winner; 1 << 20], "the winner's, whole");
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

#[test]
fn the_segment_in_which_a_timeline_ended_is_not_pushed_and_others_of_it_are() {
    let place = Place::new();
    let segment = vec![7; 1 << 20];
    std::fs::write(place.wal("a-1", "00000002.history"), "1\t0/350000\tx\n").unwrap();
    std::fs::write(place.wal("a-1", "00000003.history"), "").unwrap();
    let push = |name: &str| place.push("a-1", name, &segment).unwrap();
    assert_eq!(push("000000010000000000000003"), Why::EndedWithin);
    assert_eq!(push("000000010000000000000002"), Why::Archived);
    assert_eq!(push("000000020000000000000003"), Why::Archived);
    // A member's own unfollowed timeline is not the newest that it knows once it follows another.
    std::fs::write(place.wal("a-1", "00000004.history"), "1\t0/250000\tx\n").unwrap();
    assert_eq!(push("000000010000000000000003"), Why::Archived);
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
