//! What the bed has besides faults: images by digest, volumes that grow and go, names, Git, and room for another bed.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its verdict")]

mod support;

use holdfast_bed::{Bed, Host, ImageSpec, Options, Owner, engine};
use std::time::{Duration, Instant};
use support::{NS, Probe, attempt, bed, inside, kubectl, out, until};

#[test]
#[ignore = "needs root and a bed"]
fn an_image_is_pulled_by_the_digest_it_was_pushed_with() {
    let (bed, _alone) = bed();
    let mut spec = ImageSpec::based_on(&engine::postgres(17).unwrap()).unwrap();
    spec.labels.push(("test".into(), "digest".into()));
    let pushed = bed.push_image(&spec, "test/digest:1").unwrap();
    assert_ne!(
        pushed.digest,
        bed.push_postgres(17).unwrap().digest,
        "another label, another digest"
    );
    let _ = attempt(
        bed.kubectl()
            .unwrap()
            .args(["delete", "pod", "digest", "--now", "--ignore-not-found"]),
    );
    kubectl(
        &bed,
        &format!("run digest --image={} --restart=Never --command -- true", pushed.pinned),
    );
    kubectl(
        &bed,
        "wait --for=jsonpath={.status.phase}=Succeeded pod/digest --timeout=60s",
    );
    let ran = kubectl(
        &bed,
        "get pod digest -o jsonpath={.status.containerStatuses[0].imageID}",
    );
    assert!(ran.ends_with(&pushed.digest), "{ran} is not {}", pushed.digest);
}

#[test]
#[ignore = "needs root and a bed"]
fn a_volume_has_its_size_grows_and_goes_with_its_claim() {
    let (bed, _alone) = bed();
    let probe = Probe::on(&bed, 1);
    let size = |probe: &Probe| -> u64 {
        out(&mut inside(&bed, &probe.name, "df -B1 --output=size /data | tail -1"))
            .parse()
            .unwrap()
    };
    let before = size(&probe);
    assert!(before < 64 << 20, "{before}");
    let patch = r#"{"spec":{"resources":{"requests":{"storage":"256Mi"}}}}"#;
    out(bed
        .kubectl()
        .unwrap()
        .args(["patch", "pvc", "-n", NS, &probe.name, "-p", patch]));
    if !may_resize() {
        println!("without CAP_SYS_RESOURCE a volume grows when its node is next switched on");
        until("the disk to grow", || {
            std::fs::metadata(disk_of(&bed, &probe)).unwrap().len() == 256 << 20
        });
        bed.power_off(1).unwrap();
        bed.power_on(1).unwrap();
        until("the probe to answer", || {
            attempt(&mut inside(&bed, &probe.name, "true")).0
        });
    }
    until("the volume to grow", || size(&probe) > 200 << 20);
    kubectl(
        &bed,
        &format!("delete -n {NS} pod/probe1 pvc/probe1 --wait=true --timeout=30s"),
    );
    let disk = disk_of(&bed, &probe);
    until("the disk to go", || !disk.exists());
    until("the volume to go", || {
        !kubectl(&bed, "get pv -o name").contains(&probe.volume.name)
    });
}

#[test]
#[ignore = "needs root and a bed"]
fn the_restricted_standard_is_enforced() {
    let (bed, _alone) = bed();
    Probe::on(&bed, 1);
    let (admitted, said) = attempt(
        bed.kubectl()
            .unwrap()
            .args(["run", "-n", NS, "root", "--image=x", "--privileged"]),
    );
    assert!(!admitted && said.contains("violates PodSecurity"), "{said}");
}

#[test]
#[ignore = "needs root and a bed"]
fn git_is_served_over_ssh_and_https_and_can_be_cut_off() {
    let (bed, _alone) = bed();
    let git = bed.git().unwrap();
    let name = format!("test-{}", std::process::id());
    git.create(&name).unwrap();
    let work = std::env::temp_dir().join(&name);
    out(git.command().args(["clone", "-q", &git.https_url(&name)]).arg(&work));
    std::fs::write(work.join("file"), "content").unwrap();
    for words in ["add file", "commit -qm first", "push -q origin HEAD:main"] {
        out(git.command().arg("-C").arg(&work).args(words.split(' ')));
    }
    std::fs::remove_dir_all(&work).unwrap();
    let ssh = format!(
        "ssh -i {} -o UserKnownHostsFile={} -o StrictHostKeyChecking=yes -o BatchMode=yes -o ConnectTimeout=2",
        git.ssh_key.display(),
        git.known_hosts.display()
    );
    let list = |url: &str| {
        let mut list = bed.command_on(Host::Client, &["git", "ls-remote", url]).unwrap();
        attempt(list.env("GIT_SSH_COMMAND", &ssh))
    };
    until("the repository to be listed over ssh", || {
        let (listed, refs) = list(&git.ssh_url(&name));
        println!("{refs}");
        listed && refs.contains("refs/heads/main")
    });
    bed.cut(Host::Client, Host::GitSsh).unwrap();
    assert!(!list(&git.ssh_url(&name)).0);
    bed.heal().unwrap();
    // Without the token there is nothing to see.
    let mut anonymous = bed
        .command_on(Host::Client, &["git", "ls-remote", &git.https_url(&name)])
        .unwrap();
    assert!(!attempt(anonymous.env("GIT_SSL_CAINFO", &git.ca).env("GIT_TERMINAL_PROMPT", "0")).0);
}

#[test]
#[ignore = "needs root and a bed"]
fn two_beds_live_side_by_side_and_leave_nothing() {
    let (bed, _alone) = bed();
    let start = Instant::now();
    let options = Options {
        name: "bedtest-two".into(),
        nodes: 1,
        owner: Owner::Parent,
        ..Options::default()
    };
    let two = Bed::up(options).unwrap();
    println!("the second bed was up after {:?}", start.elapsed());
    let (here, there) = (bed.state().unwrap().net, two.state().unwrap().net);
    assert_ne!(here.slot, there.slot);
    let probe = Probe::on(&two, 1);
    two.stall(&probe.volume, Duration::from_secs(60)).unwrap();
    assert!(!kubectl(&bed, "get nodes -o name").is_empty());
    let dir = two.state().unwrap().dir().unwrap();
    two.down().unwrap();
    let id = there.id();
    let left = |script: &str| out(std::process::Command::new("bash").args(["-c", script]));
    assert!(!dir.exists());
    assert_eq!(
        left(&format!(
            "ip -o link | grep -w {id} || true; ip -o link | grep {id}- || true; ls /run/netns | grep {id}- || true"
        )),
        ""
    );
    assert_eq!(left(&format!("find /sys/fs/cgroup -maxdepth 2 -name {id}")), "");
    assert_eq!(
        left(&format!(
            "ip route | grep -F {} || true",
            there.services().trim_end_matches("0.0/16")
        )),
        ""
    );
    assert_eq!(left(&format!("losetup -a | grep -F {} || true", probe.volume.name)), "");
    let names_it = |entry: std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(&format!("{}/", dir.display())).then_some(line)
    };
    let running: Vec<String> = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(names_it)
        .collect();
    assert_eq!(running, Vec::<String>::new());
    kubectl(&bed, "get --raw /readyz");
}

fn disk_of(bed: &Bed, probe: &Probe) -> std::path::PathBuf {
    let node = bed.state().unwrap().node_dir(probe.node).unwrap();
    node.join("disks").join(format!("{}.img", probe.volume.name))
}

/// Whether this machine may grow an ext4 that is mounted: CAP_SYS_RESOURCE is bit 24.
fn may_resize() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << 24) != 0
}
