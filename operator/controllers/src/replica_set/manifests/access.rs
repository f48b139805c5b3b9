//! What a replica set's agents may do: exactly their own Lease, EndpointSlices, ConfigMap and Pods, by name.

use holdfast_wire::Names;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};

use super::Owner;

/// The agents' account.
pub fn service_account(owner: &Owner) -> ServiceAccount {
    ServiceAccount {
        metadata: owner.meta(Names(&owner.name).account()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// The agents' rights. `members` are all Pods that may exist, those being removed included.
pub fn role(owner: &Owner, members: &[String]) -> Role {
    let names = Names(&owner.name);
    let rule = |group: &str, resource: &str, names: Vec<String>, verbs: &[&str]| PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        resource_names: Some(names),
        verbs: verbs.iter().map(|v| (*v).to_owned()).collect(),
        ..PolicyRule::default()
    };
    let slices = vec![names.rw(), names.ro(), names.r()];
    Role {
        metadata: owner.meta(names.account()),
        rules: Some(vec![
            rule(
                "coordination.k8s.io",
                "leases",
                vec![names.lease()],
                &["get", "watch", "list", "update"],
            ),
            rule("discovery.k8s.io", "endpointslices", slices, &["get", "update"]),
            rule("", "configmaps", vec![names.spec()], &["watch", "list"]),
            rule("", "pods", members.to_vec(), &["patch"]),
            PolicyRule {
                api_groups: Some(vec!["events.k8s.io".to_owned()]),
                resources: Some(vec!["events".to_owned()]),
                verbs: vec!["create".to_owned(), "patch".to_owned()],
                ..PolicyRule::default()
            },
        ]),
    }
}

/// Gives the account its rights.
pub fn role_binding(owner: &Owner) -> RoleBinding {
    let name = Names(&owner.name).account();
    RoleBinding {
        metadata: owner.meta(name.clone()),
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".into()),
            kind: "Role".into(),
            name: name.clone(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".into(),
            name,
            namespace: Some(owner.namespace.clone()),
            ..Subject::default()
        }]),
    }
}
