//! The member's status: made from the machine's view, written when it changes.

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::archive::Archiving;
use holdfast_core::instance::{State, View};
use holdfast_core::plan::Reason;
use holdfast_postgres::Pg;
use holdfast_wire::{MemberState, MemberStatus, STATUS_EVERY, WIRE_VERSION};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::looking::Looking;
use crate::options::Options;
use crate::peers::Peers;

/// Changes that come together are written together.
const GATHER: Duration = Duration::from_millis(200);

/// Writes the status for as long as the agent runs.
pub struct Reporter {
    pub(crate) options: Arc<Options>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) pg: Arc<Pg>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) looking: Arc<Looking>,
    pub(crate) view: watch::Receiver<View>,
}

impl Reporter {
    /// Begins.
    pub fn begin(self) {
        tokio::spawn(self.run());
    }

    async fn run(mut self) {
        let mut written: Option<(MemberStatus, Instant)> = None;
        let mut pause = GATHER;
        loop {
            tokio::time::sleep(pause).await;
            pause = GATHER;
            self.view.mark_unchanged();
            let status = self.status();
            let due = written
                .as_ref()
                .is_none_or(|(old, at)| news(old, &status) || at.elapsed() >= STATUS_EVERY);
            if !due {
                // From the last write, not from this look: what came and was no news puts nothing off.
                let next = written.as_ref().map_or_else(Instant::now, |(_, at)| *at + STATUS_EVERY);
                tokio::select! {
                    changed = self.view.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep_until(next) => {}
                }
                continue;
            }
            match self.cluster.report(&status).await {
                Ok(()) => written = Some((status, Instant::now())),
                Err(e) => {
                    tracing::debug!("status not written: {e:#}");
                    pause = Duration::from_secs(1);
                }
            }
        }
    }

    fn status(&self) -> MemberStatus {
        let view = self.view.borrow().clone();
        let space = holdfast_postgres::volume::space(&self.options.layout);
        MemberStatus {
            wire: WIRE_VERSION,
            agent: crate::VERSION.to_owned(),
            pod_uid: self.options.pod_uid.clone(),
            at: jiff::Timestamp::now().to_string(),
            spec_generation: view.spec_generation,
            role: view.role,
            state: state(view.state),
            reason: view.why.as_ref().map_or("", |w| w.reason()).to_owned(),
            message: view.why.as_ref().map(ToString::to_string).unwrap_or_default(),
            term: view.term,
            dir: view.dir,
            position: view.position,
            replayed: view.replayed,
            lag_bytes: view.lag_bytes,
            leader: view.leader,
            engine_version: Some(self.pg.bin.version.clone()),
            system_identifier: view.system_identifier,
            pending_restart: self.looking.pending_restart(),
            rejected: self.pg.rejected(),
            archiving: self.looking.archiving(),
            certificate_expires: self.peers.expires(),
            volume_free_bytes: space.map(|(free, _)| free),
            volume_bytes: space.map(|(_, all)| all),
        }
    }
}

/// Whether anything but the time and positions differs.
fn news(old: &MemberStatus, new: &MemberStatus) -> bool {
    let bare = |s: &MemberStatus| MemberStatus {
        at: String::new(),
        position: Default::default(),
        replayed: Default::default(),
        lag_bytes: None,
        volume_free_bytes: None,
        archiving: s.archiving.clone().map(|a| Archiving {
            failing: a.failing,
            ..Archiving::default()
        }),
        ..s.clone()
    };
    bare(old) != bare(new)
}

fn state(state: State) -> MemberState {
    match state {
        State::Initializing => MemberState::Initializing,
        State::Cloning => MemberState::Cloning,
        State::Rewinding => MemberState::Rewinding,
        State::Starting => MemberState::Starting,
        State::Serving => MemberState::Serving,
        State::Waiting => MemberState::Waiting,
        State::Streaming => MemberState::Streaming,
        State::CatchingUp => MemberState::CatchingUp,
        State::Sealed => MemberState::Sealed,
        State::Stopped => MemberState::Stopped,
        State::Failed => MemberState::Failed,
    }
}
