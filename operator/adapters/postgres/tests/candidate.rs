//! A candidate's engine is followed before it is promoted, against real engines.

// A panic in a test's helper is the assertion, as in the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_core::failover::{DirId, MemberName, Term};
use holdfast_core::instance::{Engine, HowToStop, StandbySeen, StartAs, SyncNames};
use holdfast_postgres::Observer;
use support::{Member, Set, streaming, unprivileged};

const FENCE: HowToStop = HowToStop::Fence { kill_after_ms: 1000 };
const RECEIVER: &str = "SELECT coalesce(max(pid), 0)::text FROM pg_stat_wal_receiver";

async fn seal(m: &mut Member) {
    m.pg.follow(None).await.unwrap();
    m.until("sealed", |e| matches!(e, Engine::Standby(s) if !s.receiving))
        .await;
}

async fn standby(m: &mut Member) -> StandbySeen {
    match m.seen.observe().await {
        Engine::Standby(seen) => seen,
        other => panic!("{other:?}"),
    }
}

/// A leader that has stopped cleanly, and two standbys that have all of its log and are sealed.
async fn sealed() -> (Set, Member, Member, Member) {
    let (set, a, mut b, mut c) = streaming().await;
    a.pg.stop(HowToStop::Clean).await.unwrap();
    let end = holdfast_postgres::volume::look(&a.pg.bin, a.pg.layout()).await.unwrap();
    let end = end.control.unwrap().lsn;
    for m in [&mut b, &mut c] {
        m.until(
            "all of the log",
            |e| matches!(e, Engine::Standby(s) if s.flushed == end && s.replayed == end),
        )
        .await;
        seal(m).await;
    }
    (set, a, b, c)
}

