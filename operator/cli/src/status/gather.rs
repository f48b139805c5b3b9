//! Everything that a picture shows, read at one go.

use holdfast_api::HAReplicaSet;
use holdfast_core::failover::Phase;
use holdfast_wire::Names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde::Serialize;

use crate::cluster::Cluster;
use crate::failure::Failure;

/// What is drawn.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Picture {
    /// As the API server has it.
    pub set: HAReplicaSet,
    /// The term, phase and leader of the authority record, which the members keep without the operator; `None` when it may not be read.
    pub record: Option<RecordLine>,
    /// Where to connect; `None` when it may not be read.
    pub services: Option<Vec<ServiceLine>>,
    /// What happened lately, newest first; `None` when it may not be read.
    pub events: Option<Vec<EventLine>>,
    /// When this was read.
    pub now: Timestamp,
}

/// Who leads by the record, or is about to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordLine {
    /// Its term.
    pub term: i64,
    /// What is going on in it.
    pub phase: Phase,
    /// Its leader; while an election is open, who opened it or is preferred.
    pub leader: String,
}

/// A Service and who is behind it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceLine {
    /// What it is for.
    pub purpose: String,
    /// Host and port.
    pub address: String,
    /// Members, or addresses where the member is not named.
    pub behind: Vec<String>,
}

/// An Event.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventLine {
    /// When, last.
    pub at: Option<Timestamp>,
    /// Whether a person may have to act.
    pub warning: bool,
    /// The object's name.
    pub about: String,
    /// Reason.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// How many Events are shown.
const EVENTS: usize = 6;

/// Reads a replica set and what belongs to it. What may not be read is left out, and said so in the picture.
pub async fn gather(cluster: &Cluster, name: &str) -> Result<Picture, Failure> {
    let set = cluster.set(name).await?;
    let record = crate::failover::record(cluster, name).await.ok();
    Ok(Picture {
        record: record.map(|(r, _)| RecordLine {
            term: i64::from(r.term.0),
            phase: r.phase,
            leader: r.leader.0,
        }),
        services: services(cluster, name).await,
        events: events(cluster, &set).await,
        set,
        now: Timestamp::now(),
    })
}

/// Reads the replica sets of one namespace or all.
pub async fn all(cluster: &Cluster, everywhere: bool) -> Result<Vec<HAReplicaSet>, Failure> {
    let api = if everywhere {
        Api::all(cluster.client.clone())
    } else {
        cluster.sets()
    };
    let list = api
        .list(&ListParams::default())
        .await
        .map_err(|e| Failure::of("HAReplicaSets", e))?;
    Ok(list.items)
}

async fn services(cluster: &Cluster, name: &str) -> Option<Vec<ServiceLine>> {
    let names = Names(name);
    let api: Api<EndpointSlice> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let mut all = Vec::new();
    for (purpose, service) in [("writes", names.rw()), ("reads", names.ro()), ("any member", names.r())] {
        let slice = match api.get_opt(&service).await {
            Ok(slice) => slice?,
            Err(_) => return None,
        };
        let ready = slice
            .endpoints
            .into_iter()
            .flatten()
            .filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
        let mut behind: Vec<String> = ready
            .flat_map(|e| match e.target_ref.and_then(|t| t.name).or(e.hostname) {
                Some(member) => vec![member],
                None => e.addresses,
            })
            .collect();
        behind.sort();
        all.push(ServiceLine {
            purpose: purpose.into(),
            address: format!("{service}.{}.svc:{}", cluster.namespace, holdfast_wire::POSTGRES_PORT),
            behind,
        });
    }
    Some(all)
}

async fn events(cluster: &Cluster, set: &HAReplicaSet) -> Option<Vec<EventLine>> {
    let api: Api<Event> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let members = set
        .status
        .iter()
        .flat_map(|s| s.members.iter())
        .map(|m| ("Pod", m.name.clone()));
    let mut lines = Vec::new();
    for (kind, name) in std::iter::once(("HAReplicaSet", set.name_any())).chain(members) {
        let about = format!("involvedObject.kind={kind},involvedObject.name={name}");
        let list = api.list(&ListParams::default().fields(&about).limit(200)).await.ok()?;
        lines.extend(list.items.into_iter().map(line));
    }
    lines.sort_by_key(|l| std::cmp::Reverse(l.at));
    lines.truncate(EVENTS);
    Some(lines)
}

fn line(event: Event) -> EventLine {
    let series = event.series.and_then(|s| s.last_observed_time).map(|t| t.0);
    EventLine {
        at: series
            .or(event.last_timestamp.map(|t| t.0))
            .or(event.event_time.map(|t| t.0))
            .or(event.metadata.creation_timestamp.map(|t| t.0)),
        warning: event.type_.as_deref() == Some("Warning"),
        about: event.involved_object.name.unwrap_or_default(),
        reason: event.reason.unwrap_or_default(),
        message: event.message.unwrap_or_default(),
    }
}
