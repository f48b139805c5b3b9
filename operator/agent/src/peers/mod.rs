//! Talking to the other members' agents, over mutual TLS.

mod client;
mod link;
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
    /// Who they are by the wish, and where.
    known: Mutex<BTreeMap<MemberName, Known>>,
    senders: Mutex<BTreeMap<MemberName, client::Sender>>,
    tls: watch::Sender<Option<Tls>>,
}

/// Where a member is.
#[derive(Default)]
struct Known {
    /// By what it said itself, or the operator's last news of it.
    address: Option<String>,
    /// By the operator's last word, which may be older than what it said itself.
    told: Option<String>,
}

impl Known {
    /// Each wish names addresses, whatever it is about. One that the operator has named before is no news: what the member has said since
    /// is, and at its old address somebody else may be by now.
    fn tell(&mut self, address: Option<&String>) {
        if address.is_some() && self.told.as_ref() != address {
            self.told = address.cloned();
            self.address = address.cloned();
        }
    }
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
            known: Mutex::default(),
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
            known.entry(m.name.clone()).or_default().tell(m.address.as_ref());
        }
        self.senders().retain(|name, _| known.contains_key(name));
    }

    /// Where the members are, this one included.
    pub fn addresses(&self) -> BTreeMap<MemberName, String> {
        let mut all: BTreeMap<MemberName, String> = self
            .known()
            .iter()
            .filter_map(|(n, k)| Some((n.clone(), k.address.clone()?)))
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
            known.address = Some(address.clone());
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<MemberName, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn senders(&self) -> std::sync::MutexGuard<'_, BTreeMap<MemberName, client::Sender>> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_member_says_of_its_address_is_not_overwritten_by_what_the_operator_said_before() {
        let (old, own, new) = ("10.0.0.1".to_owned(), "10.0.0.2".to_owned(), "10.0.0.3".to_owned());
        let mut known = Known::default();
        known.tell(Some(&old));
        assert_eq!(known.address.as_ref(), Some(&old), "nobody else has said anything");
        known.address = Some(own.clone());
        known.tell(Some(&old));
        known.tell(None);
        known.tell(Some(&old));
        assert_eq!(known.address.as_ref(), Some(&own));
        known.tell(Some(&new));
        assert_eq!(
            known.address.as_ref(),
            Some(&new),
            "the Pod was made anew, and has not spoken yet"
        );
    }
}