async fn comes(candidate: &mut Member, c: &mut Member, term: u32) -> DirId {
    candidate.pg.slots(&[MemberName("a-3".into())].into()).await.unwrap();
    c.know(term).await;
    c.pg.follow(Some(candidate.upstream(term))).await.unwrap();
    c.until("a receiver", |e| matches!(e, Engine::Standby(s) if s.receiving))
        .await;
    let until = Instant::now() + Duration::from_secs(30);
    while candidate
        .sql("SELECT count(*)::text FROM pg_stat_replication")
        .await
        .unwrap()
        != ["1"]
    {
        assert!(Instant::now() < until, "it never comes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let seen = candidate.seen.observe().await;
    assert!(matches!(seen, Engine::Standby(_)), "{seen:?}");
    let volume = holdfast_postgres::volume::look(&c.pg.bin, c.pg.layout()).await.unwrap();
    volume.disk.dir.unwrap()
}

#[test]
fn a_standby_that_came_before_the_promotion_goes_over_on_its_connection_and_acknowledges() {
    unprivileged(
        "a_standby_that_came_before_the_promotion_goes_over_on_its_connection_and_acknowledges",
        async {
            let (_set, a, mut b, mut c) = sealed().await;
            let dir = comes(&mut b, &mut c, 4).await;
            let connection = c.sql(RECEIVER).await.unwrap();
            assert_ne!(connection, ["0"]);

            let sync = SyncNames::Any {
                quorum: 1,
                standbys: BTreeSet::from([dir]),
            };
            b.pg.promote(Term(4), sync.clone()).await.unwrap();
            b.pg.know(None, Some(Term(4)));
            let counts = |e: &Engine| {
                matches!(e, Engine::Primary(p) if p.sync == sync && p.term == Term(4)
                    && p.replicas.iter().any(|r| r.counts && r.flushed >= p.flushed))
            };
            b.until("a leader whose standby has all of its log", counts).await;
            // 16.4, 16.9 and 16.10 end the receiver at the switch, 16.11 does not. It comes back by itself; the rest holds for all.
            let version: u32 = c.sql("SHOW server_version_num").await.unwrap()[0].parse().unwrap();
            if !(160_000..160_011).contains(&version) {
                assert_eq!(
                    c.sql(RECEIVER).await.unwrap(),
                    connection,
                    "it went over without a new connection"
                );
            }
            let s = b.pg.session("test", Duration::from_secs(5)).await.unwrap();
            s.batch_execute("SET synchronous_commit = on; CREATE TABLE public.t AS SELECT 'kept'::text AS v")
                .await
                .unwrap();
            drop(s);
            c.until(
                "on the new timeline",
                |e| matches!(e, Engine::Standby(s) if s.history.len() == 1),
            )
            .await;
            assert!(c.pgdata().join("pg_wal/00000004.history").exists());
            // Acknowledged is what is on its disk; it is replayed a moment later.
            let until = Instant::now() + Duration::from_secs(30);
            while c.sql("SELECT v FROM public.t").await.ok() != Some(vec!["kept".to_owned()]) {
                assert!(Instant::now() < until, "the row does not come");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            for m in [&a, &b, &c] {
                m.pg.stop(FENCE).await.unwrap();
            }
        },
    );
}

#[test]
fn a_candidate_that_is_none_any_more_sends_away_who_came_and_keeps_no_slots() {
    unprivileged(
        "a_candidate_that_is_none_any_more_sends_away_who_came_and_keeps_no_slots",
        async {
            let (_set, mut a, mut b, mut c) = sealed().await;
            comes(&mut b, &mut c, 4).await;

            // The former leader is elected instead, and writes.
            a.pg.start(StartAs::Standby { upstream: None }).await.unwrap();
            a.until("sealed", |e| matches!(e, Engine::Standby(s) if !s.receiving))
                .await;
            a.pg.promote(Term(5), SyncNames::Alone).await.unwrap();
            a.pg.know(None, Some(Term(5)));
            a.until("a primary", |e| matches!(e, Engine::Primary(_))).await;
            a.pg.slots(&["a-2", "a-3"].map(|m| MemberName(m.into())).into())
                .await
                .unwrap();
            let before = standby(&mut c).await;
            b.know(5).await;
            b.pg.follow(Some(a.upstream(5))).await.unwrap();
            let slots = "SELECT count(*)::text FROM pg_replication_slots";
            assert_eq!(b.sql(slots).await.unwrap(), ["0"]);
            // Work of its candidacy that was held up comes too late.
            b.pg.slots(&[MemberName("a-3".into())].into()).await.unwrap_err();
            assert_eq!(b.sql(slots).await.unwrap(), ["0"]);
            a.sql("SELECT pg_switch_wal()::text").await.unwrap();
            b.until(
                "on the other's timeline",
                |e| matches!(e, Engine::Standby(s) if s.receiving && s.flushed > before.flushed),
            )
            .await;
            // Five times the pause after which it asks anew.
            tokio::time::sleep(Duration::from_secs(1)).await;
            // One that is being refused is there for a moment.
            let streaming = "SELECT count(*)::text FROM pg_stat_replication WHERE state <> 'startup'";
            assert_eq!(b.sql(streaming).await.unwrap(), ["0"]);
            let after = standby(&mut c).await;
            assert_eq!(after.flushed, before.flushed, "it has taken another leader's log");
            for m in [&a, &b, &c] {
                m.pg.stop(FENCE).await.unwrap();
            }
        },
    );
}

#[test]
fn slots_of_a_candidacy_stay_though_the_engine_is_first_looked_at_after_them() {
    unprivileged(
        "slots_of_a_candidacy_stay_though_the_engine_is_first_looked_at_after_them",
        async {
            let (_set, a, mut b, c) = sealed().await;
            b.pg.slots(&[MemberName("a-1".into())].into()).await.unwrap();
            b.pg.stop(FENCE).await.unwrap();
            b.pg.start(StartAs::Standby { upstream: None }).await.unwrap();
            let until = Instant::now() + Duration::from_secs(30);
            while b.pg.slots(&[MemberName("a-3".into())].into()).await.is_err() {
                assert!(Instant::now() < until, "it makes no slots");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            for _ in 0..3 {
                b.until("a standby", |e| matches!(e, Engine::Standby(_))).await;
            }
            let slots = "SELECT slot_name::text FROM pg_replication_slots";
            assert_eq!(b.sql(slots).await.unwrap(), ["a_3"]);
            for m in [&a, &b, &c] {
                m.pg.stop(FENCE).await.unwrap();
            }
        },
    );
}

/// What PostgreSQL does by itself with a log that ends with a part of a record: nothing says that the part is lost. It is of no commit, and
/// who may come before a promotion is for the agents to know.
#[test]
fn a_torn_record_is_left_behind_by_a_promotion_and_its_other_owner_follows_without_a_word() {
    unprivileged(
        "a_torn_record_is_left_behind_by_a_promotion_and_its_other_owner_follows_without_a_word",
        async {
            let (_set, mut a, mut b, mut c) = streaming().await;
            let (mut ends_b, mut ends_c) = (standby(&mut b).await, standby(&mut c).await);
            for n in 0.. {
                assert!(n < 10, "never torn: {ends_b:?} {ends_c:?}");
                // Without the agent's own writes: what is flushed without a commit ends with a page.
                a.seen = Observer::new(Arc::clone(&a.pg));
                let s = a.pg.session("test", Duration::from_secs(5)).await.unwrap();
                s.batch_execute("CREATE TABLE IF NOT EXISTS public.load (v text)")
                    .await
                    .unwrap();
                let load =
                    "BEGIN; INSERT INTO public.load SELECT repeat(md5(i::text), 50) FROM generate_series(1, 3000) i";
                s.batch_execute(load).await.unwrap();
                // Until both have all that is flushed.
                tokio::time::sleep(Duration::from_secs(2)).await;
                a.pg.stop(FENCE).await.unwrap();
                drop(s);
                for m in [&mut b, &mut c] {
                    seal(m).await;
                }
                (ends_b, ends_c) = (standby(&mut b).await, standby(&mut c).await);
                let torn = ends_b.flushed > ends_b.replayed && ends_c.flushed > ends_c.replayed;
                if torn && ends_b.replayed == ends_c.replayed {
                    break;
                }
                a.pg.start(StartAs::Primary { sync: SyncNames::Alone }).await.unwrap();
                a.until("a primary", |e| matches!(e, Engine::Primary(_))).await;
                for m in [&mut b, &mut c] {
                    m.pg.follow(Some(a.upstream(1))).await.unwrap();
                    m.until("streaming", |e| matches!(e, Engine::Standby(s) if s.receiving))
                        .await;
                }
            }

            b.pg.promote(Term(4), SyncNames::Alone).await.unwrap();
            b.pg.know(None, Some(Term(4)));
            let led = b.until("a primary", |e| matches!(e, Engine::Primary(_))).await;
            let Engine::Primary(led) = led else { unreachable!() };
            assert_eq!(led.history, [(Term(1), ends_b.replayed)]);
            b.pg.slots(&[MemberName("a-3".into())].into()).await.unwrap();
            let s = b.pg.session("test", Duration::from_secs(5)).await.unwrap();
            s.batch_execute("CREATE TABLE public.t AS SELECT 'kept'::text AS v")
                .await
                .unwrap();
            let wrote = b.seen.observe().await;
            let Engine::Primary(wrote) = wrote else { unreachable!() };

            c.know(4).await;
            c.pg.follow(Some(b.upstream(4))).await.unwrap();
            c.until(
                "all of the new timeline",
                |e| matches!(e, Engine::Standby(s) if s.receiving && s.diverged.is_none() && s.replayed >= wrote.flushed),
            )
            .await;
            assert_eq!(c.sql("SELECT v FROM public.t").await.unwrap(), ["kept"]);
            assert_eq!(c.sql("SELECT count(*)::text FROM public.load").await.unwrap(), ["0"]);
            for m in [&a, &b, &c] {
                m.pg.stop(FENCE).await.unwrap();
            }
        },
    );
}
