//! Talking to the other members' agents, over mutual TLS.

mod client;
mod server;
pub mod tls;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_core::failover::MemberName;
use holdfast_core::instance::{Message, SetSpec};
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::options::Options;
use crate::shell::Inbox;

/// The other members.
pub struct Peers {
    options: Arc<Options>,
    inbox: Inbox,
    metrics: Arc<Metrics>,
    /// Who they are by the wish, and where by what they or the operator said last.
    known: Arc<Mutex<BTreeMap<MemberName, Option<String>>>>,
    senders: Mutex<BTreeMap<MemberName, client::Sender>>,
    tls: watch::Sender<Option<Tls>>,
}

/// Both sides' configuration, made from the same files.
#[derive(Clone)]
pub struct Tls {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
    /// Expiry of the certificate, RFC 3339.
    pub expires: Option<String>,
}

impl Peers {
    /// Listens. Until certificates are there nobody can connect, and nothing is sent.
    pub async fn new(options: &Arc<Options>, inbox: &Inbox, metrics: &Arc<Metrics>) -> anyhow::Result<Arc<Peers>> {
        let peers = Arc::new(Peers {
            options: Arc::clone(options),
            inbox: inbox.clone(),
            metrics: Arc::clone(metrics),
            known: Arc::default(),
            senders: Mutex::default(),
            tls: watch::Sender::new(None),
        });
        server::listen(&peers).await?;
        Ok(peers)
    }

    /// Takes up new certificates: for connections made from now on. Connections to peers are made anew at the next message.
    pub fn set_tls(&self, tls: Tls) {
        self.tls.send_replace(Some(tls));
    }

    /// Expiry of the certificate in use.
    pub fn expires(&self) -> Option<String> {
        self.tls.borrow().as_ref().and_then(|t| t.expires.clone())
    }

    /// Takes up who the members are.
    pub fn set_spec(&self, spec: &SetSpec) {
        let mut known = self.known();
        known.retain(|name, _| spec.members.iter().any(|m| m.name == *name));
        for m in &spec.members {
            let address = known.entry(m.name.clone()).or_default();
            if m.address.is_some() {
                address.clone_from(&m.address);
            }
        }
        self.senders().retain(|name, _| known.contains_key(name));
    }

    /// Where the members are, this one included.
    pub fn addresses(&self) -> BTreeMap<MemberName, String> {
        let mut all: BTreeMap<MemberName, String> = self
            .known()
            .iter()
            .filter_map(|(n, a)| Some((n.clone(), a.clone()?)))
            .collect();
        all.insert(self.options.member.clone(), self.options.address.clone());
        all
    }

    /// Sends. What a peer has not taken yet is replaced by what is newer of the same kind, so that one that does not answer
    /// never has more waiting than one message of each kind.
    pub fn send(self: &Arc<Self>, to: &MemberName, mut message: Message) {
        if let Message::Heartbeat(beat) = &mut message {
            beat.address = Some(self.options.address.clone());
        }
        self.senders()
            .entry(to.clone())
            .or_insert_with(|| client::Sender::begin(self, to))
            .put(message);
    }

    /// Takes note of where a peer says it is.
    fn learn(&self, from: &MemberName, message: &Message) {
        if let Message::Heartbeat(beat) = message
            && let Some(address) = &beat.address
            && address.parse::<std::net::IpAddr>().is_ok()
            && let Some(known) = self.known().get_mut(from)
        {
            *known = Some(address.clone());
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<MemberName, Option<String>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn senders(&self) -> std::sync::MutexGuard<'_, BTreeMap<MemberName, client::Sender>> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
