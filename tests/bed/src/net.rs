//! Addresses and names. Everything about a bed's network follows from its slot, a small number that no other bed on
//! the machine has.

use crate::cgroup;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::path::Path;

/// How names of all network devices, namespaces and control groups of beds begin.
pub const PREFIX: &str = "hfb";
/// The most nodes a bed can have: their addresses are .11 and up in a /24.
pub const MAX_NODES: u8 = 50;
const SLOTS: u8 = 50;

/// The addresses of one bed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Net {
    /// Which bed on this machine, from 0.
    pub slot: u8,
}

/// A machine of the bed: something with a network namespace on the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Host {
    /// etcd, API server, controller manager and scheduler.
    Cp,
    /// The image registry.
    Registry,
    /// CoreDNS.
    Dns,
    /// Git over ssh.
    GitSsh,
    /// Git over https.
    GitHttps,
    /// An outside client of Services.
    Client,
    /// A node, counted from 1.
    Node(u8),
}

impl Host {
    /// All that is not a node.
    pub const HELPERS: [Host; 6] = [
        Host::Cp,
        Host::Registry,
        Host::Dns,
        Host::GitSsh,
        Host::GitHttps,
        Host::Client,
    ];

    /// Last byte of the address.
    fn last(self) -> u8 {
        match self {
            Host::Cp => 2,
            Host::Registry => 3,
            Host::Dns => 4,
            Host::GitSsh => 5,
            Host::GitHttps => 6,
            Host::Client => 7,
            Host::Node(n) => 10 + n,
        }
    }

    /// The name in commands and, with `.bed` appended, in DNS.
    pub fn name(self) -> String {
        match self {
            Host::Cp => "cp".into(),
            Host::Registry => "registry".into(),
            Host::Dns => "dns".into(),
            Host::GitSsh => "git-ssh".into(),
            Host::GitHttps => "git-https".into(),
            Host::Client => "client".into(),
            Host::Node(n) => format!("node{n}"),
        }
    }
}

impl std::str::FromStr for Host {
    type Err = anyhow::Error;

    /// Takes a host's name; `2` also means `node2`, and `api` also means `cp`.
    fn from_str(text: &str) -> Result<Host> {
        if let Some(host) = Host::HELPERS.into_iter().find(|host| host.name() == text) {
            return Ok(host);
        }
        if text == "api" {
            return Ok(Host::Cp);
        }
        match text.strip_prefix("node").unwrap_or(text).parse() {
            Ok(n) if (1..=MAX_NODES).contains(&n) => Ok(Host::Node(n)),
            _ => bail!(
                "no host is called '{text}': use a node's number, cp, registry, dns, git-ssh, git-https or client"
            ),
        }
    }
}

impl Net {
    /// The bed's id, in the name of everything that it makes on the machine.
    pub fn id(&self) -> String {
        format!("{PREFIX}{}", self.slot)
    }

    /// Name of a host's network namespace and of the host end of its cable. At most 15 characters, the kernel's limit.
    pub fn link(&self, host: Host) -> String {
        format!("{}-{}", self.id(), host.name())
    }

    /// The control group of a host, below each controller.
    pub fn group(&self, host: Host) -> String {
        format!("{}/{}", self.id(), host.name())
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, self.slot, last)
    }

    /// The bridge's own address: the machine, seen from the bed.
    pub fn gateway(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// A host's address.
    pub fn ip(&self, host: Host) -> Ipv4Addr {
        self.address(host.last())
    }

    /// A host's hardware address. It is fixed, so that a node that comes back is not behind other hosts' ARP caches.
    pub fn mac(&self, host: Host) -> String {
        format!("02:68:66:00:{:02x}:{:02x}", self.slot, host.last())
    }

    /// All pods of the bed.
    pub fn pods(&self) -> String {
        format!("10.{}.0.0/16", 60 + self.slot)
    }

    /// The pods of one node.
    pub fn node_pods(&self, node: u8) -> String {
        format!("10.{}.{node}.0/24", 60 + self.slot)
    }

    /// All cluster addresses of Services.
    pub fn services(&self) -> String {
        format!("10.{}.0.0/16", 130 + self.slot)
    }

    /// A fixed cluster address: 1 is the API server, 10 is DNS.
    pub fn service(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 130 + self.slot, 0, last)
    }

    /// Addresses that packets from `host` can carry as their source.
    pub fn sources(&self, host: Host) -> Vec<String> {
        let mut sources = vec![self.ip(host).to_string()];
        if let Host::Node(n) = host {
            sources.push(self.node_pods(n));
        }
        sources
    }

    /// Lines for a hosts file: every helper as `NAME.bed`, every node by its name.
    pub fn hosts_file(&self, nodes: u8) -> String {
        let mut text = String::from("127.0.0.1 localhost\n");
        for host in Host::HELPERS {
            text.push_str(&format!("{} {}.bed\n", self.ip(host), host.name()));
        }
        for n in 1..=nodes {
            text.push_str(&format!("{} node{n} node{n}.bed\n", self.ip(Host::Node(n))));
        }
        text
    }

    /// The first slot that collides with no route of the machine and no other bed. The caller holds the lock on beds.
    pub fn free(routes: &str, taken: &[u8]) -> Result<Net> {
        for slot in (0..SLOTS).filter(|slot| !taken.contains(slot)) {
            let net = Net { slot };
            let ours = [format!("172.30.{slot}.0/24"), net.pods(), net.services()];
            let routed = routes
                .lines()
                .filter_map(|line| line.split_whitespace().next())
                .any(|route| route != "default" && ours.iter().any(|own| overlap(own, route)));
            let left_over =
                cgroup::dir("freezer", &net.id()).exists() || Path::new("/sys/class/net").join(net.id()).exists();
            if !routed && !left_over {
                return Ok(net);
            }
        }
        bail!("no free address range for a bed: 172.30.0-49.0/24 are all routed or in use; try `bed down --all`")
    }
}

/// Whether two IPv4 prefixes share an address. Text that is no prefix overlaps nothing.
fn overlap(a: &str, b: &str) -> bool {
    let parse = |text: &str| -> Option<(u32, u32)> {
        let (address, length) = text.split_once('/').unwrap_or((text, "32"));
        Some((
            u32::from(address.parse::<Ipv4Addr>().ok()?),
            length.parse::<u32>().ok().filter(|length| *length <= 32)?,
        ))
    };
    let (Some((a, la)), Some((b, lb))) = (parse(a), parse(b)) else {
        return false;
    };
    let shift = 32 - la.min(lb);
    u64::from(a) >> shift == u64::from(b) >> shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_overlap_when_one_holds_the_other() {
        assert!(overlap("10.60.0.0/16", "10.60.1.0/24"));
        assert!(overlap("172.30.0.0/24", "172.16.0.0/12"));
        assert!(!overlap("10.60.0.0/16", "10.61.0.0/16"));
        assert!(!overlap("10.60.0.0/16", "unreachable"));
    }

    #[test]
    fn names_fit_a_network_device() {
        for host in Host::HELPERS.into_iter().chain([Host::Node(MAX_NODES)]) {
            assert!(Net { slot: SLOTS - 1 }.link(host).len() <= 15, "{host:?}");
            assert_eq!(host.name().parse::<Host>().unwrap(), host);
        }
    }
}
