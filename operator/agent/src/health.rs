//! Plain HTTP for kubelet and Prometheus.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use holdfast_core::instance::{State, View};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::metrics::Metrics;
use crate::options::Options;

/// The loop ticks ten times a second; one that has not for this long does not turn any more.
const ALIVE: Duration = Duration::from_secs(10);

/// What the answers are made of.
pub struct Health {
    options: Arc<Options>,
    metrics: Arc<Metrics>,
    view: watch::Receiver<View>,
    begun: Instant,
    /// Milliseconds since `begun` at the loop's last turn.
    turned: AtomicU64,
}

impl Health {
    /// Begins to answer.
    pub async fn listen(
        options: &Arc<Options>,
        metrics: &Arc<Metrics>,
        view: watch::Receiver<View>,
    ) -> anyhow::Result<Arc<Health>> {
        let at = format!("{}:{}", options.bind(), options.health_port);
        let listener = TcpListener::bind(&at)
            .await
            .with_context(|| format!("listen on {at}"))?;
        let health = Arc::new(Health {
            options: Arc::clone(options),
            metrics: Arc::clone(metrics),
            view,
            begun: Instant::now(),
            turned: AtomicU64::new(0),
        });
        let me = Arc::clone(&health);
        tokio::spawn(async move {
            let slots = Arc::new(Semaphore::new(16));
            loop {
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                    return;
                };
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let me = Arc::clone(&me);
                tokio::spawn(async move {
                    let service = service_fn(|request| {
                        let answer = me.answer(&request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let _ = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(Duration::from_secs(5))
                        .keep_alive(false)
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                    drop(slot);
                });
            }
        });
        Ok(health)
    }

    /// The loop has turned.
    pub fn turn(&self) {
        let at = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.turned.store(at, Ordering::Relaxed);
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, text) = match request.uri().path() {
            "/livez" | "/startupz" => {
                let turned = self.begun + Duration::from_millis(self.turned.load(Ordering::Relaxed));
                match turned.elapsed() < ALIVE {
                    true => (StatusCode::OK, "alive\n".to_owned()),
                    false => (
                        StatusCode::SERVICE_UNAVAILABLE,
                        "the agent's loop does not turn\n".to_owned(),
                    ),
                }
            }
            "/readyz" => {
                let view = self.view.borrow();
                let why = view.why.as_ref().map(ToString::to_string).unwrap_or_default();
                match ready(&view) {
                    true => (StatusCode::OK, format!("{why}\n")),
                    false => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
                }
            }
            "/metrics" => {
                let free = holdfast_postgres::volume::space(&self.options.layout).map(|(free, _)| free);
                (StatusCode::OK, self.metrics.text(free))
            }
            _ => (StatusCode::NOT_FOUND, String::new()),
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response
    }
}

/// Fit for its role: a leader with its gate open, or a replica that streams.
fn ready(view: &View) -> bool {
    match view.state {
        State::Serving => view.gate_open,
        State::Streaming | State::CatchingUp => true,
        _ => false,
    }
}
