//! What `bed status` prints.

use crate::bed::Bed;
use crate::net::Host;
use crate::run::output;
use crate::{paths, state};
use anyhow::Result;
use std::fmt::Write as _;

/// All beds, one paragraph each.
pub fn all() -> Result<String> {
    let names = state::names()?;
    if names.is_empty() {
        return Ok("no bed is up: start one with `bed up`\n".into());
    }
    let mut text = String::new();
    for name in names {
        match Bed::attach(&name).and_then(|bed| one(&bed)) {
            Ok(paragraph) => text.push_str(&paragraph),
            Err(_) if !paths::bed(&name)?.join("state.json").exists() => {
                writeln!(text, "bed '{name}': on its way up or down")?;
            }
            Err(error) => writeln!(text, "bed '{name}': {error:#}")?,
        }
    }
    Ok(text)
}

/// One bed: its hosts, the faults in force, its volumes and addresses.
pub fn one(bed: &Bed) -> Result<String> {
    let state = bed.state()?;
    let mut text = String::new();
    let ready = if state.ready {
        "up"
    } else {
        "starting, or its start failed"
    };
    writeln!(text, "bed '{}' ({}): {ready}", state.name, state.net.id())?;
    writeln!(text, "  kubeconfig  {}", bed.kubeconfig()?.display())?;
    writeln!(
        text,
        "  registry    {} (on this machine {})",
        bed.registry(),
        bed.registry_address()?
    )?;
    let git = bed.git()?;
    writeln!(text, "  git         {}  {}", git.ssh_url("NAME"), git.https_url("NAME"))?;
    for name in [
        "etcd",
        "api",
        "cm",
        "scheduler",
        "registry",
        "dns",
        "client-proxy",
        "git-ssh",
        "git-https",
        "provisioner",
    ] {
        let runs = state.procs.get(name).is_some_and(|process| process.alive());
        if !runs {
            let why = if name == "api" && state.api_down {
                "down on purpose".into()
            } else {
                format!("ended, see {}", state.log(name)?.display())
            };
            writeln!(text, "  {name:<11} {why}")?;
        }
    }
    let conditions = if state.api_down {
        String::new()
    } else {
        let path =
            r#"jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status} {end}"#;
        output(
            bed.kubectl()?
                .args(["get", "nodes", "--request-timeout=5s", "-o", path]),
        )
        .unwrap_or_default()
    };
    for n in 1..=state.nodes {
        let host = Host::Node(n);
        let power = match (state.off.contains(&n), state.frozen.contains(&host)) {
            (true, _) => "off",
            (_, true) => "frozen",
            _ => "on",
        };
        let ready = conditions
            .split(' ')
            .find_map(|pair| pair.strip_prefix(&format!("{}=", host.name())));
        writeln!(
            text,
            "  {:<11} {power}, Ready: {}, {}",
            host.name(),
            ready.unwrap_or("?"),
            state.net.ip(host)
        )?;
    }
    for cut in &state.cuts {
        writeln!(
            text,
            "  fault       {} loses {} % of what {} sends",
            cut.at.name(),
            cut.percent,
            cut.from.name()
        )?;
    }
    for host in state.frozen.iter().filter(|host| !matches!(host, Host::Node(_))) {
        writeln!(text, "  fault       {} is frozen", host.name())?;
    }
    for (what, how) in &state.notes {
        writeln!(text, "  fault       {what}: {how}")?;
    }
    for volume in bed.volumes()? {
        writeln!(text, "  volume      {} on node{}", volume.name, volume.node)?;
    }
    Ok(text)
}
