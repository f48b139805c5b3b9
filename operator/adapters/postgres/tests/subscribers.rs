//! Logical subscribers of real engines: their slots, and what those need.

// A panic in a test's helper is the assertion, as in the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each test program uses its part")]
mod support;

use holdfast_core::failover::{MemberName, Term};
use holdfast_core::instance::{Engine, HowToStop, StartAs, SyncNames};
use support::{Set, unprivileged, until};

const FENCE: HowToStop = HowToStop::Fence { kill_after_ms: 1000 };

/// A primary keeps its logical slots through a crash and a seal, and has none that are in the way once it follows another.
#[test]
fn a_logical_slot_lives_as_long_as_its_member_may_lead_again() {
    unprivileged("a_logical_slot_lives_as_long_as_its_member_may_lead_again", async {
        let set = Set::new(&["a-1", "a-2"]);
        let (mut a, mut b) = (set.member(0).await, set.member(1).await);
        for m in [&a, &b] {
            m.pg.set_spec(&set.spec(&[("wal_level", "logical")])).unwrap();
        }
        a.pg.initdb().await.unwrap();
        a.know(1).await;
        a.pg.start(StartAs::Primary { sync: SyncNames::Alone }).await.unwrap();
        a.until("a primary", |e| matches!(e, Engine::Primary(_))).await;
        a.pg.slots(&[MemberName("a-2".into())].into()).await.unwrap();
        let flag = if a.pg.bin.major >= 17 { ", failover => true" } else { "" };
        let make = format!("SELECT (pg_create_logical_replication_slot('sub', 'pgoutput'{flag})).slot_name::text");
        assert_eq!(a.sql(&make).await.unwrap(), ["sub"]);
        assert_eq!(a.sql("SHOW wal_level").await.unwrap(), ["logical"]);
        b.pg.clone_from(&a.upstream(1)).await.unwrap();
        b.know(1).await;
        b.pg.start(StartAs::Standby {
            upstream: Some(a.upstream(1)),
        })
        .await
        .unwrap();
        b.until("streaming", |e| matches!(e, Engine::Standby(s) if s.receiving))
            .await;
        if a.pg.bin.major >= 17 {
            a.pg.hold_subscribers([MemberName("a-2".into())].into()).unwrap();
            until("held", async || {
                a.sql("SHOW synchronized_standby_slots")
                    .await
                    .is_ok_and(|v| v == ["a_2"])
            })
            .await;
        } else {
            a.pg.hold_subscribers([MemberName("a-2".into())].into()).unwrap();
            assert_eq!(b.sql("SHOW hot_standby_feedback").await.unwrap(), ["off"]);
        }

        // It crashes, is sealed for an election, and wins that itself.
        a.pg.stop(FENCE).await.unwrap();
        a.pg.start(StartAs::Standby { upstream: None }).await.unwrap();
        // Nobody gets its log by the slots of its time as a primary, before anything is asked of the engine.
        let kept = std::fs::read_dir(a.pgdata().join("pg_replslot")).unwrap();
        let kept: Vec<_> = kept.map(|slot| slot.unwrap().file_name()).collect();
        assert_eq!(kept, ["sub"], "the subscriber's slot, and no member's");
        a.until("sealed", |e| matches!(e, Engine::Standby(s) if !s.receiving))
            .await;
        a.pg.promote(Term(2), SyncNames::Alone).await.unwrap();
        a.pg.know(None, Some(Term(2)));
        a.until("a primary", |e| matches!(e, Engine::Primary(_))).await;
        let slots = "SELECT coalesce(string_agg(slot_name, ' ' ORDER BY slot_name), '') FROM pg_replication_slots \
                     WHERE slot_type = 'logical' AND NOT temporary";
        assert_eq!(a.sql(slots).await.unwrap(), ["sub"]);
        b.know(2).await;
        b.pg.follow(Some(a.upstream(2))).await.unwrap();
        b.until(
            "following",
            |e| matches!(e, Engine::Standby(s) if s.receiving && s.history.len() == 1),
        )
        .await;
        a.sql("SELECT pg_switch_wal()::text").await.unwrap();

        // It steps down, comes up sealed, and follows the other: from then on its slot is in nobody's way.
        a.pg.stop(HowToStop::Clean).await.unwrap();
        let end = holdfast_postgres::volume::look(&a.pg.bin, a.pg.layout()).await.unwrap();
        let end = end.control.unwrap();
        b.until(
            "all of the log",
            |e| matches!(e, Engine::Standby(s) if s.flushed == end.lsn),
        )
        .await;
        b.pg.promote(Term(3), SyncNames::Nobody).await.unwrap();
        b.pg.know(None, Some(Term(3)));
        b.until("a primary", |e| matches!(e, Engine::Primary(p) if p.term == Term(3)))
            .await;
        b.pg.slots(&[MemberName("a-1".into())].into()).await.unwrap();
        a.pg.start(StartAs::Standby { upstream: None }).await.unwrap();
        a.until("sealed", |e| matches!(e, Engine::Standby(s) if !s.receiving))
            .await;
        assert_eq!(a.sql(slots).await.unwrap(), ["sub"], "it may still be elected");
        a.know(3).await;
        a.pg.follow(Some(b.upstream(3))).await.unwrap();
        a.until("following", |e| matches!(e, Engine::Standby(s) if s.receiving))
            .await;
        assert_eq!(
            a.sql(
                "SELECT count(*)::text FROM pg_replication_slots WHERE slot_type = 'logical' AND NOT temporary \
                          AND NOT coalesce((to_jsonb(pg_replication_slots) ->> 'synced')::boolean, false)"
            )
            .await
            .unwrap(),
            ["0"]
        );
        for m in [&a, &b] {
            m.pg.stop(FENCE).await.unwrap();
        }
    });
}

