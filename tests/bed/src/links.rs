//! Cables: the bridge, one network namespace per host, and the packet filters that cut them.

use crate::net::{Host, Net};
use crate::run::{self, command, feed, run};
use crate::state::State;
use anyhow::Result;
use std::path::Path;

/// Makes the bridge that all hosts hang on.
pub fn create_bridge(net: &Net) -> Result<()> {
    let id = net.id();
    run(&["ip", "link", "add", &id, "type", "bridge"])?;
    run(&["ip", "addr", "add", &format!("{}/24", net.gateway()), "dev", &id])?;
    run(&["ip", "link", "set", &id, "up"])?;
    // Cluster addresses work from the machine itself by way of the client, which runs a kube-proxy.
    run(&[
        "ip",
        "route",
        "replace",
        &net.services(),
        "via",
        &net.ip(Host::Client).to_string(),
    ])?;
    Ok(())
}

/// Neither sent nor believed. An interface believes them if itself or `all` says so.
const NO_REDIRECTS: [&str; 6] = [
    "net.ipv4.conf.all.accept_redirects=0",
    "net.ipv4.conf.default.accept_redirects=0",
    "net.ipv4.conf.eth0.accept_redirects=0",
    "net.ipv4.conf.all.send_redirects=0",
    "net.ipv4.conf.default.send_redirects=0",
    "net.ipv4.conf.eth0.send_redirects=0",
];

/// Makes a host's namespace and plugs it in. A namespace left from before is replaced.
pub fn plug(state: &State, host: Host) -> Result<()> {
    let net = &state.net;
    let link = net.link(host);
    unplug(net, host);
    run(&["ip", "netns", "add", &link])?;
    run(&[
        "ip", "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &link,
    ])?;
    run(&["ip", "link", "set", &link, "master", &net.id(), "up"])?;
    let mut batch = format!(
        "link set lo up\nlink set eth0 address {}\naddr add {}/24 dev eth0\nlink set eth0 up\nroute add default via {}\n",
        net.mac(host),
        net.ip(host),
        net.gateway()
    );
    for n in (1..=state.nodes).filter(|n| Host::Node(*n) != host) {
        batch.push_str(&format!(
            "route add {} via {}\n",
            net.node_pods(n),
            net.ip(Host::Node(n))
        ));
    }
    if host != Host::Client {
        batch.push_str(&format!("route add {} via {}\n", net.services(), net.ip(Host::Client)));
    }
    feed(&mut command(&["ip", "-n", &link, "-batch", "-"]), &batch)?;
    // A node that boots has no bridge for its pods yet: it passes their packets on to its gateway and tells the sender to go there
    // itself from now on (ICMP redirect). Linux believes that for five minutes, in which nobody reaches those pods.
    let mut redirects = vec!["ip", "netns", "exec", &link, "sysctl", "-qw"];
    redirects.extend(NO_REDIRECTS);
    run(&redirects)?;
    if matches!(host, Host::Node(_) | Host::Client) {
        run(&["ip", "netns", "exec", &link, "sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
    }
    if let Host::Node(n) = host {
        run(&[
            "ip",
            "route",
            "replace",
            &net.node_pods(n),
            "via",
            &net.ip(host).to_string(),
        ])?;
    }
    Ok(())
}

/// Pulls the cable out and removes the namespace, if they are there.
pub fn unplug(net: &Net, host: Host) {
    let link = net.link(host);
    // The cable goes first and by itself: a namespace lives on for as long as a zombie holds it.
    if Path::new("/sys/class/net").join(&link).exists() {
        let _ = run(&["ip", "link", "del", &link]);
    }
    if Path::new("/run/netns").join(&link).exists() {
        let _ = run(&["ip", "netns", "del", &link]);
    }
}

/// Turns a host's cable off or on, as a dead or living machine would: nothing in between answers.
pub fn set_link(net: &Net, host: Host, up: bool) -> Result<()> {
    run(&["ip", "link", "set", &net.link(host), if up { "up" } else { "down" }])?;
    if let (true, Host::Node(n)) = (up, host) {
        run(&[
            "ip",
            "route",
            "replace",
            &net.node_pods(n),
            "via",
            &net.ip(host).to_string(),
        ])?;
    }
    Ok(())
}

/// Makes a host's packet filter say what the state's cuts say, in one transaction.
pub fn apply_cuts(state: &State, host: Host) -> Result<()> {
    // Before connection tracking and address translation, so that what is under way is cut too.
    let mut rules = String::from("table inet bedcut {}\ndelete table inet bedcut\n");
    let cuts: Vec<_> = state.cuts.iter().filter(|cut| cut.at == host).collect();
    if !cuts.is_empty() {
        rules.push_str("table inet bedcut {\nchain in {\ntype filter hook prerouting priority -310; policy accept;\n");
        for cut in cuts {
            let loss = match cut.percent {
                100.. => String::new(),
                percent => format!("numgen random mod 100 < {percent} "),
            };
            let sources = state.net.sources(cut.from).join(", ");
            rules.push_str(&format!("ip saddr {{ {sources} }} {loss}drop\n"));
        }
        rules.push_str("}\n}\n");
    }
    feed(
        &mut command(&["ip", "netns", "exec", &state.net.link(host), "nft", "-f", "-"]),
        &rules,
    )?;
    Ok(())
}

/// Limits what a host can send, in kilobits per second; `None` lifts the limit.
pub fn limit_rate(net: &Net, host: Host, kbit: Option<u32>) -> Result<()> {
    let netns = net.link(host);
    let _ = run(&[
        "ip", "netns", "exec", &netns, "tc", "qdisc", "del", "dev", "eth0", "root",
    ]);
    if let Some(kbit) = kbit {
        let rate = format!("{kbit}kbit");
        let tbf = ["tbf", "rate", &rate, "burst", "32kb", "latency", "400ms"];
        let mut argv = vec![
            "ip", "netns", "exec", &netns, "tc", "qdisc", "add", "dev", "eth0", "root",
        ];
        argv.extend(tbf);
        run(&argv)?;
    }
    Ok(())
}

/// Removes everything of a bed's network, whatever is left of it.
pub fn remove_all(net: &Net) {
    let id = net.id();
    let of_bed = |name: &str| {
        name.strip_prefix(&id)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    for (folder, kind) in [("/sys/class/net", "link"), ("/run/netns", "netns")] {
        let Ok(entries) = std::fs::read_dir(folder) else {
            continue;
        };
        for name in entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| of_bed(name))
        {
            if let Err(error) = run(&["ip", kind, "del", &name]) {
                run::progress(&format!("cannot remove {kind} {name}: {error:#}"));
            }
        }
    }
    let _ = run(&["ip", "route", "del", &net.services()]);
}
