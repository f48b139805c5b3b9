//! Webhooks that reach a replica of the operator that does not lead: passed on, byte for byte, to the one that does.
//!
//! The Service spreads connections over all replicas, and Git servers do not try again; only the leader knows the sources.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::operator::LEASE;

/// Connections at the same time; more wait to be accepted.
const AT_ONCE: usize = 32;
/// The leader is asked for this often at most: strangers must not make API requests without end.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long one delivery may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Who this process is in the election: its Pod's name, and the address at which it takes webhooks when it leads.
pub fn identity(name: &str, address: Option<IpAddr>) -> String {
    address.map_or_else(|| name.to_owned(), |address| format!("{name}_{address}"))
}

/// The address in an identity.
fn address(identity: &str) -> Option<IpAddr> {
    identity.rsplit_once('_')?.1.parse().ok()
}

/// Listens on `port` and passes on, until aborted.
pub async fn start(
    client: Client,
    namespace: String,
    own: Option<IpAddr>,
    port: u16,
) -> anyhow::Result<JoinHandle<()>> {
    let listener = TcpListener::bind(("0.0.0.0", port))
        .await
        .with_context(|| format!("port {port}"))?;
    let leader = Arc::new(Leader {
        api: Api::namespaced(client, &namespace),
        known: Mutex::new(None),
        own,
    });
    Ok(tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        while let Ok(place) = places.clone().acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let leader = leader.clone();
            tokio::spawn(async move {
                // Refused or timed out: the connection is closed, and the next poll finds what was pushed.
                let _ = timeout(PATIENCE, leader.pass_on(stream, port)).await;
                drop(place);
            });
        }
    }))
}

struct Leader {
    api: Api<Lease>,
    known: Mutex<Option<(Instant, Option<IpAddr>)>>,
    own: Option<IpAddr>,
}

impl Leader {
    async fn pass_on(&self, mut from: TcpStream, port: u16) -> Option<()> {
        let to = self.find().await?;
        let mut to = TcpStream::connect((to, port)).await.ok()?;
        tokio::io::copy_bidirectional(&mut from, &mut to).await.ok()?;
        Some(())
    }

    async fn find(&self) -> Option<IpAddr> {
        let mut known = self.known.lock().await;
        if let Some((at, address)) = *known
            && at.elapsed() < ASK_EVERY
        {
            return address;
        }
        let lease = self.api.get_opt(LEASE).await.ok().flatten();
        let found = lease
            .and_then(|l| l.spec?.holder_identity)
            .as_deref()
            .and_then(address)
            // Elected, but not there yet: to connect to oneself would go round in circles.
            .filter(|found| Some(*found) != self.own);
        *known = Some((Instant::now(), found));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_says_where() {
        let ip: IpAddr = "10.0.0.7".parse().unwrap();
        assert_eq!(address(&identity("holdfast-1", Some(ip))), Some(ip));
        assert_eq!(address(&identity("holdfast-1", None)), None);
    }
}
