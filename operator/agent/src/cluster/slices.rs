//! The traffic: one EndpointSlice for each Service, made by the operator, written by the leader.
//!
//! A deposed leader that still runs must never take the traffic back. Each slice carries the term of its writer in an
//! annotation; a write is conditional on the version that was read, and a slice of a later term is left alone.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use holdfast_core::failover::{MemberName, Term};
use holdfast_core::instance::Endpoints;
use holdfast_wire::{MANAGED_BY, Names, POSTGRES_PORT, SET_LABEL};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::api::{Api, ObjectMeta, PostParams};

use super::Kubernetes;

/// Slice annotation: the term of the leader that wrote it.
const TERM_ANNOTATION: &str = "holdfast.dev/term";
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const MANAGER_LABEL: &str = "endpointslice.kubernetes.io/managed-by";

/// Writes the slices; tries until all are written or a later leader's are there.
pub(super) async fn publish(k: &Kubernetes, endpoints: &Endpoints, addresses: &BTreeMap<MemberName, String>) {
    let names = Names(&k.options.set);
    let rw: Vec<&MemberName> = endpoints.rw.iter().collect();
    let (ro, r): (Vec<_>, Vec<_>) = (endpoints.ro.iter().collect(), endpoints.r.iter().collect());
    // Writers first: theirs is the outage that is counted.
    let slices = [(names.rw(), rw), (names.ro(), ro), (names.r(), r)];
    for (name, members) in &slices {
        let mut pause = Duration::from_millis(50);
        loop {
            match write(k, name, endpoints.term, members, addresses).await {
                Ok(()) => break,
                Err(e) => tracing::warn!(slice = name, "traffic not moved yet: {e:#}"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}

async fn write(
    k: &Kubernetes,
    name: &str,
    term: Term,
    members: &[&MemberName],
    addresses: &BTreeMap<MemberName, String>,
) -> anyhow::Result<()> {
    let api: Api<EndpointSlice> = Api::namespaced(k.strict.clone(), &k.options.namespace);
    let deadline = Duration::from_millis(1500);
    let old = tokio::time::timeout(deadline, api.get_opt(name))
        .await
        .context("no answer in time")??
        .context("the EndpointSlice is missing; the operator makes it")?;
    let written_by = term_of(&old);
    if written_by.is_some_and(|t| t > term) {
        tracing::info!(slice = name, "left alone: a later leader has written it");
        return Ok(());
    }
    let wanted = slice(k, name, term, members, addresses);
    let same = old.endpoints == wanted.endpoints && old.ports == wanted.ports;
    if same && written_by == Some(term) {
        return Ok(());
    }
    let new = keep_metadata(old, wanted);
    tokio::time::timeout(deadline, api.replace(name, &PostParams::default(), &new))
        .await
        .context("no answer in time")??;
    Ok(())
}

fn term_of(slice: &EndpointSlice) -> Option<Term> {
    slice
        .metadata
        .annotations
        .as_ref()?
        .get(TERM_ANNOTATION)?
        .parse()
        .ok()
        .map(Term)
}

/// The new content under the old version, with what others have put beside it.
fn keep_metadata(old: EndpointSlice, new: EndpointSlice) -> EndpointSlice {
    let mut metadata = old.metadata;
    metadata.managed_fields = None;
    metadata
        .labels
        .get_or_insert_default()
        .extend(new.metadata.labels.unwrap_or_default());
    metadata
        .annotations
        .get_or_insert_default()
        .extend(new.metadata.annotations.unwrap_or_default());
    EndpointSlice { metadata, ..new }
}

fn slice(
    k: &Kubernetes,
    name: &str,
    term: Term,
    members: &[&MemberName],
    addresses: &BTreeMap<MemberName, String>,
) -> EndpointSlice {
    let endpoint = |m: &&MemberName| {
        Some(Endpoint {
            addresses: vec![addresses.get(*m)?.clone()],
            conditions: Some(EndpointConditions {
                ready: Some(true),
                serving: Some(true),
                terminating: Some(false),
            }),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".to_owned()),
                name: Some(m.0.clone()),
                namespace: Some(k.options.namespace.clone()),
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        })
    };
    let labels = [
        (SERVICE_LABEL, name),
        (MANAGER_LABEL, "holdfast.dev"),
        (SET_LABEL, k.options.set.as_str()),
        ("app.kubernetes.io/managed-by", MANAGED_BY),
    ];
    let v6 = members
        .iter()
        .any(|m| addresses.get(*m).is_some_and(|a| a.contains(':')));
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            annotations: Some([(TERM_ANNOTATION.to_owned(), term.to_string())].into()),
            ..ObjectMeta::default()
        },
        address_type: if v6 { "IPv6" } else { "IPv4" }.to_owned(),
        endpoints: Some(members.iter().filter_map(endpoint).collect()),
        ports: Some(vec![EndpointPort {
            name: Some("postgresql".to_owned()),
            port: Some(i32::from(POSTGRES_PORT)),
            protocol: Some("TCP".to_owned()),
            ..EndpointPort::default()
        }]),
    }
}
