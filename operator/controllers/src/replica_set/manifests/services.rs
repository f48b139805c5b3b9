//! Services without selectors: members' agents say who is behind them.

use std::collections::BTreeMap;

use holdfast_wire::{POSTGRES_PORT, SET_LABEL};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{EndpointPort, EndpointSlice};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Owner;

/// One of the Services `-rw`, `-ro`, `-r`.
pub fn service(owner: &Owner, name: String) -> Service {
    Service {
        metadata: owner.meta(name),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            ports: Some(vec![ServicePort {
                name: Some("postgresql".into()),
                port: i32::from(POSTGRES_PORT),
                target_port: Some(IntOrString::Int(i32::from(POSTGRES_PORT))),
                protocol: Some("TCP".into()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// The slice behind a Service as it is created: nobody yet. Agents write the rest, so this is never applied again.
pub fn empty_slice(owner: &Owner, service: String) -> EndpointSlice {
    let mut metadata = owner.meta(service.clone());
    metadata.labels.get_or_insert_default().extend([
        ("kubernetes.io/service-name".to_owned(), service),
        (
            "endpointslice.kubernetes.io/managed-by".to_owned(),
            "holdfast.dev".to_owned(),
        ),
    ]);
    EndpointSlice {
        metadata,
        address_type: "IPv4".into(),
        endpoints: Some(Vec::new()),
        ports: Some(vec![EndpointPort {
            name: Some("postgresql".into()),
            port: Some(i32::from(POSTGRES_PORT)),
            protocol: Some("TCP".into()),
            ..EndpointPort::default()
        }]),
    }
}

/// At most one member is away by somebody's will. A number, not a share: these Pods have no scale for shares to count on.
/// None for a single member, whose node could else never be drained.
pub fn budget(owner: &Owner, name: String, members: u16) -> Option<PodDisruptionBudget> {
    (members >= 2).then(|| PodDisruptionBudget {
        metadata: owner.meta(name),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(i32::from(members) - 1)),
            selector: Some(LabelSelector {
                match_labels: Some(BTreeMap::from([(SET_LABEL.to_owned(), owner.name.clone())])),
                ..LabelSelector::default()
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    })
}
