//! What the engine is, as the agent's machine wants to know it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_core::archive::Archiving;
use holdfast_core::failover::{DirId, Lsn, Term};
use holdfast_core::instance::{Engine, PrimarySeen, ReplicaSeen, StandbySeen, SyncNames};
use holdfast_wire::REPLICATION_ROLE;
use tokio_postgres::Row;

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::health::HealthWrites;
use crate::pg::{Pg, Process};
use crate::session::{Refusal, Session, within};
use crate::{archive, history, replication, sync_names};

/// Each question has to be answered within this time; else the engine is silent.
const DEADLINE: Duration = Duration::from_millis(1000);

/// Slots that could not be dropped are tried again after this time.
const SLOTS_AGAIN: Duration = Duration::from_secs(1);

/// The `application_name` of a clone under way, which is nobody's directory.
pub const CLONING: &str = "holdfast_clone";

/// Looks at one engine. One observer per agent.
pub struct Observer {
    pg: Arc<Pg>,
    session: Option<Session>,
    health: Option<HealthWrites>,
    /// Of which process the rest is known.
    pid: Option<u32>,
    /// The synchronous standbys that postmaster and checkpointer have taken up; unknown after a start.
    in_force: Option<SyncNames>,
    /// A standby has replayed its own log to the end.
    replayed_all: bool,
    /// What is looked at once after each start has been.
    looked_once: bool,
    /// When slots of a former process could not be dropped.
    slots_tried: Option<Instant>,
    /// For status.
    pub pending_restart: Vec<String>,
    /// For status: how archiving goes, if log is archived and that was seen.
    pub archiving: Option<Archiving>,
}

impl Observer {
    /// Nothing seen yet.
    pub fn new(pg: Arc<Pg>) -> Observer {
        Observer {
            pg,
            session: None,
            health: None,
            pid: None,
            in_force: None,
            replayed_all: false,
            looked_once: false,
            slots_tried: None,
            pending_restart: Vec::new(),
            archiving: None,
        }
    }

    /// Looks now.
    pub async fn observe(&mut self) -> Engine {
        let pid = match self.pg.process() {
            Process::Down { clean } => {
                self.reset(None);
                return Engine::Down { clean };
            }
            // Whatever its processes still do, it answers nobody and writes nothing.
            Process::Ended { .. } => {
                self.reset(None);
                return Engine::Down { clean: true };
            }
            Process::Up { pid } => pid,
        };
        if self.pid != Some(pid) {
            self.reset(Some(pid));
        }
        if self.session.as_ref().is_none_or(Session::is_closed) {
            self.session = match self.pg.session("holdfast agent", DEADLINE).await {
                Ok(s) => Some(s),
                Err(Refusal::NotYet) => return Engine::Starting,
                Err(Refusal::Silent) => return Engine::Silent,
                Err(Refusal::Other(why)) => {
                    tracing::warn!("the engine refuses the agent: {why}");
                    return Engine::Silent;
                }
            };
        }
        let Some(session) = self.session.take() else {
            return Engine::Silent;
        };
        let seen = self.ask(&session).await;
        match seen {
            Ok(engine) => {
                self.session = Some(session);
                engine
            }
            Err(Error::Deadline(_)) => Engine::Silent,
            Err(e) => {
                tracing::debug!("looking at the engine failed: {e}");
                // The session broke: the engine is going down or was promoted; the next look tells.
                Engine::Starting
            }
        }
    }

    fn reset(&mut self, pid: Option<u32>) {
        self.pid = pid;
        self.session = None;
        self.health = None;
        self.in_force = None;
        self.replayed_all = false;
        self.looked_once = false;
        self.slots_tried = None;
        self.archiving = None;
    }

    async fn ask(&mut self, session: &Session) -> Result<Engine> {
        let row = within(DEADLINE, session.query_one("SELECT pg_is_in_recovery()", &[])).await?;
        let standby: bool = row.try_get(0)?;
        let engine = if standby {
            self.ask_standby(session).await?
        } else {
            self.ask_primary(session).await?
        };
        if !self.looked_once && !matches!(engine, Engine::Starting) {
            self.looked_once = true;
            self.pg.answered();
            let catalog = Catalog::read(session).await?;
            catalog.save(self.pg.layout());
            self.pg.wish().catalog = Some(catalog);
            self.pg.check_parameters();
            self.pg.reload()?;
            if standby {
                let follows = self.pg.has_logical_slots() && self.pg.wish().upstream.is_some();
                if follows && let Err(e) = self.pg.drop_stale(session).await {
                    // The next start, or the next leader to follow, tries again.
                    tracing::warn!("{e}");
                }
            }
        }
        if standby && !matches!(engine, Engine::Starting) {
            self.drop_former_slots(session).await;
        }
        Ok(engine)
    }

    /// Slots of a former process go at the first look, or later if they cannot: else they hold the log for ever.
    async fn drop_former_slots(&mut self, session: &Session) {
        if self.slots_tried.is_some_and(|at| at.elapsed() < SLOTS_AGAIN) {
            return;
        }
        if let Err(e) = self.pg.drop_former_slots(session).await {
            tracing::warn!("slots of a former process are not dropped yet: {e}");
            self.slots_tried = Some(Instant::now());
        }
    }

    /// Parameters that wait for a restart.
    pub async fn look_for_pending(&mut self) {
        let Some(session) = &self.session else { return };
        let sql = "SELECT coalesce(array_agg(name ORDER BY name), '{}') FROM pg_settings WHERE pending_restart";
        if let Ok(row) = within(DEADLINE, session.query_one(sql, &[])).await {
            self.pending_restart = row.try_get(0).unwrap_or_default();
        }
        self.look_for_refused().await;
    }

