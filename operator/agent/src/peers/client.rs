//! Sends messages to one peer.

use std::collections::VecDeque;
use std::mem::discriminant;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use holdfast_core::failover::MemberName;
use holdfast_core::instance::{Event, Message};
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
use crate::cluster::hand;

/// To connect, TLS included.
const CONNECT: Duration = Duration::from_millis(500);
/// For one message, connecting included.
const TOTAL: Duration = Duration::from_millis(1000);
/// Pauses before a peer that hung up is tried again: a process that dies closes its connections before it stops listening.
const HUNG_UP: [Duration; 3] = [
    Duration::from_millis(5),
    Duration::from_millis(25),
    Duration::from_millis(100),
];

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

/// A connection.
struct Link {
    sender: SendRequest<Full<Bytes>>,
    /// Ends with it.
    task: tokio::task::JoinHandle<()>,
}

/// Waits until the peer hangs up, if it is connected.
async fn hung_up(open: &mut Option<Link>) {
    match open {
        Some(link) => _ = (&mut link.task).await,
        None => std::future::pending().await,
    }
}

/// Whether nobody listens where the peer should be.
fn refused(e: &anyhow::Error) -> bool {
    let is = |e: &std::io::Error| e.kind() == std::io::ErrorKind::ConnectionRefused;
    e.chain().any(|cause| cause.downcast_ref().is_some_and(is))
}

/// Connects anew to a peer that hung up, so that one whose process is gone is known to be gone at once.
async fn connect_anew(peers: &Peers, tls: &watch::Receiver<Option<Tls>>, to: &MemberName) -> Option<Link> {
    for pause in HUNG_UP {
        tokio::time::sleep(pause).await;
        let begun = Instant::now();
        match connect(peers, tls, to).await {
            Ok(link) => return Some(link),
            // Its machine is silent: whatever is to be said tries again.
            Err(_) if begun.elapsed() >= CONNECT => return None,
            Err(e) if refused(&e) => {
                hand(&peers.inbox, Event::Refused { by: to.clone() });
                return None;
            }
            Err(_) => {}
        }
    }
    None
}

async fn run(peers: Arc<Peers>, to: MemberName, waiting: Arc<Waiting>) {
    let mut tls = peers.tls.subscribe();
    let mut open: Option<Link> = None;
    let mut reached = true;
    loop {
        let next = waiting
            .messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        let Some(message) = next else {
            tokio::select! {
                () = waiting.more.notified() => {}
                () = hung_up(&mut open) => open = connect_anew(&peers, &tls, &to).await,
            }
            continue;
        };
        if tls.has_changed().unwrap_or(false) {
            tls.mark_unchanged();
            open = None;
        }
        let sent = tokio::time::timeout(TOTAL, send(&peers, &tls, &to, &mut open, &message)).await;
        let problem = match sent {
            Ok(Ok(())) => None,
            Ok(Err(e)) => {
                if refused(&e) {
                    hand(&peers.inbox, Event::Refused { by: to.clone() });
                }
                Some(format!("{e:#}"))
            }
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
    open: &mut Option<Link>,
    message: &Message,
) -> anyhow::Result<()> {
    let body = Bytes::from(serde_json::to_vec(message)?);
    let kept = open.take().filter(|link| !link.sender.is_closed());
    let reused = kept.is_some();
    let mut link = match kept {
        Some(s) => s,
        None => connect(peers, tls, to).await?,
    };
    let answer = match post(&mut link.sender, to, body.clone()).await {
        // The peer had closed the kept connection.
        Err(_) if reused => {
            link = connect(peers, tls, to).await?;
            post(&mut link.sender, to, body).await?
        }
        other => other?,
    };
    if !answer.is_success() {
        bail!("refused: {answer}");
    }
    *open = Some(link);
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

async fn connect(peers: &Peers, tls: &watch::Receiver<Option<Tls>>, to: &MemberName) -> anyhow::Result<Link> {
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
    let task = tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(Link { sender, task })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_machine_where_nobody_listens_refuses_and_one_that_hangs_up_does_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let hangs_up = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(!refused(&anyhow::Error::from(hangs_up)));
        drop(listener);
        let e = TcpStream::connect(at).await.unwrap_err();
        assert!(refused(&anyhow::Error::from(e).context("does not connect")));
    }
}
