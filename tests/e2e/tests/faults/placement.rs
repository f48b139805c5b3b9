//! Members run where their spec lets them, seen by the nodes that the real scheduler gave them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use holdfast_e2e::house::wait_for;
use holdfast_e2e::{House, Set, System};

use crate::one_house::house;

const NAMESPACE: &str = "placement";
const START: Duration = Duration::from_secs(240);
/// Nodes 1 and 2 share a rack, node 3 has one of its own.
const RACK: &str = "test.holdfast.dev/rack";
/// On node 3, where only databases may run.
const TAINT: &str = "test.holdfast.dev/dedicated";

#[test]
#[ignore = "needs root and a bed: make test"]
fn members_are_spread_over_racks_and_keep_to_labels_rules_and_taints() {
    let house = house();
    house.namespace(NAMESPACE).unwrap();
    let placed = catch_unwind(AssertUnwindSafe(|| {
        spreads_over_racks(house);
        keeps_to_rules_and_taints(house);
    }));
    if placed.is_err() {
        house.dump(NAMESPACE);
    }
    // Whatever came of it: the tests after this one need the nodes, too.
    let _ = house.kubectl(&["taint", "node", "node3", &format!("{TAINT}-")]);
    let _ = house.kubectl(&["label", "node", "--all", &format!("{RACK}-")]);
    match placed {
        Ok(()) => drop(
            house
                .kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"])
                .unwrap(),
        ),
        Err(panic) => resume_unwind(panic),
    }
}

/// Two members are in two racks, and of four, two are in each, so that the rack of one node has two on that: with nothing but members apart
/// from each other, this is one chance in six.
fn spreads_over_racks(house: &House) {
    for (node, rack) in [("node1", "a"), ("node2", "a"), ("node3", "b")] {
        let label = format!("{RACK}={rack}");
        house.kubectl(&["label", "node", node, &label, "--overwrite"]).unwrap();
    }
    let wish = format!("placement: {{spreadOver: {RACK}}}");
    let set = Set::apply(house, NAMESPACE, "racks", 2, &wish).unwrap();
    set.wait_ready(START).unwrap();
    let on_third = || nodes(&set).iter().filter(|node| **node == 3).count();
    assert_eq!((nodes(&set).len(), on_third()), (2, 1), "{:?}", nodes(&set));
    set.change(4, &wish).unwrap();
    set.wait_ready(START).unwrap();
    assert_eq!(nodes(&set), [1, 2, 3, 3]);
    house
        .kubectl(&["-n", NAMESPACE, "delete", "hrs", "racks", "--wait", "--timeout=120s"])
        .unwrap();
}

/// A set that may run nowhere says why, runs once it tolerates the taint, and another keeps away from a node that its affinity forbids.
fn keeps_to_rules_and_taints(house: &House) {
    house
        .kubectl(&["taint", "node", "node3", &format!("{TAINT}=databases:NoSchedule")])
        .unwrap();
    let selector = "nodeSelector: {kubernetes.io/hostname: node3}";
    let set = Set::apply(house, NAMESPACE, "tainted", 1, &format!("placement: {{{selector}}}")).unwrap();
    wait_for("status says what the scheduler says", START, || {
        let object = set.status("")?;
        let told = object.contains("not scheduled") && object.contains("untolerated taint");
        Ok(if told { Ok(()) } else { Err(object) })
    })
    .unwrap();
    let tolerates = format!("tolerations: [{{key: {TAINT}, operator: Equal, value: databases, effect: NoSchedule}}]");
    set.change(1, &format!("placement: {{{selector}, {tolerates}}}"))
        .unwrap();
    set.wait_ready(START).unwrap();
    assert_eq!(nodes(&set), [3]);

    let rule = "{matchExpressions: [{key: kubernetes.io/hostname, operator: NotIn, values: [node1]}]}";
    let affinity = format!(
        "affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{rule}]}}}}}}"
    );
    let wish = format!("placement: {{{affinity}, {tolerates}}}");
    let set = Set::apply(house, NAMESPACE, "rules", 2, &wish).unwrap();
    set.wait_ready(START).unwrap();
    // The rule leaves two nodes, and members are apart from each other.
    assert_eq!(nodes(&set), [2, 3]);
}

/// The nodes of its members, sorted.
fn nodes(set: &Set<'_>) -> Vec<u8> {
    let pods = set.behind("r").unwrap();
    let mut nodes: Vec<u8> = pods.iter().map(|pod| set.node(pod).unwrap()).collect();
    nodes.sort_unstable();
    nodes
}
