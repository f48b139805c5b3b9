//! What every bed's cluster holds from the start, and the wait until it is usable.

use crate::control::kubectl;
use crate::net::Host;
use crate::provision::{CLASS, PROVISIONER};
use crate::run::{feed, output};
use crate::state::State;
use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Creates nodes, roles, the storage class and the Service of DNS. Nodes are made here and not by their kubelets, so that
/// their pod range is the one that the routes expect.
pub fn create_objects(state: &State) -> Result<()> {
    let mut items: Vec<Value> = (1..=state.nodes).map(|n| node(state, n)).collect();
    items.push(binding("bed:proxy", "system:node-proxier", "system:kube-proxy"));
    items.push(binding("bed:kubelet-api", "system:kubelet-api-admin", "kube-apiserver"));
    items.push(binding("bed:dns", "bed:dns", "bed:dns"));
    items.push(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "bed:dns"},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "namespaces", "pods"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    }));
    items.push(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": PROVISIONER, "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": true, "reclaimPolicy": "Delete",
    }));
    items.extend(dns(state));
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    feed(
        kubectl(state)?.args(["create", "--validate=false", "-f", "-"]),
        &list.to_string(),
    )
    .context("cannot create the cluster's first objects")?;
    Ok(())
}

fn node(state: &State, n: u8) -> Value {
    let name = format!("node{n}");
    let pods = state.net.node_pods(n);
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/region": "bed", "topology.kubernetes.io/zone": format!("zone{n}"),
        }},
        "spec": {"podCIDR": pods, "podCIDRs": [pods]},
    })
}

fn binding(name: &str, role: &str, user: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    })
}

/// DNS runs on a host of its own, so that no node's fate is DNS's: a Service without selector leads there.
fn dns(state: &State) -> [Value; 2] {
    let ports =
        json!([{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]);
    let meta = |name: &str| {
        json!({"name": name, "namespace": "kube-system", "labels": {
            "k8s-app": "kube-dns", "kubernetes.io/service-name": "kube-dns",
            "endpointslice.kubernetes.io/managed-by": "bed",
        }})
    };
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": meta("kube-dns"),
            "spec": {"clusterIP": state.net.service(10), "ports": ports},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta("kube-dns-bed"),
            "addressType": "IPv4", "ports": ports,
            "endpoints": [{"addresses": [state.net.ip(Host::Dns)], "conditions": {"ready": true}}],
        }),
    ]
}

/// Waits until pods can be made in the namespace `default`: they are refused before its service account is there.
pub fn wait_account(state: &State) -> Result<()> {
    let words = [
        "wait",
        "-n",
        "default",
        "--for=create",
        "serviceaccount/default",
        "--timeout=60s",
    ];
    output(kubectl(state)?.args(words)).context("the controller manager makes no service account")?;
    Ok(())
}

/// Waits until all nodes that have power are Ready; usually 8 s after the kubelets start.
pub fn wait_nodes(state: &State, seconds: u32) -> Result<()> {
    let mut kubectl = kubectl(state)?;
    kubectl.args(["wait", "--for=condition=Ready", &format!("--timeout={seconds}s")]);
    kubectl.args(
        (1..=state.nodes)
            .filter(|n| !state.off.contains(n))
            .map(|n| format!("node/node{n}")),
    );
    output(&mut kubectl).context("not all nodes are Ready; their logs are in the bed's folder, nodeN/log")?;
    Ok(())
}
