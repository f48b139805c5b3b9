//! Takes messages from peers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use holdfast_core::failover::MemberName;
use holdfast_core::instance::{Event, Message};
use holdfast_wire::PEER_PATH;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::{Peers, tls};

/// A message is far smaller: a heartbeat with 64 ancestors is about 4 kB.
const BODY_LIMIT: usize = 64 * 1024;
/// A set has a handful of members, each with one or two connections.
const CONNECTIONS: usize = 64;
/// For the handshake, and for each request from its first byte.
const DEADLINE: Duration = Duration::from_secs(1);
/// Peers beat about once a second; a connection without a word for this long is dead.
const IDLE: Duration = Duration::from_secs(30);

pub(super) async fn listen(peers: &Arc<Peers>) -> anyhow::Result<()> {
    let at = format!("{}:{}", peers.options.bind(), peers.options.peer_port);
    let listener = TcpListener::bind(&at)
        .await
        .with_context(|| format!("listen on {at}"))?;
    let peers = Arc::clone(peers);
    tokio::spawn(async move {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            // A place first: what cannot be served waits in the kernel's queue.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors, mostly.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let peers = Arc::clone(&peers);
            tokio::spawn(async move {
                if let Err(e) = serve(&peers, stream).await {
                    tracing::debug!("peer connection: {e:#}");
                }
                drop(slot);
            });
        }
    });
    Ok(())
}

async fn serve(peers: &Arc<Peers>, stream: TcpStream) -> anyhow::Result<()> {
    let config = peers
        .tls
        .borrow()
        .as_ref()
        .map(|t| Arc::clone(&t.server))
        .context("no certificate yet")?;
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(DEADLINE, TlsAcceptor::from(config).accept(stream)).await??;
    let from = {
        let (_, session) = stream.get_ref();
        session
            .peer_certificates()
            .and_then(|c| c.first())
            .and_then(tls::member)
            .context("certificate names no member")?
    };
    let service = service_fn(|request| {
        let (peers, from) = (Arc::clone(peers), from.clone());
        async move { Ok::<_, Infallible>(answer(&peers, &from, request).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

async fn answer(peers: &Arc<Peers>, from: &MemberName, request: Request<Incoming>) -> Response<Empty<Bytes>> {
    let status = match take(peers, from, request).await {
        Ok(message) => {
            peers.metrics.received.inc();
            peers.learn(from, &message);
            crate::cluster::hand(
                &peers.inbox,
                Event::Message {
                    from: from.clone(),
                    message,
                },
            );
            StatusCode::NO_CONTENT
        }
        Err(status) => status,
    };
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

async fn take(peers: &Peers, from: &MemberName, request: Request<Incoming>) -> Result<Message, StatusCode> {
    if request.method() != Method::POST || request.uri().path() != PEER_PATH {
        return Err(StatusCode::NOT_FOUND);
    }
    // The CA may sign for others than members, and a member may have left.
    if !peers.known().contains_key(from) || *from == peers.options.member {
        tracing::warn!(%from, "refused a message: not a member by the wish");
        return Err(StatusCode::FORBIDDEN);
    }
    let body = tokio::time::timeout(DEADLINE, Limited::new(request.into_body(), BODY_LIMIT).collect())
        .await
        .map_err(|_| StatusCode::REQUEST_TIMEOUT)?
        .map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
    serde_json::from_slice(&body.to_bytes()).map_err(|e| {
        tracing::warn!(%from, "refused a message: {e}");
        StatusCode::UNPROCESSABLE_ENTITY
    })
}
