//! DNS, and the client: a host that is no node but reaches Services and names as a pod does. Tests write and read from
//! it, so that no node's fault is the client's own.

use crate::control::{self, kubeconfig};
use crate::net::Host;
use crate::run::{Proc, command};
use crate::state::State;
use crate::{node, paths};
use anyhow::Result;
use std::fs;
use std::process::Command;

/// Starts CoreDNS: Services and pods from the API server, the bed's hosts as `NAME.bed`, and a quick "no" to the rest.
pub fn start_dns(state: &State) -> Result<Proc> {
    let dir = state.dir()?;
    let hosts = dir.join("hosts");
    fs::write(&hosts, state.net.hosts_file(state.nodes))?;
    let corefile = dir.join("Corefile");
    let text = format!(
        "cluster.local in-addr.arpa {{\n  errors\n  kubernetes cluster.local in-addr.arpa {{\n    kubeconfig {}\n    pods insecure\n    ttl 5\n  }}\n}}\n\
         bed {{\n  errors\n  hosts {}\n}}\n\
         . {{\n  template ANY ANY {{\n    rcode NXDOMAIN\n  }}\n}}\n",
        paths::text(&kubeconfig(state, "dns")?)?,
        paths::text(&hosts)?,
    );
    fs::write(&corefile, text)?;
    let argv = vec![state.bin("coredns")?, "-conf".into(), paths::text(&corefile)?.into()];
    control::launch(state, Host::Dns, "dns", argv, Vec::new())
}

/// Starts the client's kube-proxy. The machine itself reaches cluster addresses by way of it.
pub fn start_proxy(state: &State) -> Result<Proc> {
    let dir = state.dir()?;
    // A kube-proxy wants to be on some node, for Services of node-local traffic only.
    let config = node::proxy_config(state, "node1", paths::text(&kubeconfig(state, "proxy")?)?);
    let file = dir.join("client-proxy.json");
    fs::write(&file, config.to_string())?;
    fs::write(
        dir.join("client-resolv.conf"),
        format!(
            "nameserver {}\nsearch svc.cluster.local cluster.local\noptions ndots:5\n",
            state.net.ip(Host::Dns)
        ),
    )?;
    let argv = vec![state.bin("kube-proxy")?, format!("--config={}", paths::text(&file)?)];
    control::launch(state, Host::Client, "client-proxy", argv, Vec::new())
}

/// A command that runs on `host`, with the bed's names. For tests it is an outside client when `host` is the client.
pub fn command_on(state: &State, host: Host, argv: &[String]) -> Result<Command> {
    let dir = state.dir()?;
    let script = "mount --bind \"$1\" /etc/resolv.conf && mount --bind \"$2\" /etc/hosts && shift 2 && exec \"$@\"";
    let mut run = command(&["nsenter"]);
    run.arg(format!("--net=/run/netns/{}", state.net.link(host)));
    run.args(["unshare", "--mount", "sh", "-c", script, "sh"]);
    run.arg(dir.join("client-resolv.conf"))
        .arg(dir.join("hosts"))
        .args(argv);
    run.env("KUBECONFIG", kubeconfig(state, "admin")?);
    Ok(run)
}