/// An engine that has logical slots does not start without their level: it keeps that, and says why.
#[test]
fn the_level_that_slots_need_cannot_be_taken_away_from_them() {
    unprivileged("the_level_that_slots_need_cannot_be_taken_away_from_them", async {
        let set = Set::new(&["a-1"]);
        let mut a = set.member(0).await;
        a.pg.set_spec(&set.spec(&[("wal_level", "logical")])).unwrap();
        a.pg.initdb().await.unwrap();
        a.know(1).await;
        a.pg.start(StartAs::Primary { sync: SyncNames::Alone }).await.unwrap();
        a.until("a primary", |e| matches!(e, Engine::Primary(_))).await;
        a.sql("SELECT (pg_create_logical_replication_slot('sub', 'pgoutput')).slot_name::text")
            .await
            .unwrap();
        a.pg.set_spec(&set.spec(&[])).unwrap();
        a.pg.stop(HowToStop::Clean).await.unwrap();
        a.pg.start(StartAs::Primary { sync: SyncNames::Alone }).await.unwrap();
        a.pg.watch()
            .wait_for(|p| matches!(p, holdfast_postgres::pg::Process::Down { .. }))
            .await
            .unwrap();
        a.pg.start(StartAs::Primary { sync: SyncNames::Alone }).await.unwrap();
        a.until("a primary in spite of it", |e| matches!(e, Engine::Primary(_)))
            .await;
        let why = a.pg.rejected().into_iter().find(|r| r.name == "wal_level").unwrap().why;
        assert!(
            why.contains("does not start without it") && why.contains("sub"),
            "{why}"
        );
        a.pg.stop(FENCE).await.unwrap();
    });
}

/// What comes with logical replication is told to an engine that runs with it, not to one that waits for a restart.
#[test]
fn logical_replication_waits_for_the_restart_that_it_needs() {
    unprivileged("logical_replication_waits_for_the_restart_that_it_needs", async {
        let set = Set::new(&["a-1", "a-2"]);
        let (mut a, mut b) = (set.member(0).await, set.member(1).await);
        a.pg.initdb().await.unwrap();
        a.know(1).await;
        a.pg.start(StartAs::Primary { sync: SyncNames::Alone }).await.unwrap();
        a.until("a primary", |e| matches!(e, Engine::Primary(_))).await;
        a.pg.slots(&[MemberName("a-2".into())].into()).await.unwrap();
        b.pg.clone_from(&a.upstream(1)).await.unwrap();
        b.know(1).await;
        b.pg.start(StartAs::Standby {
            upstream: Some(a.upstream(1)),
        })
        .await
        .unwrap();
        b.until("streaming", |e| matches!(e, Engine::Standby(s) if s.receiving))
            .await;
        for m in [&mut a, &mut b] {
            m.pg.set_spec(&set.spec(&[("wal_level", "logical")])).unwrap();
            until("pending", async || {
                m.seen.look_for_pending().await;
                m.seen.pending_restart == ["wal_level"]
            })
            .await;
            assert_eq!(m.sql("SHOW hot_standby_feedback").await.unwrap(), ["off"]);
        }
        b.pg.stop(HowToStop::Clean).await.unwrap();
        b.pg.start(StartAs::Standby {
            upstream: Some(a.upstream(1)),
        })
        .await
        .unwrap();
        b.until("streaming", |e| matches!(e, Engine::Standby(s) if s.receiving))
            .await;
        assert_eq!(b.sql("SHOW wal_level").await.unwrap(), ["logical"]);
        if b.pg.bin.major >= 17 {
            assert_eq!(b.sql("SHOW sync_replication_slots").await.unwrap(), ["on"]);
            assert_eq!(b.sql("SHOW hot_standby_feedback").await.unwrap(), ["on"]);
        }
        for m in [&a, &b] {
            m.pg.stop(FENCE).await.unwrap();
        }
    });
}
