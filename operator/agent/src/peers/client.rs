//! Sends messages to one peer.

use std::collections::VecDeque;
use std::mem::discriminant;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use holdfast_core::failover::MemberName;
use holdfast_core::instance::Message;
use holdfast_wire::PEER_PATH;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsConnector;

use super::{Peers, Tls};

/// To connect, TLS included.
const CONNECT: Duration = Duration::from_millis(500);
/// For one message, connecting included.
const TOTAL: Duration = Duration::from_millis(1000);

/// One peer's waiting messages and the task that sends them; the task ends with this.
pub(super) struct Sender {
    waiting: Arc<Waiting>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Waiting {
    messages: Mutex<VecDeque<Message>>,
    more: Notify,
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sender {
    pub(super) fn begin(peers: &Arc<Peers>, to: &MemberName) -> Sender {
        let waiting = Arc::new(Waiting::default());
        let task = tokio::spawn(run(Arc::clone(peers), to.clone(), Arc::clone(&waiting)));
        Sender { waiting, task }
    }

    /// Replaces what waits of the same kind.
    pub(super) fn put(&self, message: Message) {
        let mut messages = self.waiting.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.retain(|m| discriminant(m) != discriminant(&message));
        messages.push_back(message);
        drop(messages);
        self.waiting.more.notify_one();
    }
}

async fn run(peers: Arc<Peers>, to: MemberName, waiting: Arc<Waiting>) {
    let mut tls = peers.tls.subscribe();
    let mut open: Option<SendRequest<Full<Bytes>>> = None;
    let mut reached = true;
    loop {
        let next = waiting
            .messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        let Some(message) = next else {
            waiting.more.notified().await;
            continue;
        };
        if tls.has_changed().unwrap_or(false) {
            tls.mark_unchanged();
            open = None;
        }
        let sent = tokio::time::timeout(TOTAL, send(&peers, &tls, &to, &mut open, &message)).await;
        let problem = match sent {
            Ok(Ok(())) => None,
            Ok(Err(e)) => Some(format!("{e:#}")),
            Err(_) => Some("no answer in time".to_owned()),
        };
        match &problem {
            None => {
                peers.metrics.sent.inc();
            }
            Some(_) => open = None,
        }
        // Said once when it changes: a peer that is down for a day is one line.
        if reached != problem.is_none() {
            reached = problem.is_none();
            match problem {
                None => tracing::info!(peer = %to, "reaches the peer again"),
                Some(why) => tracing::warn!(peer = %to, "does not reach the peer: {why}"),
            }
        }
    }
}

async fn send(
    peers: &Peers,
    tls: &watch::Receiver<Option<Tls>>,
    to: &MemberName,
    open: &mut Option<SendRequest<Full<Bytes>>>,
    message: &Message,
) -> anyhow::Result<()> {
    let body = Bytes::from(serde_json::to_vec(message)?);
    let kept = open.take().filter(|s| !s.is_closed());
    let reused = kept.is_some();
    let mut sender = match kept {
        Some(s) => s,
        None => connect(peers, tls, to).await?,
    };
    let answer = match post(&mut sender, to, body.clone()).await {
        // The peer had closed the kept connection.
        Err(_) if reused => {
            sender = connect(peers, tls, to).await?;
            post(&mut sender, to, body).await?
        }
        other => other?,
    };
    if !answer.is_success() {
        bail!("refused: {answer}");
    }
    *open = Some(sender);
    Ok(())
}

async fn post(sender: &mut SendRequest<Full<Bytes>>, to: &MemberName, body: Bytes) -> anyhow::Result<http::StatusCode> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(PEER_PATH)
        .header(HOST, &to.0)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    sender.ready().await?;
    Ok(sender.send_request(request).await?.status())
}

async fn connect(
    peers: &Peers,
    tls: &watch::Receiver<Option<Tls>>,
    to: &MemberName,
) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let address = peers
        .known()
        .get(to)
        .cloned()
        .flatten()
        .context("its address is not known yet")?;
    let config = tls
        .borrow()
        .as_ref()
        .map(|t| Arc::clone(&t.client))
        .context("no certificate yet")?;
    let name = ServerName::try_from(to.0.clone()).context("its name cannot be in a certificate")?;
    let connecting = async {
        let ip: std::net::IpAddr = address.parse().context("its address")?;
        let stream = TcpStream::connect((ip, peers.options.peer_port)).await?;
        stream.set_nodelay(true)?;
        // Its certificate must be for this very member, wherever it is.
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        anyhow::Ok(handshake(TokioIo::new(stream)).await?)
    };
    let (sender, connection) = tokio::time::timeout(CONNECT, connecting)
        .await
        .context("does not connect in time")??;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}
