//! The chart gives the operator what it uses, and nothing else; and so does the operator with its agents.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_e2e::house::{SYSTEM, wait_for};
use holdfast_e2e::requests::Webhook;
use holdfast_e2e::rights::{Right, Use, unused};
use holdfast_e2e::source::secret;
use holdfast_e2e::{House, Repo, Set, Source};
use serde_json::json;

use crate::support::in_namespace;

const START: Duration = Duration::from_secs(240);

/// Rights of agents that a test sees used by chance only, each with the place and the case. The operator has none such.
const SELDOM: &[(&str, &str)] = &[(
    "patch events.events.k8s.io",
    "agent/src/cluster/events.rs: kube's Recorder counts an Event up that is told again within six minutes",
)];

/// A life that needs every right once: made, followed from Git, shrunk, deleted, adopted.
#[test]
#[ignore = "needs root and a bed: make test"]
fn every_right_that_is_granted_is_used_and_none_is_missing() {
    in_namespace("rights", |house, ns| {
        let (operator, agents) = ((SYSTEM, "holdfast"), (ns, "db-member"));
        let mark = house.mark_requests().unwrap();
        begin_anew(house);
        let set = Set::apply(house, ns, "db", 2, "").unwrap();
        follow_git(house, ns);
        set.wait_ready(START).unwrap();
        set.change(1, "").unwrap();
        set.wait_ready(START).unwrap();
        // From here on the agents' Role may go while their Pods still end: what they are refused then says nothing.
        let refused = refusals(&house.uses_since(mark).unwrap(), agents);
        assert!(refused.is_empty(), "refused to agents, and needed: {refused}");
        house
            .kubectl(&["-n", ns, "delete", "hrs", "db", "--wait=true", "--timeout=120s"])
            .unwrap();
        wait_for("the pods are gone", START, || {
            let pods = house.kubectl(&["-n", ns, "get", "pods", "-o", "name"])?;
            Ok(if pods.is_empty() { Ok(()) } else { Err(pods) })
        })
        .unwrap();
        set.change(1, "bootstrap: {adopt: true}").unwrap();
        set.wait_ready(START).unwrap();

        let rights = house.rights(operator.0, operator.1).unwrap();
        let passed_on = house.rights(agents.0, agents.1).unwrap();
        // A reader of this list should be able to say what each is for; a wildcard is for everything.
        assert!(rights.len() > 30 && passed_on.len() > 5, "{}", told(&rights));
        assert!(!told(&rights).contains('*'), "{}", told(&rights));

        let uses = house.uses_since(mark).unwrap();
        let own: Vec<Use> = uses.iter().filter(|u| by(u, operator)).cloned().collect();
        // Nobody can give what they lack, so the operator holds what agents use.
        let given = |u: &&Use| u.by.starts_with("system:serviceaccount:") && u.by.ends_with("-member");
        let own_and_given: Vec<Use> = uses.iter().filter(given).chain(&own).cloned().collect();
        let idle = unused(&rights, &own_and_given);
        assert!(idle.is_empty(), "granted to the operator, and not used: {}", told(idle));

        let theirs: Vec<Use> = uses.iter().filter(|u| by(u, agents)).cloned().collect();
        let seldom = |right: &&Right| SELDOM.iter().any(|(s, _)| right.to_string().starts_with(s));
        let idle: Vec<&Right> = unused(&passed_on, &theirs).into_iter().filter(|r| !seldom(r)).collect();
        assert!(idle.is_empty(), "granted to agents, and not used: {}", told(idle));

        let refused = refusals(&uses, operator);
        assert!(refused.is_empty(), "refused to the operator, and needed: {refused}");
    });
}

/// The operator starts as on a new cluster: without the Lease of its replicas, and with lists of everything.
fn begin_anew(house: &House) {
    let pods = [
        "-l",
        "app.kubernetes.io/component=operator",
        "--grace-period=0",
        "--force",
    ];
    house
        .kubectl(&["-n", SYSTEM, "delete", "lease", "holdfast-operator"])
        .unwrap();
    house
        .kubectl(&[["-n", SYSTEM, "delete", "pods"].as_slice(), &pods].concat())
        .unwrap();
}

/// A commit is applied, what somebody changes is put back twice, and a push is told by a webhook.
fn follow_git(house: &House, ns: &str) {
    let repo = Repo::new(house, "rights").unwrap();
    let commit = repo.config_map("a", "git").unwrap().push("One").unwrap();
    secret(house, ns, "hook", json!({"token": "between us"})).unwrap();
    let hourly = json!({"interval": "1h", "webhook": {"secretRef": {"name": "hook"}}});
    let source = Source::over_ssh(house, ns, &repo, hourly).unwrap();
    source.wait_applied(&commit).unwrap();
    for _ in 0..2 {
        let edit = [
            "patch",
            "configmap",
            "a",
            "--type=merge",
            "-p",
            r#"{"data":{"value":"edited"}}"#,
        ];
        source.kubectl(&edit).unwrap();
        source.wait_value("a", "git").unwrap();
    }
    repo.config_map("a", "pushed").unwrap().push("Two").unwrap();
    let hook = Webhook::new(house, ns, "git", b"between us").unwrap();
    assert_eq!(hook.deliver().unwrap(), 202);
    source.wait_value("a", "pushed").unwrap();
}

fn by(one: &Use, (namespace, account): (&str, &str)) -> bool {
    one.by == format!("system:serviceaccount:{namespace}:{account}")
}

/// What this account was refused, each once, with what the server said.
fn refusals(uses: &[Use], account: (&str, &str)) -> String {
    // Namespaces of other tests end while the operator works in them.
    let ends = |u: &Use| u.message.contains("because it is being terminated");
    let refused = uses.iter().filter(|u| by(u, account) && u.code == 403 && !ends(u));
    let lines: BTreeSet<String> = refused
        .map(|u| {
            let what = [u.verb.as_str(), &u.resource, &u.name].join(" ");
            format!("\n  {what} in {}: {}", u.namespace, u.message)
        })
        .collect();
    lines.into_iter().collect()
}

fn told<'r>(rights: impl IntoIterator<Item = &'r Right>) -> String {
    rights.into_iter().map(|right| format!("\n  {right}")).collect()
}
