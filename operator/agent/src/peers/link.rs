//! A connection to one peer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use holdfast_core::failover::MemberName;
use holdfast_wire::PEER_PATH;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::{Peers, Tls};

/// To connect, TLS included.
pub(super) const CONNECT: Duration = Duration::from_millis(500);

/// A connection.
pub(super) struct Link {
    sender: SendRequest<Full<Bytes>>,
    /// Ends with it.
    task: tokio::task::JoinHandle<()>,
    /// Where it leads.
    pub at: IpAddr,
    /// A message was taken on it. That it was made says little: in TLS 1.3 a client is done before the server has judged its certificate.
    pub answered: bool,
}

impl Link {
    /// Connects.
    pub async fn to(
        at: IpAddr,
        port: u16,
        to: &MemberName,
        tls: &watch::Receiver<Option<Tls>>,
    ) -> anyhow::Result<Link> {
        let config = tls
            .borrow()
            .as_ref()
            .map(|t| Arc::clone(&t.client))
            .context("no certificate yet")?;
        let name = ServerName::try_from(to.0.clone()).context("its name cannot be in a certificate")?;
        let connecting = async {
            let stream = TcpStream::connect((at, port)).await?;
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
        Ok(Link {
            sender,
            task,
            at,
            answered: false,
        })
    }

    /// Waits until the peer hangs up.
    pub async fn ended(&mut self) {
        let _ = (&mut self.task).await;
    }

    /// Sends one message and waits for the answer.
    pub async fn post(&mut self, to: &MemberName, body: Bytes) -> anyhow::Result<StatusCode> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(PEER_PATH)
            .header(HOST, &to.0)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?.status())
    }
}

/// Where a member is.
pub(super) fn address(peers: &Peers, of: &MemberName) -> anyhow::Result<IpAddr> {
    let address = peers.known().get(of).and_then(|known| known.address.clone());
    address
        .context("its address is not known yet")?
        .parse()
        .context("its address")
}

/// Whether nobody listens where the peer should be.
pub(super) fn refused(e: &anyhow::Error) -> bool {
    let is = |e: &std::io::Error| e.kind() == std::io::ErrorKind::ConnectionRefused;
    e.chain().any(|cause| cause.downcast_ref().is_some_and(is))
}
