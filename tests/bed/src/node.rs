//! Nodes: what each of them runs with, and its power switch.

use crate::control::kubeconfig;
use crate::image::PAUSE;
use crate::net::Host;
use crate::run::{Launch, wait_for};
use crate::state::State;
use crate::{cgroup, links, paths, registry, volume};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// What a node's first process needs to know.
#[derive(Debug, Serialize, Deserialize)]
pub struct NodeConfig {
    /// The node's name.
    pub name: String,
    /// The node's address.
    pub ip: String,
}

/// Where the node's folder is, seen from inside the node.
pub const INSIDE: &str = "/run/bed";

/// Writes everything node `n` starts with into its folder.
fn configure(state: &State, n: u8) -> Result<()> {
    let dir = state.node_dir(n)?;
    let net = &state.net;
    for folder in [
        "bin",
        "kubelet",
        "containerd",
        "log",
        "pods",
        "cni",
        "volumes",
        "disks",
        "certs.d/_default",
    ] {
        fs::create_dir_all(dir.join(folder))?;
    }
    let write =
        |name: &str, text: String| fs::write(dir.join(name), text).with_context(|| format!("cannot write {name}"));
    let name = format!("node{n}");
    let config = NodeConfig {
        name: name.clone(),
        ip: net.ip(Host::Node(n)).to_string(),
    };
    write("node.json", serde_json::to_string(&config)?)?;
    write("hosts", net.hosts_file(state.nodes))?;
    write("resolv.conf", format!("nameserver {}\n", net.ip(Host::Dns)))?;
    fs::copy(kubeconfig(state, &name)?, dir.join("kubelet.kubeconfig"))?;
    fs::copy(kubeconfig(state, "proxy")?, dir.join("proxy.kubeconfig"))?;
    fs::copy(state.dir()?.join("pki/ca.crt"), dir.join("ca.crt"))?;

    // Every registry's images come from the bed's, whatever name they are asked for by.
    let own = dir.join("certs.d").join(registry::NAME);
    fs::create_dir_all(&own)?;
    fs::write(
        own.join("hosts.toml"),
        format!("server = \"http://{}\"\n", registry::NAME),
    )?;
    let mirror = format!(
        "[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        registry::NAME
    );
    write("certs.d/_default/hosts.toml", mirror)?;
    write("containerd.toml", containerd_config())?;
    write("cni/10-bed.conflist", cni_config(&net.node_pods(n)).to_string())?;
    write("kubelet.json", kubelet_config(state, n).to_string())?;
    write(
        "proxy.json",
        proxy_config(state, &name, "/run/bed/proxy.kubeconfig").to_string(),
    )
}

fn containerd_config() -> String {
    // restrict_oom_score_adj: without CAP_SYS_RESOURCE every sandbox would die in runc ("can't get final child's PID").
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{registry}/{PAUSE}"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{INSIDE}/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{INSIDE}/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = "{INSIDE}/bin/runc"
"#,
        registry = registry::NAME
    )
}

fn cni_config(pods: &str) -> serde_json::Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "bed",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
                // Leases end with the node's power: they lie in memory.
                "ipam": {
                    "type": "host-local", "dataDir": "/run/cni",
                    "ranges": [[{"subnet": pods}]], "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn kubelet_config(state: &State, n: u8) -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": "/run/bed/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", state.net.group(Host::Node(n))),
        "failCgroupV1": false,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDNS": [state.net.service(10).to_string()],
        "clusterDomain": "cluster.local",
        "resolvConf": "/run/bed/resolv.conf",
        "podLogsDir": "/run/bed/pods",
        "maxPods": 110,
        "serializeImagePulls": false,
        "registryPullQPS": 0,
        // All nodes see the one disk of the machine: collecting images because of it would help nobody.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "50Mi"},
    })
}

/// The configuration of a kube-proxy that answers for the node called `node`.
pub fn proxy_config(state: &State, node: &str, kubeconfig: &str) -> serde_json::Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": kubeconfig},
        "clusterCIDR": state.net.pods(),
        "hostnameOverride": node,
        // The machine's own limits on connection tracking are not ours to change.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
}

/// Lets the kubelet of node `n` start: its Node object exists, with the pod range that the routes expect.
pub fn release(state: &State, n: u8) -> Result<()> {
    fs::write(state.node_dir(n)?.join("go"), "").context("cannot release the kubelet")
}

/// Switches node `n` on: cable, then first process. Its volumes are mounted by it, with journal recovery.
pub fn power_on(state: &mut State, n: u8) -> Result<()> {
    ensure!(state.first(n).is_none(), "node{n} is on already");
    let host = Host::Node(n);
    configure(state, n)?;
    links::plug(state, host)?;
    links::apply_cuts(state, host)?;
    let cgroups = cgroup::create_all(&state.net.id(), &host.name())?;
    let dir = state.node_dir(n)?;
    let mut argv: Vec<String> = [
        "unshare",
        "--mount",
        "--pid",
        "--uts",
        "--ipc",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]
    .map(String::from)
    .to_vec();
    argv.extend([
        state.bin("bed")?,
        "internal".into(),
        "node".into(),
        paths::text(&dir)?.into(),
    ]);
    let log = dir.join("log/init.log");
    let netns = state.net.link(host);
    let wrapper = Launch {
        netns: Some(&netns),
        cgroups,
        log: &log,
        argv,
        env: Vec::new(),
    }
    .start()?;
    state.procs.insert(host.name(), wrapper);
    state.off.remove(&n);
    wait_for(&format!("node{n} to start"), Duration::from_secs(10), || {
        Ok(state.first(n).is_some())
    })
    .with_context(|| format!("node{n} does not start, see {}", log.display()))
}

/// Cuts the power of node `n`: what was not fsynced into its volumes is gone, and nobody hears a word from it.
pub fn power_off(state: &mut State, n: u8) -> Result<()> {
    let host = Host::Node(n);
    let group = state.net.group(host);
    // The cable first: the kernel of a dead machine sends no FIN and no RST for the processes it had.
    links::set_link(&state.net, host, false)?;
    if let Some(first) = state.first(n) {
        let disks = volume::mounted(first);
        // Before the kill: with the last process the mounts go, and an orderly unmount would write everything back.
        for path in &disks {
            volume::cut_power(path)?;
            volume::thaw_now(path);
        }
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL);
    }
    cgroup::kill(&group, Duration::from_secs(20))?;
    state.procs.remove(&host.name());
    state.frozen.remove(&host);
    state.off.insert(n);
    links::unplug(&state.net, host);
    cgroup::clear(&group);
    wait_released(&state.node_dir(n)?)
}

/// Waits until no loop device holds a disk image of the node: one mounted again too soon would be the old, dead one.
pub fn wait_released(node_dir: &Path) -> Result<()> {
    wait_for("the node's volumes to be released", Duration::from_secs(20), || {
        Ok(volume::released(node_dir))
    })
}
