//! The control plane: etcd, API server, controller manager and scheduler in a network namespace of their own.

use crate::net::Host;
use crate::run::{Launch, Proc, command, output, wait_for};
use crate::state::State;
use crate::{cgroup, paths, pki};
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Users of the API server: name of the token, user name, group.
fn users(nodes: u8) -> Vec<(String, String, String)> {
    let fixed = [
        ("admin", "admin", "system:masters"),
        ("cm", "system:kube-controller-manager", "system:masters"),
        ("scheduler", "system:kube-scheduler", ""),
        ("proxy", "system:kube-proxy", ""),
        ("dns", "bed:dns", ""),
    ];
    let fixed = fixed.map(|(token, user, group)| (token.into(), user.into(), group.into()));
    let nodes = (1..=nodes).map(|n| {
        (
            format!("node{n}"),
            format!("system:node:node{n}"),
            "system:nodes".into(),
        )
    });
    fixed.into_iter().chain(nodes).collect()
}

/// Writes keys, tokens and a kubeconfig for each user. Fills in the state's tokens.
pub fn prepare(state: &mut State) -> Result<()> {
    let pki = state.dir()?.join("pki");
    fs::create_dir_all(&pki)?;
    pki::create_cluster(&pki, &state.net)?;
    let ca = fs::read_to_string(pki.join("ca.crt"))?;
    let mut table = String::new();
    for (name, user, group) in users(state.nodes) {
        let token = pki::token()?;
        table.push_str(&format!("{token},{user},{name},\"{group}\"\n"));
        pki::write_kubeconfig(&kubeconfig(state, &name)?, &state.net, &ca, &token)?;
        state.tokens.insert(name, token);
    }
    pki::write_secret(&pki.join("tokens.csv"), &table)
}

/// The kubeconfig of one of the bed's own users; `admin` may do everything.
pub fn kubeconfig(state: &State, user: &str) -> Result<PathBuf> {
    Ok(state.dir()?.join(format!("{user}.kubeconfig")))
}

/// Starts a program on a helper host, in the background.
pub fn launch(state: &State, host: Host, name: &str, argv: Vec<String>, env: Vec<(&str, String)>) -> Result<Proc> {
    let netns = state.net.link(host);
    let cgroups = cgroup::create_freezer(&state.net.id(), &host.name())?;
    let log = state.log(name)?;
    Launch {
        netns: Some(&netns),
        cgroups,
        log: &log,
        argv,
        env,
    }
    .start()
    .with_context(|| format!("cannot start {name}"))
}

/// Starts etcd. Its data need not survive the machine, so it does not wait for the disk.
pub fn start_etcd(state: &State) -> Result<Proc> {
    let data = state.dir()?.join("etcd");
    let argv = vec![
        state.bin("etcd")?,
        "--unsafe-no-fsync".into(),
        format!("--data-dir={}", paths::text(&data)?),
        "--listen-client-urls=http://127.0.0.1:2379".into(),
        "--advertise-client-urls=http://127.0.0.1:2379".into(),
        "--listen-peer-urls=http://127.0.0.1:2380".into(),
        "--log-level=warn".into(),
    ];
    launch(state, Host::Cp, "etcd", argv, Vec::new())
}

/// Which requests are written down: those of ServiceAccounts outside the cluster's own namespaces, by their first identity
/// (whom they act as stands beside it). One line each, without what was in it.
const AUDIT_POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [
  {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
  {"level": "Metadata", "userGroups": ["system:serviceaccounts"]}
]}"#;

/// The file with a JSON line for each request of a ServiceAccount, in the API server's audit format.
pub fn audit_log(state: &State) -> Result<PathBuf> {
    state.log("audit")
}

/// Starts the API server.
pub fn start_api(state: &State) -> Result<Proc> {
    let pki = state.dir()?.join("pki");
    let file = |name: &str| pki::file(&pki, name);
    fs::write(pki.join("audit.json"), AUDIT_POLICY)?;
    let argv = vec![
        state.bin("kube-apiserver")?,
        "--etcd-servers=http://127.0.0.1:2379".into(),
        "--secure-port=6443".into(),
        format!("--advertise-address={}", state.net.ip(Host::Cp)),
        format!("--service-cluster-ip-range={}", state.net.services()),
        format!("--tls-cert-file={}", file("api.crt")?),
        format!("--tls-private-key-file={}", file("api.key")?),
        format!("--client-ca-file={}", file("ca.crt")?),
        format!("--service-account-key-file={}", file("sa.pub")?),
        format!("--service-account-signing-key-file={}", file("sa.key")?),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--token-auth-file={}", file("tokens.csv")?),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged".into(),
        // Node names are not in any DNS that the API server asks.
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--kubelet-client-certificate={}", file("api.crt")?),
        format!("--kubelet-client-key={}", file("api.key")?),
        // No kube-proxy runs here: webhooks are called at their pods' addresses, which are routed.
        "--enable-aggregator-routing=true".into(),
        "--profiling=false".into(),
        format!("--audit-policy-file={}", file("audit.json")?),
        format!("--audit-log-path={}", paths::text(&audit_log(state)?)?),
        "--audit-log-maxsize=256".into(),
        "--audit-log-maxbackup=1".into(),
    ];
    launch(state, Host::Cp, "api", argv, Vec::new())
}

/// Starts the controller manager.
pub fn start_controller_manager(state: &State) -> Result<Proc> {
    let pki = state.dir()?.join("pki");
    let argv = vec![
        state.bin("kube-controller-manager")?,
        format!("--kubeconfig={}", paths::text(&kubeconfig(state, "cm")?)?),
        format!("--service-account-private-key-file={}", pki::file(&pki, "sa.key")?),
        format!("--root-ca-file={}", pki::file(&pki, "ca.crt")?),
        format!("--cluster-signing-cert-file={}", pki::file(&pki, "ca.crt")?),
        format!("--cluster-signing-key-file={}", pki::file(&pki, "ca.key")?),
        "--use-service-account-credentials".into(),
        "--leader-elect=false".into(),
    ];
    launch(state, Host::Cp, "cm", argv, Vec::new())
}

/// Starts the scheduler.
pub fn start_scheduler(state: &State) -> Result<Proc> {
    let config = kubeconfig(state, "scheduler")?;
    let argv = vec![
        state.bin("kube-scheduler")?,
        format!("--kubeconfig={}", paths::text(&config)?),
        "--leader-elect=false".into(),
    ];
    launch(state, Host::Cp, "scheduler", argv, Vec::new())
}

/// A kubectl that speaks for the administrator.
pub fn kubectl(state: &State) -> Result<Command> {
    let mut kubectl = command(&[state.bin("kubectl")?]);
    kubectl.env("KUBECONFIG", kubeconfig(state, "admin")?);
    Ok(kubectl)
}

/// Waits until the API server says that it is ready; usually 5 to 8 s after its start.
pub fn wait_ready(state: &State) -> Result<()> {
    let address = std::net::SocketAddr::from((state.net.ip(Host::Cp), 6443));
    wait_for("the API server", Duration::from_secs(90), || {
        // Opening a connection costs nothing; kubectl is only started once somebody listens.
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
        output(kubectl(state)?.args(["get", "--raw", "/readyz"]))?;
        Ok(true)
    })
    .with_context(|| {
        format!(
            "the API server does not come up, see {}",
            state.log("api").unwrap_or_default().display()
        )
    })
}
