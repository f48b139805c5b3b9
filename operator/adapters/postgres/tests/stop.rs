//! Stopping a real primary, and what it is as a standby.

// A panic in a test's helper is the assertion, as in the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use holdfast_core::instance::{Engine, HowToStop, StartAs};
use holdfast_postgres::pg::Process;
use holdfast_postgres::process;
use nix::sys::signal::Signal;
use support::{Member, streaming, unprivileged};

async fn receiver(m: &Member) -> u32 {
    let sql = "SELECT pid::text FROM pg_stat_wal_receiver";
    m.sql(sql).await.unwrap()[0].parse().unwrap()
}

/// As a client of the set would.
async fn rows(m: &Member) -> Result<String, String> {
    let url = format!(
        "host={} port={} user=app dbname=shop password='s3cret\\'pass' sslmode=require",
        m.address, m.pg.settings.port
    );
    let args = ["-XAtc", "SELECT count(*) FROM extra", &url];
    let said = m.pg.bin.run("psql", &args, Duration::from_secs(10)).await;
    said.map(|s| s.trim().to_owned()).map_err(|e| e.to_string())
}

#[test]
fn a_clean_stop_is_told_when_the_log_has_ended_and_standbys_get_the_rest_of_it() {
    unprivileged(
        "a_clean_stop_is_told_when_the_log_has_ended_and_standbys_get_the_rest_of_it",
        async {
            let (_set, mut a, mut b, mut c) = streaming().await;
            let receivers = [receiver(&b).await, receiver(&c).await];
            // Nobody takes the shutdown's record, and the walsenders wait for that.
            receivers.iter().for_each(|pid| process::signal(*pid, Signal::SIGSTOP));
            a.pg.stop(HowToStop::Clean).await.unwrap();
            let process = a.pg.process();
            let volume = holdfast_postgres::volume::look(&a.pg.bin, a.pg.layout()).await.unwrap();
            let seen = a.seen.observe().await;
            receivers.iter().for_each(|pid| process::signal(*pid, Signal::SIGCONT));

            assert!(matches!(process, Process::Ended { .. }), "{process:?}");
            assert_eq!(seen, Engine::Down { clean: true });
            assert!(volume.clean, "{volume:?}");
            let end = volume.control.unwrap().lsn;
            for m in [&mut b, &mut c] {
                let all = |e: &Engine| matches!(e, Engine::Standby(s) if s.flushed == end);
                m.until("all of the log", all).await;
            }
            a.pg.gone().await;
            assert_eq!(a.pg.process(), Process::Down { clean: true });
            for m in [&b, &c] {
                m.pg.stop(HowToStop::Fence { kill_after_ms: 1000 }).await.unwrap();
            }
        },
    );
}

#[test]
fn a_former_primary_is_started_once_it_is_gone_and_lets_clients_in_once_it_follows() {
    unprivileged(
        "a_former_primary_is_started_once_it_is_gone_and_lets_clients_in_once_it_follows",
        async {
            let (_set, mut a, b, c) = streaming().await;
            assert_eq!(rows(&b).await.unwrap(), "0", "a replica may be read from");
            a.pg.stop(HowToStop::Clean).await.unwrap();
            a.pg.start(StartAs::Standby { upstream: None }).await.unwrap();
            a.until("a standby", |e| matches!(e, Engine::Standby(_))).await;
            let refused = rows(&a).await.unwrap_err();
            assert!(refused.contains("no pg_hba.conf entry"), "{refused}");
            a.pg.follow(Some(b.upstream(1))).await.unwrap();
            let mut said = rows(&a).await;
            for _ in 0..100 {
                if said.is_ok() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                said = rows(&a).await;
            }
            assert_eq!(said.unwrap(), "0");
            for m in [&a, &b, &c] {
                m.pg.stop(HowToStop::Fence { kill_after_ms: 1000 }).await.unwrap();
            }
        },
    );
}

/// A directory whose control file is damaged is neither whole nor empty, whatever a major version says of it and where.
#[test]
fn a_damaged_control_file_is_told_from_none() {
    unprivileged("a_damaged_control_file_is_told_from_none", async {
        let (_set, mut a, b, c) = streaming().await;
        let standby = b.pg.layout();
        for m in [&b, &c, &a] {
            m.pg.stop(HowToStop::Fence { kill_after_ms: 1000 }).await.unwrap();
        }
        a.until("down", |e| matches!(e, Engine::Down { .. })).await;
        let look = async || holdfast_postgres::volume::look(&b.pg.bin, standby).await.unwrap();
        let sound = look().await;
        assert!(sound.whole && !sound.damaged, "{sound:?}");

        let file = b.pgdata().join("global/pg_control");
        let before = std::fs::read(&file).unwrap();
        let mut flipped = before.clone();
        // Within the newest checkpoint's position, so that only the checksum tells.
        flipped[40] ^= 0x10;
        std::fs::write(&file, &flipped).unwrap();
        let seen = look().await;
        assert!(!seen.whole && seen.damaged && seen.control.is_none(), "{seen:?}");
        std::fs::write(&file, &before[..100]).unwrap();
        let seen = look().await;
        assert!(!seen.whole && seen.damaged, "{seen:?}");
        std::fs::remove_file(&file).unwrap();
        let seen = look().await;
        assert!(!seen.whole && seen.damaged, "{seen:?}");
        std::fs::write(&file, &before).unwrap();
        assert_eq!(look().await, sound);

        std::fs::remove_dir_all(b.pgdata()).unwrap();
        let seen = look().await;
        assert!(!seen.whole && !seen.damaged && seen.disk.dir.is_none(), "{seen:?}");
    });
}
