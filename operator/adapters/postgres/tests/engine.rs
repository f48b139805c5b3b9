//! The adapter against real engines.

// A panic in a test's helper is the assertion, as in the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each test program uses its part")]
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_core::failover::{Lsn, MemberName, Term};
use holdfast_core::instance::{Engine, HowToStop, StartAs, SyncNames};
use support::{Set, unprivileged, until};

const FENCE: HowToStop = HowToStop::Fence { kill_after_ms: 1000 };

/// The life of a set without its machine: made, cloned, sealed, promoted to a term far ahead, rewound.
#[test]
fn a_standby_is_promoted_to_the_term_and_the_others_follow_and_rewind_over_skipped_timelines() {
    unprivileged(
        "a_standby_is_promoted_to_the_term_and_the_others_follow_and_rewind_over_skipped_timelines",
        async {
            let set = Set::new(&["a-1", "a-2", "a-3"]);
            let (mut a, mut b, mut c) = (set.member(0).await, set.member(1).await, set.member(2).await);

            a.pg.initdb().await.unwrap();
            a.know(1).await;
            a.pg.start(StartAs::Primary { sync: SyncNames::Alone }).await.unwrap();
            a.until(
                "a healthy primary",
                |e| matches!(e, Engine::Primary(p) if p.term == Term(1) && p.healthy && p.sync == SyncNames::Alone),
            )
            .await;
            let members: BTreeSet<MemberName> = ["a-1", "a-2", "a-3"].map(|m| MemberName(m.into())).into();
            a.pg.slots(&members).await.unwrap();
            a.pg.slots(&members).await.unwrap();

            for m in [&b, &c] {
                m.pg.clone_from(&a.upstream(1)).await.unwrap();
                m.know(1).await;
                m.pg.start(StartAs::Standby {
                    upstream: Some(a.upstream(1)),
                })
                .await
                .unwrap();
            }
            for m in [&mut b, &mut c] {
                m.until(
                    "streaming",
                    |e| matches!(e, Engine::Standby(s) if s.receiving && s.flushed > Lsn(0)),
                )
                .await;
            }
            let Engine::Primary(p) = a
                .until(
                    "two standbys",
                    |e| matches!(e, Engine::Primary(p) if p.replicas.iter().filter(|r| r.streaming).count() == 2),
                )
                .await
            else {
                unreachable!()
            };
            let standbys: BTreeSet<_> = p.replicas.iter().map(|r| r.dir.clone()).collect();
            assert!(standbys.iter().any(|d| d.0.starts_with("a_2_")), "{standbys:?}");
            let rule = SyncNames::Any {
                quorum: 1,
                standbys: standbys.clone(),
            };
            a.pg.set_sync(rule.clone()).await.unwrap();
            a.until(
                "the rule in force",
                |e| matches!(e, Engine::Primary(p) if p.sync == rule && p.replicas.iter().all(|r| r.counts)),
            )
            .await;
            a.sql("CREATE TABLE public.t AS SELECT 'kept' AS v; SELECT v FROM public.t")
                .await
                .unwrap_err();
            let s = a.pg.session("test", Duration::from_secs(20)).await.unwrap();
            s.batch_execute("SET synchronous_commit = on; CREATE TABLE public.t AS SELECT 'kept'::text AS v")
                .await
                .unwrap();

            // Walsenders that are ended are gone when the call returns; they come back by themselves.
            a.pg.end_walsenders(&standbys).await.unwrap();
            a.until(
                "back",
                |e| matches!(e, Engine::Primary(p) if p.replicas.iter().filter(|r| r.streaming).count() == 2),
            )
            .await;

            // Sealed: no receiver, and what is flushed does not move although the primary writes on.
            b.pg.follow(None).await.unwrap();
            let seal = b
                .until("sealed", |e| matches!(e, Engine::Standby(s) if !s.receiving))
                .await;
            c.pg.follow(None).await.unwrap();
            a.sql("SELECT pg_switch_wal()::text").await.unwrap();
            tokio::time::sleep(Duration::from_millis(700)).await;
            assert_eq!(b.seen.observe().await, seal);

            // A write of the leader's may have reached only the one that was sealed later: that one is ahead.
            if let (Engine::Standby(x), Engine::Standby(y)) = (&seal, &c.seen.observe().await)
                && y.flushed > x.flushed
            {
                std::mem::swap(&mut b, &mut c);
            }

            // The old leader writes what nobody has, and is fenced.
            let s = a.pg.session("test", Duration::from_secs(20)).await.unwrap();
            s.batch_execute("CREATE TABLE public.lost AS SELECT 1").await.unwrap();
            drop(s);
            a.pg.stop(FENCE).await.unwrap();
            a.until("down", |e| *e == Engine::Down { clean: false }).await;
            assert!(holdfast_postgres::process::in_directory(&a.pgdata()).is_empty());

            b.pg.promote(Term(5), SyncNames::Nobody).await.unwrap();
            b.pg.know(None, Some(Term(5)));
            let Engine::Primary(p) = b
                .until(
                    "a primary",
                    |e| matches!(e, Engine::Primary(p) if p.sync == SyncNames::Nobody),
                )
                .await
            else {
                unreachable!()
            };
            assert_eq!(p.term, Term(5));
            assert_eq!(p.history.iter().map(|(t, _)| *t).collect::<Vec<_>>(), [Term(1)]);
            assert_eq!(b.sql("SELECT v FROM public.t").await.unwrap(), ["kept"]);
            b.pg.slots(&members).await.unwrap();

            // A standby that takes up the new leader follows it over the numbers that nobody used.
            c.know(5).await;
            c.pg.follow(Some(b.upstream(5))).await.unwrap();
            c.until("on the new timeline", |e| {
            matches!(e, Engine::Standby(s) if s.receiving && s.history == p.history && s.flushed > p.history[0].1)
        })
        .await;
            // It also starts again from there.
            c.pg.stop(HowToStop::Clean).await.unwrap();
            c.until("down", |e| *e == Engine::Down { clean: true }).await;
            c.pg.start(StartAs::Standby {
                upstream: Some(b.upstream(5)),
            })
            .await
            .unwrap();
            c.until("streaming", |e| matches!(e, Engine::Standby(s) if s.receiving))
                .await;

            // The old leader's tail is divergent: rewound, it follows.
            let before = holdfast_postgres::volume::look(&a.pg.bin, a.pg.layout()).await.unwrap();
            assert!(!before.clean);
            // The leader has made no checkpoint since its promotion: the rewind sees to it.
            a.pg.rewind(&b.upstream(5)).await.unwrap();
            a.know(5).await;
            a.pg.start(StartAs::Standby {
                upstream: Some(b.upstream(5)),
            })
            .await
            .unwrap();
            a.until(
                "streaming",
                |e| matches!(e, Engine::Standby(s) if s.receiving && s.diverged.is_none()),
            )
            .await;
            b.until(
                "both",
                |e| matches!(e, Engine::Primary(p) if p.replicas.iter().filter(|r| r.streaming).count() == 2),
            )
            .await;
            assert_eq!(
                a.sql("SELECT to_regclass('public.lost') IS NULL || ''").await.unwrap(),
                ["true"]
            );
            assert_eq!(
                a.sql("SELECT count(*)::text FROM pg_replication_slots").await.unwrap(),
                ["0"],
                "a standby keeps no slots"
            );

            // Once clients are let in, the leader makes the checkpoint after its promotion by itself.
            let checkpoint = "SELECT checkpoint_lsn::text FROM pg_control_checkpoint()";
            let before = b.sql(checkpoint).await.unwrap();
            b.pg.gate(true).await.unwrap();
            let mut looks = 0;
            while b.sql(checkpoint).await.unwrap() == before {
                looks += 1;
                assert!(looks < 400, "no checkpoint after promotion: {before:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }

            // A clean stop of the leader: its control file says exactly how far a standby has to be.
            b.pg.stop(HowToStop::Clean).await.unwrap();
            let end = holdfast_postgres::volume::look(&b.pg.bin, b.pg.layout()).await.unwrap();
            assert!(end.clean);
            let end = end.control.unwrap();
            assert_eq!(end.term, Term(5));
            a.until(
                "all of the log",
                |e| matches!(e, Engine::Standby(s) if s.flushed == end.lsn),
            )
            .await;
            for m in [&a, &c] {
                m.pg.stop(FENCE).await.unwrap();
            }
        },
    );
}

/// A standby whose upstream knows nothing of its log says so.
#[test]
fn a_diverged_standby_says_why_and_a_killed_engine_leaves_nothing_behind() {
    unprivileged(
        "a_diverged_standby_says_why_and_a_killed_engine_leaves_nothing_behind",
        async {
            let set = Set::new(&["a-1", "a-2"]);
            let (mut a, mut b) = (set.member(0).await, set.member(1).await);
            a.pg.initdb().await.unwrap();
            a.know(1).await;
            a.pg.start(StartAs::Primary { sync: SyncNames::Alone }).await.unwrap();
            a.until("a primary", |e| matches!(e, Engine::Primary(_))).await;
            a.pg.slots(&[MemberName("a-2".into())].into()).await.unwrap();
            b.pg.clone_from(&a.upstream(1)).await.unwrap();
            b.know(1).await;
            b.pg.start(StartAs::Standby { upstream: None }).await.unwrap();
            b.until("a standby", |e| matches!(e, Engine::Standby(s) if !s.receiving))
                .await;
            b.pg.promote(Term(2), SyncNames::Nobody).await.unwrap();
            // The former leader writes on past the fork, then is told to follow without a rewind.
            let s = a.pg.session("test", Duration::from_secs(20)).await.unwrap();
            s.batch_execute("CREATE TABLE public.lost AS SELECT generate_series(1, 1000)")
                .await
                .unwrap();
            drop(s);
            a.pg.stop(HowToStop::Clean).await.unwrap();
            b.pg.slots(&[MemberName("a-1".into())].into()).await.unwrap();
            a.pg.start(StartAs::Standby {
                upstream: Some(b.upstream(2)),
            })
            .await
            .unwrap();
            a.until("diverged", |e| matches!(e, Engine::Standby(s) if s.diverged.is_some()))
                .await;

            // The postmaster alone is killed: its children do not outlive what is reported.
            let holdfast_postgres::pg::Process::Up { pid } = b.pg.process() else {
                panic!("not up")
            };
            holdfast_postgres::process::signal(pid, nix::sys::signal::Signal::SIGKILL);
            b.until("down", |e| *e == Engine::Down { clean: false }).await;
            assert!(holdfast_postgres::process::in_directory(&b.pgdata()).is_empty());
            b.pg.start(StartAs::Primary { sync: SyncNames::Alone }).await.unwrap();
            b.until(
                "a primary again",
                |e| matches!(e, Engine::Primary(p) if p.term == Term(2) && p.healthy),
            )
            .await;
            for m in [&a, &b] {
                m.pg.stop(FENCE).await.unwrap();
            }
        },
    );
}

/// Clients come in over TLS with SCRAM through an open gate only, and are put out when it closes.
#[test]
fn the_gate_lets_clients_in_and_puts_them_out() {
    unprivileged("the_gate_lets_clients_in_and_puts_them_out", async {
        let set = Set::new(&["a-1"]);
        let mut a = set.member(0).await;
        a.pg.initdb().await.unwrap();
        a.know(1).await;
        a.pg.start(StartAs::Primary { sync: SyncNames::Alone }).await.unwrap();
        a.until("a primary", |e| matches!(e, Engine::Primary(_))).await;
        let connect = |mode: &str| {
            let url = format!(
                "host={} port={} user=app dbname=shop password='s3cret\\'pass' sslmode={mode}",
                a.address, a.pg.settings.port
            );
            let bin = a.pg.bin.clone();
            async move {
                bin.run(
                    "psql",
                    &["-XAtc", "SELECT count(*) FROM extra", &url],
                    Duration::from_secs(10),
                )
                .await
                .map(|s| s.trim().to_owned())
            }
        };
        assert!(
            connect("require")
                .await
                .unwrap_err()
                .to_string()
                .contains("no pg_hba.conf entry")
        );
        a.pg.gate(true).await.unwrap();
        until("let in", async || {
            connect("require").await.is_ok_and(|rows| rows == "0")
        })
        .await;
        assert!(
            connect("disable")
                .await
                .unwrap_err()
                .to_string()
                .contains("no encryption")
        );

        let url = format!(
            "host={} port={} user=app dbname=shop password='s3cret\\'pass' sslmode=require",
            a.address, a.pg.settings.port
        );
        let bin = a.pg.bin.clone();
        let sleeper = tokio::spawn(async move {
            bin.run("psql", &["-XAtc", "SELECT pg_sleep(60)", &url], Duration::from_secs(70))
                .await
        });
        let sleeps = "SELECT count(*)::text FROM pg_stat_activity WHERE usename = 'app' AND wait_event = 'PgSleep'";
        until("a client in", async || a.sql(sleeps).await.is_ok_and(|n| n == ["1"])).await;
        a.pg.gate(false).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(30), sleeper)
            .await
            .unwrap()
            .unwrap();
        assert!(ended.unwrap_err().to_string().contains("terminating connection"));
        assert!(connect("require").await.is_err());
        a.pg.stop(FENCE).await.unwrap();
    });
}

/// Bad values never stop the engine; good ones are in force without a restart where they can be.
#[test]
fn parameters_are_checked_against_the_real_engine() {
    unprivileged("parameters_are_checked_against_the_real_engine", async {
        let set = Set::new(&["a-1"]);
        let mut a = set.member(0).await;
        a.pg.set_spec(&set.spec(&[("work_mem", "8MB"), ("work_men", "1MB"), ("fsync", "off")]))
            .unwrap();
        a.pg.initdb().await.unwrap();
        a.know(1).await;
        a.pg.start(StartAs::Primary { sync: SyncNames::Alone }).await.unwrap();
        a.until("a primary", |e| matches!(e, Engine::Primary(_))).await;
        assert_eq!(a.sql("SHOW work_mem").await.unwrap(), ["8MB"]);
        assert_eq!(a.sql("SHOW fsync").await.unwrap(), ["on"]);
        let why: Vec<String> =
            a.pg.rejected()
                .into_iter()
                .map(|r| format!("{}: {}", r.name, r.why))
                .collect();
        assert!(
            why.iter().any(|w| w.contains("did you mean work_mem"))
                && why.iter().any(|w| w.starts_with("fsync: Holdfast manages it")),
            "{why:?}"
        );

        // At once, or at the next restart; a bad value leaves the good one in force.
        a.pg.set_spec(&set.spec(&[
            ("work_mem", "lots"),
            ("max_connections", "150"),
            ("log_statement", "ddl"),
        ]))
        .unwrap();
        until("in force", async || {
            a.sql("SHOW log_statement").await.is_ok_and(|v| v == ["ddl"])
        })
        .await;
        until("pending", async || {
            a.seen.look_for_pending().await;
            a.seen.pending_restart == ["max_connections"]
        })
        .await;
        assert_eq!(a.sql("SHOW work_mem").await.unwrap(), ["8MB"]);

        // A value that passes every check and still stops the start: the second start has the former values.
        a.pg.set_spec(&set.spec(&[("huge_pages", "on"), ("work_mem", "16MB")]))
            .unwrap();
        a.pg.stop(HowToStop::Clean).await.unwrap();
        a.pg.start(StartAs::Primary { sync: SyncNames::Alone }).await.unwrap();
        a.pg.watch()
            .wait_for(|p| matches!(p, holdfast_postgres::pg::Process::Down { .. }))
            .await
            .unwrap();
        a.pg.start(StartAs::Primary { sync: SyncNames::Alone }).await.unwrap();
        a.until("a primary in spite of it", |e| matches!(e, Engine::Primary(_)))
            .await;
        let why =
            a.pg.rejected()
                .into_iter()
                .find(|r| r.name == "huge_pages")
                .unwrap()
                .why;
        assert!(why.contains("could not map anonymous shared memory"), "{why}");
        a.pg.stop(FENCE).await.unwrap();
    });
}
