//! The first process of a node: makes the node's file systems, starts containerd, kubelet and kube-proxy, starts them
//! again when they end, and collects orphans. Runs in namespaces of its own, made by [`crate::node::power_on`].

use crate::node::{INSIDE, NodeConfig};
use crate::run::{command, progress};
use crate::volume;
use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const SOCKET: &str = "/run/containerd/containerd.sock";

/// One program that must always run.
struct Service {
    name: &'static str,
    argv: Vec<String>,
    /// A file that must exist before the program is first started.
    after: &'static [&'static str],
    pid: Option<Pid>,
    next_start: Instant,
}

/// Runs until it is killed.
pub fn main(dir: &Path) -> Result<()> {
    file_systems(dir)?;
    let config: NodeConfig = serde_json::from_slice(&fs::read(format!("{INSIDE}/node.json"))?)?;
    fs::write("/proc/sys/kernel/hostname", &config.name)?;
    volume::mount_all(Path::new(INSIDE));
    let mut services = services(&config);
    loop {
        for service in &mut services {
            service.keep_running();
        }
        // Not blocking: a service whose time to start comes must not wait for another one's end.
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(status) => services.iter_mut().for_each(|service| service.ended(status)),
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn file_systems(dir: &Path) -> Result<()> {
    let none: Option<&str> = None;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).context("cannot make mounts private")?;
    let bind = |from: &Path, to: &Path| -> Result<()> {
        mount(Some(from), to, none, MsFlags::MS_BIND, none)
            .with_context(|| format!("cannot bind {} to {}", from.display(), to.display()))
    };
    let memory = |to: &str| mount(Some("tmpfs"), to, Some("tmpfs"), MsFlags::empty(), none);
    // The bed's folder may itself lie below a folder that is about to be covered: everything is bound through handles
    // in the node's own folder, which is taken along first.
    bind(&dir.join("../bin"), &dir.join("bin"))?;
    let handle = File::open(dir)?;
    let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&handle));
    memory("/run")?;
    for folder in [INSIDE, "/run/lock", "/run/containerd"] {
        fs::create_dir_all(folder)?;
    }
    mount(
        Some(own.as_str()),
        INSIDE,
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    )
    .context("cannot bind the node's folder")?;
    drop(handle);
    for folder in ["/var/lib", "/var/log"] {
        memory(folder)?;
    }
    for (name, folder) in [("kubelet", "/var/lib/kubelet"), ("containerd", "/var/lib/containerd")] {
        fs::create_dir_all(folder)?;
        bind(&Path::new(INSIDE).join(name), Path::new(folder))?;
    }
    for (name, file) in [("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")] {
        if Path::new(file).exists() {
            bind(&Path::new(INSIDE).join(name), Path::new(file))?;
        }
    }
    // Containers that ask for it see mounts made later.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none).context("cannot share mounts")
}

fn services(config: &NodeConfig) -> Vec<Service> {
    let service = |name, args: &[&str], after| Service {
        name,
        argv: std::iter::once(format!("{INSIDE}/bin/{name}"))
            .chain(args.iter().map(ToString::to_string))
            .collect(),
        after,
        pid: None,
        next_start: Instant::now(),
    };
    let node = format!("--hostname-override={}", config.name);
    let ip = format!("--node-ip={}", config.ip);
    vec![
        service("containerd", &["--config=/run/bed/containerd.toml"], &[]),
        service(
            "kubelet",
            &[
                "--config=/run/bed/kubelet.json",
                "--kubeconfig=/run/bed/kubelet.kubeconfig",
                "--cert-dir=/run/bed/kubelet-pki",
                &node,
                &ip,
            ],
            &[SOCKET, "/run/bed/go"],
        ),
        service("kube-proxy", &["--config=/run/bed/proxy.json"], &["/run/bed/go"]),
    ]
}

impl Service {
    fn keep_running(&mut self) {
        let due = self.pid.is_none() && Instant::now() >= self.next_start;
        if !due || !self.after.iter().all(|file| Path::new(file).exists()) {
            return;
        }
        self.next_start = Instant::now() + Duration::from_secs(1);
        match self.start() {
            Ok(pid) => self.pid = Some(pid),
            Err(error) => progress(&format!("{error:#}")),
        }
    }

    fn start(&self) -> Result<Pid> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(format!("{INSIDE}/log/{}.log", self.name))?;
        let mut command = command(&self.argv);
        command.env("PATH", format!("{INSIDE}/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.name))?;
        Ok(Pid::from_raw(i32::try_from(child.id())?))
    }

    fn ended(&mut self, status: WaitStatus) {
        if self.pid.is_some() && status.pid() == self.pid {
            progress(&format!("{} ended: {status:?}; it is started again", self.name));
            self.pid = None;
        }
    }
}
