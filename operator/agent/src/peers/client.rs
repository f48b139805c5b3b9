//! Sends messages to one peer.

use std::collections::VecDeque;
use std::mem::discriminant;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use holdfast_core::failover::MemberName;
use holdfast_core::instance::{Event, Message};
use http::StatusCode;
use tokio::sync::{Notify, watch};

use super::link::{self, CONNECT, Link};
use super::{Peers, Tls};
use crate::cluster::hand;

/// For one message, connecting included.
const TOTAL: Duration = Duration::from_millis(1000);
/// Pauses before a peer that hung up is tried again: a process that dies closes its connections before it stops listening.
const HUNG_UP: [Duration; 3] = [
    Duration::from_millis(5),
    Duration::from_millis(25),
    Duration::from_millis(100),
];
/// For all of these attempts: what is to be said meanwhile waits no longer than it would for a connection of its own.
const ANEW: Duration = Duration::from_millis(600);

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

impl Waiting {
    fn next(&self) -> Option<Message> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
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

/// The other end.
struct To<'a> {
    peers: &'a Peers,
    name: &'a MemberName,
    tls: watch::Receiver<Option<Tls>>,
}

impl To<'_> {
    async fn connect(&self) -> anyhow::Result<Link> {
        let at = link::address(self.peers, self.name)?;
        Link::to(at, self.peers.options.peer_port, self.name, &self.tls).await
    }

    /// Connects anew to a peer that hung up, so that one whose process is gone is known to be gone at once. That is told only of one that
    /// took messages at the very address where nobody listens now: any other refusal may be the network's policy, or another machine's.
    async fn connect_anew(&self, lost: &Link) -> anyhow::Result<Link> {
        let attempts = async {
            let mut why = anyhow::anyhow!("it hung up");
            for pause in HUNG_UP {
                tokio::time::sleep(pause).await;
                let same = link::address(self.peers, self.name)? == lost.at;
                let begun = Instant::now();
                match self.connect().await {
                    Err(e) if link::refused(&e) => {
                        if same {
                            let by = self.name.clone();
                            hand(&self.peers.inbox, Event::Refused { by });
                        }
                        return Err(e);
                    }
                    Err(e) if begun.elapsed() < CONNECT => why = e,
                    // Or its machine is silent: whatever is to be said tries again.
                    done => return done,
                }
            }
            Err(why)
        };
        tokio::time::timeout(ANEW, attempts)
            .await
            .context("it hung up, and does not connect in time")?
    }

    async fn send(&self, open: &mut Option<Link>, message: &Message) -> anyhow::Result<()> {
        let body = Bytes::from(serde_json::to_vec(message)?);
        let mut link = match open.take() {
            None => self.connect().await?,
            Some(mut kept) => match kept.post(self.name, body.clone()).await {
                Ok(answer) => return keep(open, kept, answer),
                // The peer had closed it.
                Err(_) if kept.answered => self.connect_anew(&kept).await?,
                Err(_) => self.connect().await?,
            },
        };
        let answer = link.post(self.name, body).await?;
        keep(open, link, answer)
    }
}

fn keep(open: &mut Option<Link>, mut link: Link, answer: StatusCode) -> anyhow::Result<()> {
    if !answer.is_success() {
        bail!("refused: {answer}");
    }
    link.answered = true;
    *open = Some(link);
    Ok(())
}

/// Waits until the peer hangs up, if it is connected.
async fn hung_up(open: &mut Option<Link>) {
    match open {
        Some(link) => link.ended().await,
        None => std::future::pending().await,
    }
}

async fn run(peers: Arc<Peers>, name: MemberName, waiting: Arc<Waiting>) {
    let mut to = To {
        peers: &peers,
        name: &name,
        tls: peers.tls.subscribe(),
    };
    let mut open: Option<Link> = None;
    let mut reached = true;
    loop {
        let Some(message) = waiting.next() else {
            tokio::select! {
                () = waiting.more.notified() => {}
                () = hung_up(&mut open) => {
                    // To one that has answered nothing since, only messages connect: if it does not accept this member's certificate,
                    // it hangs up on each connection.
                    if let Some(lost) = open.take().filter(|link| link.answered) {
                        open = to.connect_anew(&lost).await.ok();
                    }
                }
            }
            continue;
        };
        if to.tls.has_changed().unwrap_or(false) {
            to.tls.mark_unchanged();
            open = None;
        }
        let sent = tokio::time::timeout(TOTAL, to.send(&mut open, &message)).await;
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
                None => tracing::info!(peer = %name, "reaches the peer again"),
                Some(why) => tracing::warn!(peer = %name, "does not reach the peer: {why}"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
