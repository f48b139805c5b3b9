//! `holdfast operator`: health first, then leadership, then controllers. Losing leadership ends the process: whatever was
//! being done is found again by the next leader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use backon::{ExponentialBuilder, Retryable};
use holdfast_controllers::runtime::Metrics;
use holdfast_controllers::{git_source, replica_set};
use kube_lease_manager::LeaseManagerBuilder;
use tokio_util::sync::CancellationToken;

use crate::relay;

/// The operator's flags; each is also an environment variable, which the chart sets.
#[derive(clap::Args)]
pub struct Options {
    /// Image that brings the agent into members' Pods: this operator's own.
    #[arg(long, env = "HOLDFAST_IMAGE")]
    agent_image: String,
    /// Watch only this namespace.
    #[arg(long, env = "HOLDFAST_WATCH_NAMESPACE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    watch_namespace: Option<String>,
    /// Namespace of the Lease by which operators elect their leader.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    lease_namespace: String,
    /// This process in that election.
    #[arg(long, env = "POD_NAME", default_value = "holdfast")]
    identity: String,
    /// This process' address, at which other replicas of the operator pass webhooks on to it when it leads.
    #[arg(long, env = "POD_IP")]
    address: Option<std::net::IpAddr>,
    /// Lifetime of members' certificates, for example 2160h; renewed after two thirds.
    #[arg(long, env = "HOLDFAST_CERTIFICATE_LIFETIME", default_value = "2160h")]
    certificate_lifetime: jiff::SignedDuration,
    /// Lifetime of a replica set's certificate authority.
    #[arg(long, env = "HOLDFAST_AUTHORITY_LIFETIME", default_value = "43800h")]
    authority_lifetime: jiff::SignedDuration,
    /// Folder for the copies of Git repositories; what is in it may be lost at any time.
    #[arg(long, env = "HOLDFAST_GIT_CACHE", default_value = "/var/cache/holdfast/git")]
    git_cache: std::path::PathBuf,
    /// Port on which Git servers say that something was pushed: POST /hook/<namespace>/<name>.
    #[arg(long, env = "HOLDFAST_WEBHOOK_PORT", default_value_t = 9292)]
    webhook_port: u16,
    /// Port of /healthz, /readyz and /metrics.
    #[arg(long, env = "HOLDFAST_HEALTH_PORT", default_value_t = 8080)]
    health_port: u16,
}

/// The Lease by which operators elect their leader.
pub const LEASE: &str = "holdfast-operator";
/// A Lease not renewed for this long is free (seconds; client-go's default).
const LEASE_DURATION: u64 = 15;
/// The Lease is renewed when this is left of it (seconds): every 3 s, so that one slow answer of the API server is not the end
/// of a reign (client-go renews every 2 s). It is also the clock skew between nodes that is borne.
const LEASE_GRACE: u64 = 12;

/// Between two tries to reach the API server at the start.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Runs until a signal or lost leadership.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let ready = Arc::new(AtomicBool::new(false));
    let metrics = Arc::new(Metrics::default());
    let health = serve_health(options.health_port, ready.clone(), metrics.clone()).await?;
    let config = kube::Config::infer()
        .await
        .context("no Kubernetes API: neither in a Pod nor with a kubeconfig")?;
    let client = holdfast_kube::connect(config.clone()).context("no client for the Kubernetes API")?;
    let stop = CancellationToken::new();
    tokio::spawn(signals(stop.clone()));

    let identity = relay::identity(&options.identity, options.address);
    // A node that has just started reaches the API server a while later: ending meanwhile would earn ever longer pauses before
    // each restart, up to five minutes without an operator.
    let prepare = || {
        LeaseManagerBuilder::new(client.clone(), LEASE)
            .with_namespace(&options.lease_namespace)
            .with_identity(&identity)
            .with_duration(LEASE_DURATION)
            .with_grace(LEASE_GRACE)
            .build()
    };
    let patient = ExponentialBuilder::default()
        .with_jitter()
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times();
    let prepared = prepare
        .retry(patient)
        .notify(|e, pause| tracing::warn!(?pause, "the operator's Lease cannot be prepared: {e}"));
    let manager = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        manager = prepared => manager.context("preparing the operator's Lease")?,
    };
    // Not before: an operator without rights, or without an API server, is of no use yet, and its Pod says so.
    ready.store(true, Ordering::Relaxed);
    let (mut leads, election) = manager.watch().await;
    tracing::info!(identity, "waits to lead");
    let relay = relay::start(
        client.clone(),
        options.lease_namespace.clone(),
        options.address,
        options.webhook_port,
    )
    .await?;
    loop {
        if *leads.borrow_and_update() {
            break;
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = leads.changed() => changed.context("the election ended")?,
        }
    }
    relay.abort();
    // Its port is free only when it has ended.
    let _ = relay.await;
    metrics.leads(true);
    tracing::info!(identity, version = env!("CARGO_PKG_VERSION"), "leads");

    let settings = replica_set::Settings {
        agent_image: options.agent_image,
        namespace: options.watch_namespace.clone(),
        certificate_lifetime: options.certificate_lifetime,
        authority_lifetime: options.authority_lifetime,
    };
    let sources = git_source::Sources::new(
        client.clone(),
        config,
        git_source::Settings {
            cache: options.git_cache,
            namespace: options.watch_namespace,
        },
        metrics.clone(),
    );
    let webhook = serve(options.webhook_port, git_source::webhook::router(sources.clone())).await?;
    let replica_sets = replica_set::run(client.clone(), settings, metrics, stop.clone());
    let git_sources = git_source::run(sources, stop.clone());
    let controllers = tokio::spawn(async move {
        tokio::select! {
            () = replica_sets => "HAReplicaSet",
            () = git_sources => "GitSource",
        }
    });
    let lost = async {
        while leads.changed().await.is_ok() {
            if !*leads.borrow_and_update() {
                break;
            }
        }
    };
    let result = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        () = lost => Err(anyhow::anyhow!("leadership lost; another operator goes on")),
        ended = controllers, if !stop.is_cancelled() => Err(anyhow::anyhow!("a controller ended: {ended:?}")),
    };
    stop.cancel();
    drop(leads);
    // The manager releases the Lease when its channel is closed, so that a successor need not wait for the time-out.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(3), election).await;
    health.abort();
    webhook.abort();
    result
}

async fn signals(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    if let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("asked to stop");
        stop.cancel();
    }
}

async fn serve_health(
    port: u16,
    ready: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    /// What Prometheus asks for when it takes OpenMetrics.
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route(
            "/readyz",
            get(move || async move {
                if ready.load(Ordering::Relaxed) {
                    (StatusCode::OK, "ok")
                } else {
                    (StatusCode::SERVICE_UNAVAILABLE, "no API")
                }
            }),
        )
        .route(
            "/metrics",
            get(move || async move { ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.text()) }),
        );
    serve(port, router).await
}

async fn serve(port: u16, router: Router) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let listener = tokio::net::TcpListener::bind(("0.0.0.0", port))
        .await
        .with_context(|| format!("port {port}"))?;
    Ok(tokio::spawn(async move {
        let _ = axum::serve(listener, router).await;
    }))
}
