//! The log archive, with real engines, real log and this program as `archive_command`.

// A panic in a test's helper is the assertion, as in the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each test program uses its part")]
mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use holdfast_core::archive::{Archiving, Why};
use holdfast_core::failover::{Lsn, MemberName, Term};
use holdfast_core::instance::{Engine, HowToStop, StartAs, SyncNames};
use holdfast_postgres::Archive;
use support::{Member, Set, unprivileged, until};

/// The environment variable that makes this program a push: its words, one a line.
const PUSH: &str = "HOLDFAST_TEST_PUSH";
const FENCE: HowToStop = HowToStop::Fence { kill_after_ms: 1000 };
const PATIENCE: Duration = Duration::from_secs(30);

/// Not a test, but the archive command of the others.
#[test]
fn push_process() {
    let Ok(words) = std::env::var(PUSH) else { return };
    let words: Vec<&str> = words.lines().collect();
    let archived = holdfast_postgres::archive::wal_push(words[0], words[1], words[2], words[3]);
    std::process::exit(i32::from(!archived));
}

/// A set whose log goes to a folder.
fn with_archive(members: &[&str]) -> Set {
    let mut set = Set::new(members);
    let program = set.dir.path().join("agent");
    let me = std::env::current_exe().unwrap();
    let lines = "\"$2\n$3\n$4\n$5\"";
    let text = format!(
        "#!/bin/sh\n{PUSH}={lines} exec '{}' push_process --exact --nocapture\n",
        me.display()
    );
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir(set.dir.path().join("archive")).unwrap();
    set.archive = Some(Archive {
        folder: set.dir.path().join("archive/test.a"),
        program,
    });
    set
}

/// Every whole file in the archive of the set's one database. Unfinished ones begin with a dot, and come and go.
fn files(set: &Set) -> BTreeMap<String, Vec<u8>> {
    let folder = &set.archive.as_ref().unwrap().folder;
    let databases: Vec<PathBuf> = list(folder);
    assert!(databases.len() < 2, "{databases:?}");
    let files = databases.iter().flat_map(|dir| list(dir));
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let whole = files.filter(|path| !name(path).starts_with('.'));
    whole
        .filter_map(|path| Some((name(&path), std::fs::read(&path).ok()?)))
        .collect()
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries.map(|e| e.unwrap().path()).collect()
}

async fn execute(member: &Member, sql: &str) {
    let session = member.pg.session("test", Duration::from_secs(5)).await.unwrap();
    session.batch_execute(sql).await.unwrap();
}

/// Writes rows, ends the segment that they are in, and gives its name.
async fn segment(member: &Member, rows: &str) -> String {
    execute(member, &format!("INSERT INTO public.t SELECT {rows}")).await;
    let name = member.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())").await;
    execute(member, "SELECT pg_switch_wal()").await;
    name.unwrap().remove(0)
}

async fn primary(set: &Set, n: usize) -> Member {
    let mut member = set.member(n).await;
    member.pg.initdb().await.unwrap();
    member.know(1).await;
    start(&mut member).await;
    execute(&member, "CREATE TABLE public.t (n int)").await;
    member
}

async fn start(member: &mut Member) {
    member
        .pg
        .start(StartAs::Primary { sync: SyncNames::Alone })
        .await
        .unwrap();
    member.until("a primary", |e| matches!(e, Engine::Primary(_))).await;
}

async fn standby(set: &Set, n: usize, of: &Member, term: u32) -> Member {
    let mut member = set.member(n).await;
    member.pg.clone_from(&of.upstream(term)).await.unwrap();
    follow(&mut member, of, term).await;
    member
}

async fn follow(member: &mut Member, of: &Member, term: u32) {
    member.know(term).await;
    let upstream = Some(of.upstream(term));
    member.pg.start(StartAs::Standby { upstream }).await.unwrap();
    member
        .until("streaming", |e| matches!(e, Engine::Standby(s) if s.receiving))
        .await;
}

