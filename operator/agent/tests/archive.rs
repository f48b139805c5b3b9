//! What real agents bring to a log archive while leaders come and go.

// A panic in a test's helper is the assertion, as in the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each test program uses its part")]
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_core::failover::Term;
use holdfast_postgres::{control, history};
use holdfast_wire::MemberState;
use support::Set;

const SEGMENT: u64 = 4 << 20;
const FULL: Duration = Duration::from_secs(90);

/// The agents of the test below run as this test, in processes of their own.
#[test]
fn agent_process() {
    support::agent_process();
}

/// Every file of the log in the archive, with its bytes.
fn archived(set: &Set) -> BTreeMap<String, Vec<u8>> {
    let list = |dir: &Path| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|e| e.path()).collect::<Vec<_>>()
    };
    let databases = list(&set.dir.path().join("archive/test.a"));
    let files = databases.iter().flat_map(|dir| list(dir));
    let named = files.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path));
    // Unfinished ones begin with a dot, and may be gone by now.
    let whole = named.filter(|(name, _)| !name.starts_with('.'));
    whole.map(|(name, path)| (name, std::fs::read(path).unwrap())).collect()
}

/// Fills some segments.
fn fill(set: &Set, round: usize) {
    let sql = format!("INSERT INTO t SELECT {round}, repeat(md5(n::text), 10) FROM generate_series(1, 30000) n");
    set.until("writes", Duration::from_secs(60), |s| s.sql(&sql).is_ok());
}

/// The names of the segments that a restore to the newest timeline reads, from the first that is there to the last: none may be missing.
fn needed(files: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let history = |(name, bytes): &(&String, &Vec<u8>)| name.ends_with(".history") && !bytes.is_empty();
    let (name, text) = files.iter().rfind(history).expect("a history");
    let newest = Term(u32::from_str_radix(&name[..8], 16).unwrap());
    let mut ends = history::parse(std::str::from_utf8(text).unwrap());
    let position = |name: &String| {
        let part = |at: usize| u64::from_str_radix(&name[at..at + 8], 16).unwrap();
        (part(8) << 32) + part(16) * SEGMENT
    };
    let segments = || files.keys().filter(|name| name.len() == 24);
    let last = segments()
        .filter(|s| s[..8] == name[..8])
        .map(position)
        .max()
        .expect("log of the newest timeline");
    ends.push((newest, holdfast_core::failover::Lsn(last + SEGMENT)));
    let mut from = segments().map(position).min().unwrap();
    let mut needed = Vec::new();
    for (term, end) in ends {
        // The segment in which a timeline ended is at the beginning of the next one.
        while from + SEGMENT <= end.0 {
            needed.push(control::segment_name(term, holdfast_core::failover::Lsn(from), SEGMENT).unwrap());
            from += SEGMENT;
        }
    }
    needed
}

#[test]
fn leaders_come_and_go_and_the_archive_has_no_hole_and_refuses_nothing() {
    let program = Path::new(env!("CARGO_BIN_EXE_holdfast-agent"));
    let mut set = Set::begin_archiving(3, 2, program);
    set.until("full", FULL, Set::led_by_all);
    set.until("a table", Duration::from_secs(60), |s| {
        s.sql("CREATE TABLE IF NOT EXISTS t (n int, v text)").is_ok()
    });
    let mut before = BTreeMap::new();
    for round in 0..6 {
        fill(&set, round);
        let leader = set.number(&set.record().leader);
        let term = set.record().term;
        match round % 3 {
            0 => set.kill_engine(leader),
            1 => {
                let to = (leader + 1) % 3;
                // The record may name a directory that is being replaced, and a switchover to that member is refused.
                set.until("the target streams", FULL, |s| {
                    s.status(to).is_some_and(|s| s.state == MemberState::Streaming)
                });
                // One that finds the leader busy is refused for good.
                set.until("switched over", FULL, |s| {
                    s.switch_over(to);
                    let begun = Instant::now();
                    while s.record().term == term && begun.elapsed() < Duration::from_secs(20) {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    s.record().term > term
                });
            }
            // Two at once: the next is killed as soon as it is about to lead.
            _ => {
                set.kill_agent(leader);
                set.kill_engine(leader);
                set.until("an election", FULL, |s| {
                    s.record().term > term && s.number(&s.record().leader) != leader
                });
                set.kill_engine(set.number(&set.record().leader));
                set.start_agent(leader);
            }
        }
        set.until("another term", FULL, |s| s.record().term > term);
        set.until("full again", FULL, Set::led_by_all);
        fill(&set, round);
        let now = archived(&set);
        for (name, bytes) in &before {
            assert!(now.get(name) == Some(bytes), "{name} has changed");
        }
        before = now;
    }
    let waits = |n: usize| {
        let status = set.member(n).join("volume/pgdata/pg_wal/archive_status");
        let names = std::fs::read_dir(status).unwrap().flatten().map(|e| e.file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".ready")).count()
    };
    // An archiver that has failed three times tries again after a minute.
    let long = Duration::from_secs(180);
    set.until("everything is archived", long, |_| (0..3).all(|n| waits(n) == 0));
    set.until("log of the newest timeline", long, |s| {
        let files = archived(s);
        let timeline = format!("{:08X}", s.record().term.0);
        let has = files.keys().any(|name| name.len() == 24 && name.starts_with(&timeline));
        if !has {
            fill(s, 6);
        }
        has && files.contains_key(&format!("{timeline}.history"))
    });
    let files = archived(&set);
    let needed = needed(&files);
    eprintln!(
        "  {} files, of them {} for the newest timeline, {}",
        files.len(),
        needed.len(),
        set.record().term
    );
    for name in &needed {
        assert!(files.contains_key(name), "{name} is missing of {:?}", files.keys());
    }
    for n in 0..3 {
        let log = std::fs::read_to_string(set.dir.path().join(format!("{}.log", set.names[n]))).unwrap();
        let other =
            |l: &&str| l.contains("is not archived") && (l.contains("other content") || l.contains("is no file"));
        let refused: Vec<&str> = log.lines().filter(other).collect();
        assert!(refused.is_empty(), "{refused:#?}");
    }
    set.until("the agents say so", Duration::from_secs(60), |s| {
        (0..3).all(|n| {
            s.status(n)
                .and_then(|s| s.archiving)
                .is_some_and(|a| a.failing.is_none())
        })
    });
}
