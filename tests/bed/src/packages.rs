//! The Debian packages that a bed needs on the machine.

use crate::run::{command, output, progress};
use anyhow::{Result, bail};
use std::path::Path;

/// A file, and the package that has it.
const NEEDED: [(&str, &str); 19] = [
    ("/usr/sbin/ip", "iproute2"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/sbin/iptables", "iptables"),
    ("/usr/sbin/conntrack", "conntrack"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("/usr/bin/mmdebstrap", "mmdebstrap"),
    ("/usr/include/seccomp.h", "libseccomp-dev"),
    ("/usr/bin/gcc", "gcc"),
    ("/usr/sbin/xfs_io", "xfsprogs"),
    ("/usr/sbin/mkfs.ext4", "e2fsprogs"),
    ("/usr/sbin/losetup", "mount"),
    ("/usr/bin/nsenter", "util-linux"),
    ("/usr/sbin/sysctl", "procps"),
    ("/usr/bin/git", "git"),
    ("/usr/bin/ssh-keygen", "openssh-client"),
    ("/usr/sbin/sshd", "openssh-server"),
    ("/usr/sbin/nginx", "nginx-light"),
    ("/usr/sbin/fcgiwrap", "fcgiwrap"),
    ("/usr/bin/setpriv", "util-linux"),
];

/// What only the image of PostgreSQL 16 needs beside them: clients of the registries that have it, and what unpacks it.
const REGISTRIES: [(&str, &str); 4] = [
    ("/usr/bin/mvn", "maven"),
    ("/usr/bin/pip3", "python3-pip"),
    ("/usr/bin/unzip", "unzip"),
    ("/usr/bin/xz", "xz-utils"),
];

/// Makes sure that everything is there: installs it when root, else says in one message what to install.
pub fn ensure() -> Result<()> {
    install(&NEEDED)
}

/// The same for what fetches files of other registries than Debian's.
pub fn ensure_registries() -> Result<()> {
    install(&REGISTRIES)
}

fn install(needed: &[(&str, &'static str)]) -> Result<()> {
    let missing = missing(needed);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !nix::unistd::geteuid().is_root() {
        bail!("Debian packages are missing; as root: apt-get install --no-install-recommends {list}");
    }
    progress(&format!("installing Debian packages (usually 30 s, once): {list}"));
    let apt = |args: &[&str]| {
        let mut words = vec!["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"];
        words.extend(args);
        output(
            command(&words)
                .env("DEBIAN_FRONTEND", "noninteractive")
                .env("RUNLEVEL", "1"),
        )
    };
    apt(&["update"])?;
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(missing);
    apt(&install)?;
    Ok(())
}

fn missing(needed: &[(&str, &'static str)]) -> Vec<&'static str> {
    // /bin and /sbin are the same folders as in /usr on every Debian since 12.
    let mut missing: Vec<_> = needed
        .iter()
        .filter(|(file, _)| !Path::new(file).exists())
        .map(|(_, package)| *package)
        .collect();
    missing.dedup();
    missing
}

/// Fails unless we are root: namespaces, control groups and loop devices are all root's.
pub fn need_root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("a bed needs root: run this with sudo, or in a container with all capabilities");
    }
    Ok(())
}