/// Copies a running member's data directory, as PostgreSQL's manual has it.
async fn base_backup(member: &Member, to: &Path) {
    let session = member.pg.session("test", Duration::from_secs(5)).await.unwrap();
    session
        .batch_execute("SELECT pg_backup_start('test', true)")
        .await
        .unwrap();
    // Files that go meanwhile are no loss.
    Command::new("cp")
        .arg("-a")
        .args([&member.pgdata(), to])
        .output()
        .unwrap();
    let label = session
        .query_one("SELECT labelfile FROM pg_backup_stop(false)", &[])
        .await;
    std::fs::write(to.join("backup_label"), label.unwrap().get::<_, String>(0)).unwrap();
}

/// Stops the receiver; where the log ends.
async fn sealed(member: &mut Member) -> Lsn {
    member.pg.follow(None).await.unwrap();
    match member
        .until("sealed", |e| matches!(e, Engine::Standby(s) if !s.receiving))
        .await
    {
        Engine::Standby(seen) => seen.flushed,
        other => panic!("{other:?}"),
    }
}

/// What the archiver tells, and how many files wait for it.
async fn told(member: &Member) -> Vec<String> {
    let sql = "SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver UNION ALL \
               SELECT coalesce(last_failed_wal, '') FROM pg_stat_archiver UNION ALL \
               SELECT count(*)::text FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'";
    member.sql(sql).await.unwrap()
}

/// What the agent sees of it.
async fn archiving(member: &mut Member) -> Archiving {
    member.seen.observe().await;
    member.seen.look_at_archiving().await;
    member.seen.archiving.clone().unwrap()
}