    /// How archiving goes.
    pub async fn look_at_archiving(&mut self) {
        let Some(session) = self.session.as_ref().filter(|_| self.pg.settings.archive.is_some()) else {
            return;
        };
        match archive::look(session, DEADLINE).await {
            Ok(archiving) => self.archiving = Some(archiving),
            // The next question would wait for this one's answer, and the engine seem silent.
            Err(Error::Deadline(_)) => self.session = None,
            Err(e) => tracing::debug!("looking at the archiver failed: {e}"),
        }
    }

    /// Values that only the engine itself can judge, and that it did not take up. The file's own parameters that need a
    /// restart are told as errors too; they are not.
    async fn look_for_refused(&mut self) {
        let Some(session) = &self.session else { return };
        let told = self.pg.wish().checked.clone();
        let sql = "SELECT coalesce(array_agg(lower(f.name)), '{}') FROM pg_file_settings f \
                   WHERE f.name IS NOT NULL AND f.error IS NOT NULL AND NOT EXISTS \
                   (SELECT FROM pg_settings s WHERE lower(s.name) = lower(f.name) AND s.context = 'postmaster')";
        let Ok(row) = within(DEADLINE, session.query_one(sql, &[])).await else {
            return;
        };
        let errors: Vec<String> = row.try_get(0).unwrap_or_default();
        if let Err(e) = self.pg.reloaded(&told, &errors.into_iter().collect()) {
            tracing::warn!("cannot take refused parameters back: {e}");
        }
    }

    async fn ask_primary(&mut self, session: &Session) -> Result<Engine> {
        if self.health.is_none() {
            self.health = Some(HealthWrites::begin(Arc::clone(&self.pg)));
        }
        let sql = "SELECT pg_walfile_name(pg_current_wal_insert_lsn()), pg_current_wal_flush_lsn()::text, \
                   pg_current_wal_insert_lsn()::text, current_setting('synchronous_standby_names')";
        let row = within(DEADLINE, session.query_one(sql, &[])).await?;
        let file: String = row.try_get(0)?;
        let term = file
            .get(..8)
            .and_then(|t| u32::from_str_radix(t, 16).ok())
            .map(Term)
            .ok_or_else(|| Error::State(format!("{file:?} names no timeline")))?;
        let sql = "SELECT application_name, state = 'streaming', flush_lsn::text, replay_lsn::text, sync_priority > 0 \
                   FROM pg_stat_replication WHERE usename = $1 AND application_name <> $2";
        let rows = within(DEADLINE, session.query(sql, &[&REPLICATION_ROLE, &CLONING])).await?;
        let replicas = rows.iter().map(replica).collect::<Result<_>>()?;
        let said = sync_names::parse(row.try_get(3)?);
        let sync = self.sync_in_force(said).await;
        Ok(Engine::Primary(PrimarySeen {
            term,
            flushed: lsn(&row, 1)?,
            inserted: lsn(&row, 2)?,
            sync,
            history: history::read(&self.pg.layout().pgdata(), term),
            replicas,
            healthy: self.health.as_ref().is_some_and(HealthWrites::healthy),
        }))
    }

    /// The synchronous standbys by which each commit waits from now on: what was certain last, unless this session sees another.
    async fn sync_in_force(&mut self, said: SyncNames) -> SyncNames {
        if self.in_force.as_ref() != Some(&said)
            && let Ok(fresh) = self.pg.sync_taken_up().await
        {
            self.in_force = fresh.or(self.in_force.take());
        }
        // A rule that nobody asked for: what holds is not known.
        self.in_force.clone().unwrap_or_else(|| sync_names::parse("?"))
    }

    async fn ask_standby(&mut self, session: &Session) -> Result<Engine> {
        self.health = None;
        // After promotion nothing of this is true any more.
        self.in_force = None;
        let sql = "SELECT coalesce(pg_last_wal_receive_lsn(), '0/0')::text, coalesce(pg_last_wal_replay_lsn(), '0/0')::text, \
                   EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'walreceiver'), \
                   (SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup')";
        let row = within(DEADLINE, session.query_one(sql, &[])).await?;
        let (received, replayed) = (lsn(&row, 0)?, lsn(&row, 1)?);
        let waits: Option<String> = row.try_get(3)?;
        // The startup process asks for more only when it has replayed all that is here.
        let at_end = replication::asks_for_more_log(waits.as_deref());
        self.pg.take_up_leader()?;
        self.replayed_all |= at_end || received > Lsn(0);
        if !self.replayed_all {
            return Ok(Engine::Starting);
        }
        let (following, sealing) = {
            let wish = self.pg.wish();
            (wish.following, wish.sealing)
        };
        let running: bool = row.try_get(2)?;
        Ok(Engine::Standby(StandbySeen {
            // It may end in the midst of a record (ADR 21): not all of it need be replayed when the startup process asks for more, and a
            // commit that was acknowledged may be in what is not.
            flushed: received.max(replayed),
            replayed,
            receiving: running || sealing,
            diverged: self.pg.heard.diverged(),
            history: following
                .map(|t| history::read(&self.pg.layout().pgdata(), t))
                .unwrap_or_default(),
        }))
    }
}

fn lsn(row: &Row, at: usize) -> Result<Lsn> {
    let text: Option<&str> = row.try_get(at)?;
    text.unwrap_or("0/0").parse().map_err(|e| Error::State(format!("{e}")))
}

fn replica(row: &Row) -> Result<ReplicaSeen> {
    let streaming: Option<bool> = row.try_get(1)?;
    let counts: Option<bool> = row.try_get(4)?;
    Ok(ReplicaSeen {
        dir: DirId(row.try_get(0)?),
        streaming: streaming.unwrap_or(false),
        flushed: lsn(row, 2)?,
        replayed: lsn(row, 3)?,
        counts: counts.unwrap_or(false),
    })
}
