//! What the bed's tests share: one bed for a run of all of them, one of them at a time in it, and a pod to hit.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    reason = "a panic in a test is its verdict"
)]

use holdfast_bed::{Bed, Host, Lock, Options, Owner, Volume};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// The namespace of the tests' pods. It admits only what the restricted Pod Security standard does.
pub const NS: &str = "probe";

/// Waits for what comes by itself, such as a first packet after a fault was taken back.
pub fn until(what: &str, done: impl FnMut() -> bool) {
    within(Duration::from_secs(30), what, done);
}

/// The same, with another patience.
pub fn within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "gave up waiting for {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The bed of this test run, to ourselves, with nothing broken in it.
pub fn bed() -> (Bed, Lock) {
    let bed = Bed::up(Options {
        name: "bedtest".into(),
        owner: Owner::Parent,
        ..Options::default()
    })
    .unwrap();
    let lock = bed.alone().unwrap();
    // A test that failed may have left its fault in force.
    bed.heal_all().unwrap();
    (bed, lock)
}

/// Output of a command that must succeed.
pub fn out(command: &mut Command) -> String {
    let done = command.output().unwrap();
    assert!(
        done.status.success(),
        "{command:?}: {}{}",
        text(&done.stdout),
        text(&done.stderr)
    );
    text(&done.stdout)
}

/// Whether a command succeeds, and what it says.
pub fn attempt(command: &mut Command) -> (bool, String) {
    let done = command.output().unwrap();
    (done.status.success(), text(&done.stdout) + &text(&done.stderr))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_string()
}

pub fn kubectl(bed: &Bed, words: &str) -> String {
    out(bed.kubectl().unwrap().args(words.split_whitespace()))
}

/// Runs a shell script in the probe.
pub fn inside(bed: &Bed, pod: &str, script: &str) -> Command {
    let mut kubectl = bed.kubectl().unwrap();
    kubectl.args(["exec", "-n", NS, pod, "--", "bash", "-c", script]);
    kubectl
}

/// A pod on a node, with a volume of 64 MiB at /data, that counts in /count/n ten times a second and answers on TCP 7000.
pub struct Probe {
    pub name: String,
    pub node: u8,
    pub volume: Volume,
    count: PathBuf,
}

impl Probe {
    /// The probe of a node, made by the first test that wants it.
    pub fn on(bed: &Bed, node: u8) -> Probe {
        let name = format!("probe{node}");
        let listen = "use IO::Socket; $s = IO::Socket::INET->new(LocalPort=>7000, Listen=>9, ReuseAddr=>1) or die; \
                      while ($c = $s->accept) { push @keep, $c; print $c qq(hello\\n); $c->flush }";
        let count = "i=0; while :; do i=$((i+1)); echo $i > /count/new; mv /count/new /count/n; sleep 0.1; done";
        let _ = attempt(bed.kubectl().unwrap().args(["create", "namespace", NS]));
        // Pods are refused until the controller manager has made the namespace's service account.
        kubectl(
            bed,
            &format!("wait -n {NS} --for=create serviceaccount/default --timeout=30s"),
        );
        let manifest = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS, "labels": {
                "pod-security.kubernetes.io/enforce": "restricted"}}},
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": NS},
             "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}}},
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NS, "labels": {"app": name}}, "spec": {
                "nodeSelector": {"kubernetes.io/hostname": format!("node{node}")},
                "terminationGracePeriodSeconds": 0,
                "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "probe", "image": "registry.bed:5000/bed/postgres:17",
                    "command": ["bash", "-c", format!("perl -e '{listen}' & {count}")],
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "count", "mountPath": "/count"}],
                }],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}, {"name": "count", "emptyDir": {}}],
            }},
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NS},
             "spec": {"selector": {"app": name}, "ports": [{"port": 7000}]}},
        ]});
        let file = std::env::temp_dir().join(format!("{name}-{}.json", std::process::id()));
        std::fs::write(&file, manifest.to_string()).unwrap();
        kubectl(bed, &format!("apply --validate=false -f {}", file.display()));
        std::fs::remove_file(file).unwrap();
        Probe::wait(bed, node)
    }

    /// The probe of a node, once it is Ready again, and does what a probe does: it is Ready when its shell has started, and
    /// still so for a while after its node has lost power.
    pub fn wait(bed: &Bed, node: u8) -> Probe {
        let name = format!("probe{node}");
        kubectl(
            bed,
            &format!("wait -n {NS} --for=condition=Ready pod/{name} --timeout=120s"),
        );
        let uid = kubectl(bed, &format!("get pod -n {NS} {name} -o jsonpath={{.metadata.uid}}"));
        let kubelet = bed.state().unwrap().node_dir(node).unwrap().join("kubelet");
        let count = kubelet.join(format!("pods/{uid}/volumes/kubernetes.io~empty-dir/count/n"));
        within(Duration::from_secs(90), &format!("{name} to count"), || count.exists());
        within(Duration::from_secs(90), &format!("{name} to answer"), || {
            let address = kubectl(bed, &format!("get pod -n {NS} {name} -o jsonpath={{.status.podIP}}"));
            !address.is_empty() && reaches_address(bed, Host::Client, &address, 7000)
        });
        Probe {
            volume: bed.volume(NS, &name).unwrap(),
            name,
            node,
            count,
        }
    }

    /// How far it has counted. Read from the machine, so that no fault of the cluster hides it.
    pub fn count(&self) -> u64 {
        std::fs::read_to_string(&self.count).unwrap().trim().parse().unwrap()
    }

    /// Whether it counts on within a second.
    pub fn counts(&self) -> bool {
        let before = self.count();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) {
            if self.count() > before + 1 {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }
}

/// Sends a datagram from one host to another and says whether it was heard.
pub fn heard(bed: &Bed, at: Host, from: Host) -> bool {
    let ip = bed.state().unwrap().net.ip(at);
    let listen = "use IO::Socket; $SIG{ALRM} = sub { exit 1 }; alarm 3; \
                  $s = IO::Socket::INET->new(LocalPort=>7001, Proto=>q(udp)) or die; $|=1; print qq(ready\\n); $s->recv($d, 9); exit 0";
    let mut listener = bed.command_on(at, &["perl", "-e", listen]).unwrap();
    let mut listener = listener.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(listener.stdout.take().unwrap()), &mut line).unwrap();
    assert_eq!(line, "ready\n");
    let say =
        format!("use IO::Socket; IO::Socket::INET->new(PeerAddr=>q({ip}), PeerPort=>7001, Proto=>q(udp))->send(q(hi))");
    out(&mut bed.command_on(from, &["perl", "-e", &say]).unwrap());
    listener.wait().unwrap().success()
}

/// Whether a TCP connection from one host to another opens within 2 s. 10250 is a node's kubelet.
pub fn reaches(bed: &Bed, from: Host, to: Host, port: u16) -> bool {
    reaches_address(bed, from, &bed.state().unwrap().net.ip(to).to_string(), port)
}

/// Whether `from` can open a connection to an address, such as a pod's.
pub fn reaches_address(bed: &Bed, from: Host, to: &str, port: u16) -> bool {
    let open = format!("exec 3<>/dev/tcp/{to}/{port}");
    let (reached, said) = attempt(&mut bed.command_on(from, &["timeout", "2", "bash", "-c", &open]).unwrap());
    assert!(!said.contains("not found"), "{said}");
    reached
}