#[test]
fn a_push_that_is_killed_at_any_moment_leaves_nothing_or_all() {
    let set = with_archive(&["a-1"]);
    let archive = set.archive.as_ref().unwrap();
    let pgdata = set.dir.path().join("pgdata");
    for folder in ["global", "pg_wal/archive_status"] {
        std::fs::create_dir_all(pgdata.join(folder)).unwrap();
    }
    std::fs::write(pgdata.join("global/pg_control"), [7; 512]).unwrap();
    let name = |n: u32| format!("0000000100000000{n:08X}");
    let body: Vec<u8> = (0..4_u32 << 20).map(|n| n.to_le_bytes()[(n % 3) as usize]).collect();
    // The headers of pages, as far as they are looked at.
    let content = |n: u32| {
        let mut content = body.clone();
        for (page, begin) in (u64::from(n) << 22..).step_by(8192).zip(content.chunks_mut(8192)) {
            begin[4..8].copy_from_slice(&1_u32.to_le_bytes());
            begin[8..16].copy_from_slice(&page.to_le_bytes());
        }
        content[24..32].copy_from_slice(&[7; 8]);
        content[32..36].copy_from_slice(&(4_u32 << 20).to_le_bytes());
        content[36..40].copy_from_slice(&8192_u32.to_le_bytes());
        content
    };
    let push = |n: u32| {
        let mut command = Command::new(&archive.program);
        command.arg("wal-push").arg(&archive.folder);
        command
            .args(["a-1", &format!("pg_wal/{}", name(n)), &name(n)])
            .current_dir(&pgdata);
        command.stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    const PUSHES: u32 = 40;
    for n in 0..=PUSHES + 1 {
        std::fs::write(pgdata.join("pg_wal").join(name(n)), content(n)).unwrap();
    }
    let begun = Instant::now();
    assert!(push(PUSHES).wait().unwrap().success());
    let whole = begun.elapsed();
    for n in 0..PUSHES {
        let mut push = push(n);
        std::thread::sleep(whole * n / PUSHES);
        push.kill().unwrap();
        push.wait().unwrap();
    }
    let there = files(&set);
    let (half, named): (Vec<_>, Vec<_>) = there.iter().partition(|(name, _)| name.starts_with('.'));
    eprintln!(
        "  of {PUSHES} pushes {} were done and {} left something",
        named.len(),
        half.len()
    );
    assert!(named.len() < PUSHES as usize, "none was killed while it worked");
    let whole = |name: &str, bytes: &[u8]| *bytes == content(u32::from_str_radix(&name[16..], 16).unwrap());
    for (name, bytes) in named {
        assert!(whole(name, bytes), "{name} is there, but not whole");
    }
    for n in 0..=PUSHES {
        assert!(push(n).wait().unwrap().success());
    }
    let there = files(&set);
    assert!(there.len() == PUSHES as usize + 1 && there.iter().all(|(name, bytes)| whole(name, bytes)));
}

#[test]
fn of_two_would_be_primaries_the_first_to_archive_is_kept_and_the_other_keeps_its_log() {
    unprivileged(
        "of_two_would_be_primaries_the_first_to_archive_is_kept_and_the_other_keeps_its_log",
        async {
            let set = with_archive(&["a-1", "a-2"]);
            let mut a = primary(&set, 0).await;
            let common = segment(&a, "1").await;
            until("the common log is archived", async || files(&set).contains_key(&common)).await;
            a.pg.stop(HowToStop::Clean).await.unwrap();
            a.pg.gone().await;

            // A copy on another volume, which both take for the primary's.
            let mut b = set.member(1).await;
            let copied = Command::new("cp")
                .arg("-a")
                .args([a.pgdata(), b.pgdata()])
                .status()
                .unwrap();
            assert!(copied.success());
            start(&mut a).await;
            start(&mut b).await;
            let first = segment(&a, "2 FROM generate_series(1, 1000)").await;
            until("the first is archived", async || files(&set).contains_key(&first)).await;
            let kept = files(&set);

            let second = segment(&b, "3 FROM generate_series(1, 2000)").await;
            assert_eq!(first, second, "the same timeline, the same position");
            until("the second is refused", async || told(&b).await[1] == second).await;
            assert_eq!(files(&set), kept);
            let (good, bad) = (archiving(&mut a).await, archiving(&mut b).await);
            assert_eq!((good.failing, good.last.is_some()), (None, true));
            assert_eq!(bad.failing, Some(second.clone()));
            assert!(bad.waiting > 0);
            let status = |state: &str| {
                b.pgdata()
                    .join("pg_wal/archive_status")
                    .join(format!("{second}.{state}"))
            };
            assert!(status("ready").exists() && !status("done").exists());

            // It tries again, and the database goes on.
            let later = segment(&b, "4").await;
            execute(&b, "CHECKPOINT").await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(b.pgdata().join("pg_wal").join(&second).exists() && status("ready").exists());
            assert_eq!(b.sql("SELECT count(*)::text FROM public.t").await.unwrap(), ["2002"]);
            assert_eq!(files(&set), kept);

            // Somebody has looked at both, and moves the wrong one away.
            let folder = list(&set.archive.as_ref().unwrap().folder).remove(0);
            std::fs::rename(folder.join(&first), set.dir.path().join("wrong")).unwrap();
            a.pg.stop(FENCE).await.unwrap();
            segment(&b, "5").await;
            until("both are archived", async || files(&set).contains_key(&later)).await;
            let real = std::fs::read(b.pgdata().join("pg_wal").join(&second));
            if let Ok(real) = real {
                assert_eq!(files(&set)[&second], real);
            }
            let unfinished = || list(&folder).iter().any(|f| f.to_string_lossy().contains("/."));
            until("nothing unfinished is left", async || !unfinished()).await;
            b.pg.stop(FENCE).await.unwrap();
        },
    );
}

/// Every member pushes all it has, over a failover that skips timelines; a copy of the first data directory and `cp` bring back all rows.
#[test]
fn a_base_backup_and_plain_cp_restore_all_rows_over_a_failover_that_skips_timelines() {
    unprivileged(
        "a_base_backup_and_plain_cp_restore_all_rows_over_a_failover_that_skips_timelines",
        async {
            let set = with_archive(&["a-1", "a-2", "a-3"]);
            let a = primary(&set, 0).await;
            let members = ["a-1", "a-2", "a-3"].map(|m| MemberName(m.into())).into();
            a.pg.slots(&members).await.unwrap();
            let backup = set.dir.path().join("backup");
            let mut b = standby(&set, 1, &a, 1).await;
            let mut c = standby(&set, 2, &a, 1).await;
            base_backup(&a, &backup).await;
            for n in 1..=3 {
                segment(&a, &n.to_string()).await;
            }
            execute(&a, "INSERT INTO public.t VALUES (4)").await;
            let end = a
                .sql("SELECT pg_current_wal_flush_lsn()::text")
                .await
                .unwrap()
                .remove(0);
            for m in [&b, &c] {
                until("all is received", async || {
                    let sql = format!("SELECT (pg_last_wal_receive_lsn() >= '{end}')::text");
                    m.sql(&sql).await.unwrap() == ["true"]
                })
                .await;
            }
            a.pg.stop(FENCE).await.unwrap();

            // The other standby comes before the promotion, and goes over to the new timeline on its connection.
            let (x, y) = (sealed(&mut b).await, sealed(&mut c).await);
            if y > x {
                std::mem::swap(&mut b, &mut c);
            }
            b.pg.slots(&members).await.unwrap();
            c.know(4).await;
            c.pg.follow(Some(b.upstream(4))).await.unwrap();
            c.until("with the candidate", |e| matches!(e, Engine::Standby(s) if s.receiving))
                .await;
            until("with the candidate", async || {
                b.sql("SELECT count(*)::text FROM pg_stat_replication").await.unwrap() == ["1"]
            })
            .await;
            b.pg.promote(Term(4), SyncNames::Alone).await.unwrap();
            b.until("a primary", |e| matches!(e, Engine::Primary(p) if p.term == Term(4)))
                .await;
            c.until(
                "on the new timeline",
                |e| matches!(e, Engine::Standby(s) if s.history.len() == 1),
            )
            .await;
            for n in 5..=7 {
                segment(&b, &n.to_string()).await;
            }
            let last = segment(&b, "8").await;
            assert!(last.starts_with("00000004"), "{last}");
            until("all is archived", async || files(&set).contains_key(&last)).await;
            for m in [&b, &c] {
                until("nothing waits", async || told(m).await[2] == "0").await;
                assert_eq!(told(m).await[1], "", "nothing was refused");
            }
            let before = files(&set);
            for history in ["00000002.history", "00000003.history"] {
                assert_eq!(before[history], b"", "the number is kept");
            }
            assert!(!before["00000004.history"].is_empty());
            assert!(
                before.keys().any(|name| name.ends_with(".backup"))
                    && before.keys().any(|name| name.ends_with(".partial"))
            );
            // The new leader is lost, and the other leads: nothing of what it brings to the archive differs.
            b.pg.stop(FENCE).await.unwrap();
            sealed(&mut c).await;
            c.pg.promote(Term(6), SyncNames::Alone).await.unwrap();
            c.until("a primary", |e| matches!(e, Engine::Primary(p) if p.term == Term(6)))
                .await;
            let last = segment(&c, "9").await;
            until("the last timeline is archived", async || {
                files(&set).contains_key(&last)
            })
            .await;
            assert_eq!(told(&c).await[1], "", "nothing was refused");
            let after = files(&set);
            for (name, bytes) in &before {
                assert!(after[name] == *bytes, "{name} has changed");
            }
            c.pg.stop(FENCE).await.unwrap();
            assert_eq!(restored(&set, &c.pg.bin.dir, &backup), "45 9");
        },
    );
}

/// The sum and count of the rows in a copy of a data directory, after a restore that knows nothing of Holdfast.
fn restored(set: &Set, bin: &Path, backup: &Path) -> String {
    let archive = list(&set.archive.as_ref().unwrap().folder).remove(0);
    let conf = format!(
        "restore_command = 'cp {}/%f %p'\nrecovery_target_timeline = latest\nlisten_addresses = ''\n\
         unix_socket_directories = '{}'\nhot_standby = off\n",
        archive.display(),
        set.dir.path().display()
    );
    for leftover in ["pg_wal", "postmaster.pid", "standby.signal"] {
        let path = backup.join(leftover);
        let _ = std::fs::remove_dir_all(&path);
        let _ = std::fs::remove_file(&path);
    }
    std::fs::create_dir(backup.join("pg_wal")).unwrap();
    std::fs::write(backup.join("postgresql.conf"), conf).unwrap();
    std::fs::write(backup.join("postgresql.auto.conf"), "").unwrap();
    std::fs::write(backup.join("pg_hba.conf"), "local all all trust\n").unwrap();
    std::fs::write(backup.join("recovery.signal"), "").unwrap();
    let log = set.dir.path().join("restore.log");
    let run = |program: &str, args: &[&str]| {
        let out = Command::new(bin.join(program)).args(args).output().unwrap();
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        assert!(
            out.status.success(),
            "{program}: {}\n{said}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    let (data, socket) = (backup.to_str().unwrap(), set.dir.path().to_str().unwrap());
    run(
        "pg_ctl",
        &["-D", data, "-l", log.to_str().unwrap(), "-w", "-t", "60", "start"],
    );
    let begun = Instant::now();
    let session = ["-XAtq", "-h", socket, "-U", "postgres", "-d", "postgres", "-c"];
    let ask = |sql: &str| run("psql", &[&session[..], &[sql]].concat());
    // It lets nobody in before all is restored.
    while !Command::new(bin.join("pg_isready"))
        .args(["-q", "-h", socket])
        .status()
        .unwrap()
        .success()
    {
        assert!(begun.elapsed() < PATIENCE, "{}", std::fs::read_to_string(&log).unwrap());
        std::thread::sleep(Duration::from_millis(100));
    }
    let rows = ask("SELECT sum(n) || ' ' || count(*) FROM public.t");
    run("pg_ctl", &["-D", data, "-m", "immediate", "-w", "stop"]);
    rows
}

#[test]
fn a_standby_archives_what_a_primary_could_not() {
    unprivileged("a_standby_archives_what_a_primary_could_not", async {
        let mut set = with_archive(&["a-1", "a-2"]);
        // The primary's node does not reach the archive.
        let reached = set.archive.clone();
        set.archive.as_mut().unwrap().folder = set.dir.path().join("unreached/test.a");
        let a = primary(&set, 0).await;
        set.archive = reached;
        a.pg.slots(&["a-1", "a-2"].map(|m| MemberName(m.into())).into())
            .await
            .unwrap();
        // pg_basebackup may end before it has the rest of its last segment, which is empty, and then notes nothing of it.
        let mut b = set.member(1).await;
        b.pg.clone_from(&a.upstream(1)).await.unwrap();
        for note in list(&b.pgdata().join("pg_wal/archive_status")) {
            std::fs::remove_file(note).unwrap();
        }
        let copied = files_of(&b.pgdata().join("pg_wal"));
        assert!(!copied.is_empty());
        follow(&mut b, &a, 1).await;
        let last = segment(&a, "1").await;
        until("the standby has archived it", async || files(&set).contains_key(&last)).await;
        until("the primary has not", async || !told(&a).await[1].is_empty()).await;
        assert_eq!(told(&a).await[0], "");
        // So has the log that came with the copy.
        until("all is archived", async || {
            files(&set).contains_key(&copied[0]) && told(&b).await[2] == "0"
        })
        .await;
        a.pg.stop(FENCE).await.unwrap();
        b.pg.stop(FENCE).await.unwrap();
    });
}

/// The names of the segments in a folder.
fn files_of(dir: &Path) -> Vec<String> {
    let names = list(dir).into_iter();
    let names = names.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
    let mut segments: Vec<String> = names.filter(|name| name.len() == 24).collect();
    segments.sort();
    segments
}

/// A primary alone has log that its archive does not take; another leads; the archive is there again.
async fn what_waits_outlives(comes_back: impl AsyncFn(&Member, &Member)) {
    let mut set = with_archive(&["a-1", "a-2"]);
    let reached = set.archive.clone();
    set.archive.as_mut().unwrap().folder = set.dir.path().join("unreached/test.a");
    let a = primary(&set, 0).await;
    let mut waits = Vec::new();
    for n in 1..=3 {
        waits.push(segment(&a, &n.to_string()).await);
    }
    a.pg.slots(&["a-1", "a-2"].map(|m| MemberName(m.into())).into())
        .await
        .unwrap();
    let mut b = standby(&set, 1, &a, 1).await;
    assert!(
        !files_of(&b.pgdata().join("pg_wal")).contains(&waits[2]),
        "only the primary has it"
    );
    let end = sealed(&mut b).await;
    // Nobody takes this, so it is lost to the set.
    execute(&a, "CREATE TABLE public.lost ()").await;
    assert!(
        a.sql("SELECT pg_current_wal_flush_lsn()::text").await.unwrap()[0]
            .parse::<Lsn>()
            .unwrap()
            > end
    );
    a.pg.stop(FENCE).await.unwrap();
    b.pg.promote(Term(2), SyncNames::Alone).await.unwrap();
    b.until("a primary", |e| matches!(e, Engine::Primary(p) if p.term == Term(2)))
        .await;
    b.pg.slots(&["a-1", "a-2"].map(|m| MemberName(m.into())).into())
        .await
        .unwrap();

    set.archive = reached;
    let mut a = set.member(0).await;
    comes_back(&a, &b).await;
    follow(&mut a, &b, 2).await;
    for name in &waits {
        until("the archive has no hole", async || files(&set).contains_key(name)).await;
    }
    assert_eq!(a.sql("SELECT count(*)::text FROM public.t").await.unwrap(), ["3"]);
    until("nothing waits", async || told(&a).await[2] == "0").await;
    assert_eq!(told(&a).await[1], "", "nothing was refused");
    for pg in [&a.pg, &b.pg] {
        pg.stop(FENCE).await.unwrap();
    }
}

#[test]
fn what_waits_for_the_archive_outlives_a_rewind() {
    unprivileged("what_waits_for_the_archive_outlives_a_rewind", async {
        what_waits_outlives(async |a, b| a.pg.rewind(&b.upstream(2)).await.unwrap()).await;
    });
}

#[test]
fn what_waits_for_the_archive_outlives_a_clone_that_begins_anew() {
    unprivileged("what_waits_for_the_archive_outlives_a_clone_that_begins_anew", async {
        what_waits_outlives(async |a, b| {
            let upstream = b.upstream(2);
            let nobody = holdfast_core::instance::Upstream {
                address: "127.0.0.99".into(),
                ..upstream.clone()
            };
            a.pg.clone_from(&nobody).await.unwrap_err();
            assert!(!a.pgdata().exists());
            a.pg.clone_from(&upstream).await.unwrap();
        })
        .await;
    });
}

/// What PostgreSQL's archiver hands over, as the agent's push takes it: each segment alone, as it is and with its end missing.
#[test]
fn a_segment_whose_log_ends_early_is_told_from_one_that_was_ended_early() {
    unprivileged(
        "a_segment_whose_log_ends_early_is_told_from_one_that_was_ended_early",
        async {
            let set = with_archive(&["a-1"]);
            let a = primary(&set, 0).await;
            // Records that go over the ends of segments, one ended early and one as long as two.
            segment(&a, "n FROM generate_series(1, 200000) AS n").await;
            segment(&a, "1").await;
            execute(
                &a,
                "SELECT pg_logical_emit_message(false, 'test', repeat('x', 9 << 20))",
            )
            .await;
            let last = segment(&a, "2").await;
            until("all is archived", async || files(&set).contains_key(&last)).await;
            let all = files(&set);
            a.pg.stop(FENCE).await.unwrap();

            let alone = set.dir.path().join("alone");
            for folder in ["global", "pg_wal/archive_status"] {
                std::fs::create_dir_all(alone.join(folder)).unwrap();
            }
            std::fs::copy(a.pgdata().join("global/pg_control"), alone.join("global/pg_control")).unwrap();
            std::fs::create_dir(set.dir.path().join("second")).unwrap();
            let push = |name: &str, content: &[u8]| {
                let from = alone.join("pg_wal").join(name);
                std::fs::write(&from, content).unwrap();
                let push = holdfast_postgres::archive::Push {
                    pgdata: alone.clone(),
                    folder: set.dir.path().join("second/test.a"),
                    member: "a-1".into(),
                    from: from.clone(),
                    name: name.into(),
                    reader: a.pg.bin.dir.join("pg_waldump"),
                };
                let pushed = push.run();
                std::fs::remove_file(from).unwrap();
                pushed.map(|pushed| pushed.why)
            };
            let segments: Vec<_> = all.iter().filter(|(name, _)| name.len() == 24).collect();
            assert!(segments.len() > 5, "{}", segments.len());
            for (n, (name, content)) in segments.iter().enumerate() {
                let folder = || list(&set.dir.path().join("second/test.a"));
                // Half of it is there, and the rest is empty, or left over from another one.
                let half = content.len() / 2;
                let (empty, other) = (vec![0; half], &segments[(n + 1) % segments.len()].1[half..]);
                let ended_early = content[half..].iter().all(|byte| *byte == 0);
                for rest in [&empty[..], other] {
                    let part = [&content[..half], rest].concat();
                    let pushed = push(name, &part);
                    let there = folder()
                        .first()
                        .map(|dir| dir.join(name))
                        .filter(|place| place.exists());
                    if ended_early {
                        assert_eq!(pushed.unwrap(), Why::Archived);
                        assert!(std::fs::read(there.unwrap()).unwrap() == **content, "{name}");
                    } else {
                        let why = pushed.unwrap_err().to_string();
                        assert!(
                            why.contains("does not reach the file's end") && there.is_none(),
                            "{why}"
                        );
                    }
                }
                assert_eq!(push(name, content).unwrap(), Why::Archived);
            }
        },
    );
}

/// At a clean stop PostgreSQL's archiver pushes all that waits, and the postmaster waits for it.
#[test]
fn an_archive_that_fails_or_does_not_answer_holds_up_a_stop_for_a_moment_only() {
    unprivileged(
        "an_archive_that_fails_or_does_not_answer_holds_up_a_stop_for_a_moment_only",
        async {
            let set = with_archive(&["a-1"]);
            let mut a = primary(&set, 0).await;
            let stop = async |a: &Member| {
                let begun = Instant::now();
                a.pg.stop(HowToStop::Clean).await.unwrap();
                a.pg.gone().await;
                eprintln!("  a clean stop took {:?}", begun.elapsed());
                begun.elapsed()
            };
            let last = segment(&a, "1").await;
            until("it is archived", async || files(&set).contains_key(&last)).await;
            let before = files(&set).len();
            stop(&a).await;
            assert!(
                files(&set).len() > before,
                "the last segment is pushed while the engine stops"
            );

            start(&mut a).await;
            let folder = list(&set.archive.as_ref().unwrap().folder).remove(0);
            let moved = set.dir.path().join("moved");
            std::fs::rename(set.dir.path().join("archive"), &moved).unwrap();
            segment(&a, "2").await;
            until("it fails", async || !told(&a).await[1].is_empty()).await;
            assert!(stop(&a).await < Duration::from_secs(20), "an archive that is away");
            std::fs::rename(&moved, set.dir.path().join("archive")).unwrap();

            start(&mut a).await;
            // A push that hangs: its file is a pipe that nobody writes to.
            let pipe = set.dir.path().join("pipe");
            nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
            let program = &set.archive.as_ref().unwrap().program;
            let real = std::fs::read_to_string(program).unwrap();
            let new = program.with_extension("new");
            std::fs::write(&new, real.replace("$4", pipe.to_str().unwrap())).unwrap();
            std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
            std::fs::rename(&new, program).unwrap();
            segment(&a, "3").await;
            let is_told = |process: &PathBuf| {
                let words = std::fs::read(process.join("environ")).unwrap_or_default();
                let pipe = pipe.to_str().unwrap().as_bytes();
                words.windows(pipe.len()).any(|part| part == pipe)
            };
            let hangs = async || list(Path::new("/proc")).iter().any(is_told);
            until("a push hangs", hangs).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(
                stop(&a).await < Duration::from_secs(20),
                "an archive that does not answer"
            );
            assert!(list(&folder).len() >= before);
        },
    );
}
