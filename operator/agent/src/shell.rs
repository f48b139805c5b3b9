//! The loop: what happens goes into the machine, what it wants is done.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use holdfast_core::instance::{Effect, Endpoints, Engine, Event, Instance, Moment, SetSpec, View};
use holdfast_core::plan::{Reason, Severity};
use holdfast_postgres::files::{read_optional, write_durable};
use holdfast_postgres::{Binaries, Pg, Settings, process};
use holdfast_wire::SPEC_KEY;
use nix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::cluster::{Cluster, hand};
use crate::health::Health;
use crate::looking::Looking;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::peers::{Peers, tls};
use crate::status::Reporter;
use crate::work::Hands;

/// What happens.
#[derive(Debug)]
pub enum Input {
    /// For the machine as it is.
    Event(Event),
    /// The engine, as sampled in an epoch of [`Looking`].
    Engine {
        /// When it was sampled.
        epoch: u64,
        /// What was seen.
        engine: Engine,
    },
    /// The operator's wish.
    Spec(SetSpec),
}

/// Where everything that happens is sent to. Senders are few, and each waits for its own work before it sends again.
pub type Inbox = UnboundedSender<Input>;

/// The machine wants to hear of time at least this often.
const TICK: Duration = Duration::from_millis(100);
/// Between looks at the mounted certificates.
const TLS_EVERY: Duration = Duration::from_secs(5);

/// Runs an agent until the machine says that it is done. `main` calls it on a single-threaded runtime.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let options = Arc::new(options);
    process::adopt_orphans();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut child = signal(SignalKind::child())?;
    let (inbox, mut happens) = unbounded_channel();
    let mut shell = Shell::begin(&options, &inbox).await?;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !shell.done {
        let event = tokio::select! {
            input = happens.recv() => match input {
                Some(input) => shell.admit(input),
                None => None,
            },
            _ = tick.tick() => { process::reap(); Some(Event::Tick) }
            _ = terminate.recv() => Some(Event::Shutdown),
            _ = interrupt.recv() => Some(Event::Shutdown),
            _ = child.recv() => { process::reap(); None }
        };
        if let Some(event) = event {
            shell.step(event);
        }
    }
    shell.pg.gone().await;
    tracing::info!("ends");
    Ok(())
}

struct Shell {
    options: Arc<Options>,
    machine: Instance,
    pg: Arc<Pg>,
    hands: Hands,
    looking: Arc<Looking>,
    peers: Arc<Peers>,
    cluster: Arc<Cluster>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    inbox: Inbox,
    view: watch::Sender<View>,
    traffic: watch::Sender<Option<Endpoints>>,
    spec: Option<SetSpec>,
    begun: Moment,
    done: bool,
}

impl Shell {
    async fn begin(options: &Arc<Options>, inbox: &Inbox) -> anyhow::Result<Shell> {
        let begun = boot_time();
        let seed = rand::random();
        let machine = Instance::new(options.member.clone(), options.timings.clone(), seed);
        let metrics = Arc::new(Metrics::new());
        let (view, seen) = watch::channel(machine.view());
        // Answers before anything that may take long.
        let health = Health::listen(options, &metrics, seen.clone()).await?;
        let settings = Settings {
            member: options.member.clone(),
            layout: options.layout.clone(),
            listen: options.listen.clone(),
            port: options.postgres_port,
            bootstrap: options.bootstrap.clone(),
            archive: options.archive.clone(),
        };
        let bin = Binaries::find(&options.path).await?;
        tracing::info!(member = %options.member, postgresql = bin.version, agent = crate::VERSION, "begins");
        let pg = Pg::new(settings, bin).await?;
        let cluster = Arc::new(Cluster::new(options)?);
        let peers = Peers::new(options, inbox, &metrics).await?;
        let looking = Arc::new(Looking::begin(Arc::clone(&pg), inbox.clone()));
        let hands = Hands::new(&pg, inbox, &metrics);
        let traffic = watch::Sender::new(None);
        tokio::spawn(move_traffic(
            Arc::clone(&cluster),
            Arc::clone(&peers),
            traffic.subscribe(),
        ));
        tokio::spawn(renew_tls(Arc::clone(&pg), Arc::clone(&peers)));
        Reporter {
            options: Arc::clone(options),
            cluster: Arc::clone(&cluster),
            pg: Arc::clone(&pg),
            peers: Arc::clone(&peers),
            looking: Arc::clone(&looking),
            view: seen,
        }
        .begin();
        let volume = pg.look_at_volume().await.context("look at the volume")?;
        hand(inbox, Event::Volume(volume));
        let mut shell = Shell {
            options: Arc::clone(options),
            machine,
            pg,
            hands,
            looking,
            peers,
            cluster,
            metrics,
            health,
            inbox: inbox.clone(),
            view,
            traffic,
            spec: None,
            begun,
            done: false,
        };
        shell.recall_spec();
        shell.cluster.watch(inbox);
        Ok(shell)
    }

    /// The last wish on the volume; on a new volume the mounted one.
    fn recall_spec(&mut self) {
        let layout = &self.options.layout;
        for path in [layout.spec_file(), layout.spec.join(SPEC_KEY)] {
            let wish = read_optional(&path)
                .ok()
                .flatten()
                .and_then(|b| serde_json::from_slice(&b).ok());
            if let Some(spec) = wish {
                let _ = self.inbox.send(Input::Spec(spec));
            }
        }
    }

    /// What the machine is told of an input, if anything.
    fn admit(&mut self, input: Input) -> Option<Event> {
        match input {
            Input::Event(event) => {
                if let Event::Done { .. } = &event {
                    // What was seen before the work ended may tell of the time before it.
                    self.looking.outdate();
                }
                Some(event)
            }
            Input::Engine { epoch, engine } => self.looking.current(epoch).then_some(Event::Engine(engine)),
            Input::Spec(spec) => {
                if self
                    .spec
                    .as_ref()
                    .is_some_and(|old| old.generation > spec.generation || *old == spec)
                {
                    return None;
                }
                self.peers.set_spec(&spec);
                if let Err(e) = self.pg.set_spec(&spec) {
                    tracing::warn!("parameters not taken up: {e}");
                }
                if let Ok(bytes) = serde_json::to_vec(&spec) {
                    let path = self.options.layout.spec_file();
                    tokio::task::spawn_blocking(move || {
                        if let Err(e) = write_durable(&path, &bytes, 0o600) {
                            tracing::warn!("the wish is not kept: {e}");
                        }
                    });
                }
                self.spec = Some(spec.clone());
                Some(Event::Spec(spec))
            }
        }
    }

    fn step(&mut self, event: Event) {
        let now = Moment(boot_time().since(self.begun));
        for effect in self.machine.step(now, event) {
            self.perform(effect);
        }
        self.health.turn();
        let view = self.machine.view();
        self.metrics.view(&view);
        self.view.send_if_modified(|old| {
            let changed = *old != view;
            *old = view;
            changed
        });
    }

    fn perform(&mut self, effect: Effect) {
        if let Effect::Follow(None) = &effect {
            self.pg.begin_sealing();
            self.looking.outdate();
        }
        let Some(effect) = self.hands.take(effect) else { return };
        match effect {
            Effect::ReadRecord => {
                let (cluster, inbox) = (Arc::clone(&self.cluster), self.inbox.clone());
                tokio::spawn(async move { hand(&inbox, Event::Record(cluster.read_record().await)) });
            }
            Effect::WriteRecord { expect, record } => {
                let (cluster, inbox) = (Arc::clone(&self.cluster), self.inbox.clone());
                tokio::spawn(async move { hand(&inbox, Event::Cas(cluster.write_record(expect, record).await)) });
            }
            Effect::Send { to, message } => self.peers.send(&to, message),
            Effect::Look { every_ms } => self.looking.every(every_ms),
            Effect::Publish(endpoints) => {
                self.traffic.send_replace(Some(endpoints));
            }
            Effect::Say(why) => {
                let reason = why.reason();
                match why.severity() {
                    Severity::Normal => tracing::info!(reason, "{why}"),
                    Severity::Warning => tracing::warn!(reason, "{why}"),
                }
                self.metrics.told(reason);
                let cluster = Arc::clone(&self.cluster);
                tokio::spawn(async move { cluster.tell(&why).await });
            }
            Effect::Exit => self.done = true,
            // Taken by the hands above.
            other => tracing::error!(?other, "nobody does this"),
        }
    }
}

/// Moves the traffic to where the machine last wanted it; what it wanted before is dropped.
async fn move_traffic(cluster: Arc<Cluster>, peers: Arc<Peers>, mut wanted: watch::Receiver<Option<Endpoints>>) {
    while wanted.changed().await.is_ok() {
        let Some(endpoints) = wanted.borrow_and_update().clone() else {
            continue;
        };
        let addresses = peers.addresses();
        tokio::select! {
            () = cluster.publish(&endpoints, &addresses) => {}
            _ = newer(wanted.clone()) => {}
        }
    }
}

async fn newer(mut wanted: watch::Receiver<Option<Endpoints>>) {
    let _ = wanted.changed().await;
}

/// Takes up new certificates without a restart of anything.
async fn renew_tls(pg: Arc<Pg>, peers: Arc<Peers>) {
    let mut loaded = false;
    loop {
        match pg.refresh_tls() {
            Ok(changed) if changed || !loaded => match tls::load(&pg.layout().engine_tls()) {
                Ok(tls) => {
                    tracing::info!(expires = tls.expires, "certificate taken up");
                    loaded = true;
                    peers.set_tls(tls);
                }
                Err(e) => tracing::warn!("certificate not taken up: {e:#}"),
            },
            Ok(_) => {}
            Err(e) => tracing::warn!("certificates not read: {e}"),
        }
        tokio::time::sleep(if loaded { TLS_EVERY } else { Duration::from_millis(500) }).await;
    }
}

/// Milliseconds since the machine booted, suspended time included: a thawed agent sees how long it was away.
fn boot_time() -> Moment {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).or_else(|_| clock_gettime(ClockId::CLOCK_MONOTONIC));
    let ms = now.map(|t| Duration::from(t).as_millis()).unwrap_or_default();
    Moment(u64::try_from(ms).unwrap_or(u64::MAX))
}
