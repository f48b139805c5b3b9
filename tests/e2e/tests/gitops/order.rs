//! What a commit brings together: kinds and namespaces with what needs them, and no more than it may.

use holdfast_e2e::source::{ACCOUNT, condition};
use holdfast_e2e::{Repo, Source};
use serde_json::json;

use crate::support::in_namespace;

const GROUP: &str = "test.holdfast.dev";
const PLURAL: &str = "gadgets";

/// One commit has a kind, a namespace, and objects of the one in the other, all written in the order that would fail.
#[test]
#[ignore = "needs root and a bed: make test"]
fn a_kind_and_a_namespace_come_before_what_needs_them() {
    in_namespace("order", |house, ns| {
        let (other, crd) = ("order-other", format!("{PLURAL}.{GROUP}"));
        let clean = || {
            let gone = ["delete", "--ignore-not-found", "--wait", "--timeout=120s"];
            house.kubectl(&[&gone[..], &["crd", &crd]].concat()).unwrap();
            house.kubectl(&[&gone[..], &["namespace", other]].concat()).unwrap();
        };
        clean();
        let rights = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "order"},
            "rules": [
                {"apiGroups": [""], "resources": ["namespaces", "configmaps"], "verbs": ["*"]},
                {"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": ["*"]},
                {"apiGroups": [GROUP], "resources": [PLURAL], "verbs": ["*"]},
            ],
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "order"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "order"},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": ns}],
        });
        house.apply(&format!("{rights}\n---\n{binding}")).unwrap();

        let repo = Repo::new(house, "order").unwrap();
        let gadget = format!(
            "apiVersion: {GROUP}/v1\nkind: Gadget\nmetadata: {{name: a, namespace: {other}}}\nspec: {{size: 7}}\n"
        );
        let kind = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": crd},
            "spec": {
                "group": GROUP, "scope": "Namespaced", "names": {"plural": PLURAL, "singular": "gadget", "kind": "Gadget"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}},
                }}}],
            },
        });
        repo.write("a.yaml", &gadget).unwrap();
        repo.write(
            "b.yaml",
            &format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a, namespace: {other}}}\n"),
        )
        .unwrap();
        repo.write(
            "y.yaml",
            &format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {other}}}\n"),
        )
        .unwrap();
        repo.write("z.yaml", &kind.to_string()).unwrap();
        let commit = repo.push("All at once").unwrap();
        let kinds = [
            ("apiextensions.k8s.io", "CustomResourceDefinition"),
            ("", "Namespace"),
            ("", "ConfigMap"),
            (GROUP, "Gadget"),
        ];
        let kinds: Vec<_> = kinds
            .iter()
            .map(|(group, kind)| json!({"group": group, "kind": kind}))
            .collect();
        let allow = json!({"allow": {"kinds": kinds, "namespaces": [ns, other]}});
        let source = Source::over_ssh(house, ns, &repo, allow).unwrap();
        let status = source.wait_applied(&commit).unwrap();
        assert_eq!(status["inventory"]["objects"], 4, "{status:#}");
        let made = house.kubectl(&["-n", other, "get", &crd, "a", "-o", "jsonpath={.spec.size}"]);
        assert_eq!(made.unwrap(), "7");
        assert!(house.get(other, "configmap/a").unwrap().is_some());
        source.wait_ready_says("Healthy").unwrap();

        // What the commit after it says of the new kind is tried like all else.
        repo.write("a.yaml", &gadget.replace('7', "large")).unwrap();
        let bad = repo.push("A size that is none").unwrap();
        let status = source.wait_refused(&bad, "RefusedByServer").unwrap();
        let problem = status["problems"].to_string();
        assert!(problem.contains("a.yaml") && problem.contains("spec.size"), "{problem}");

        house
            .kubectl(&["-n", ns, "delete", "gitsource", "git", "--wait"])
            .unwrap();
        clean();
        house
            .kubectl(&["delete", "clusterrole,clusterrolebinding", "order"])
            .unwrap();
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_commit_with_more_objects_than_allowed_is_refused_whole() {
    in_namespace("toomany", |house, ns| {
        let repo = Repo::new(house, "toomany").unwrap();
        let one = repo.config_map("a", "one").unwrap().push("One").unwrap();
        let source = Source::over_ssh(house, ns, &repo, json!({"limits": {"objects": 2}})).unwrap();
        source.wait_applied(&one).unwrap();
        for name in ["b", "c"] {
            repo.config_map(name, "one").unwrap();
        }
        let three = repo.config_map("a", "three").unwrap().push("Three").unwrap();
        let status = source.wait_refused(&three, "TooLarge").unwrap();
        let message = condition(&status, "Ready").message;
        assert!(
            message.contains("3 objects") && message.contains("spec.limits.objects"),
            "{message}"
        );
        assert_eq!(
            (source.value("a").unwrap(), source.value("b").unwrap()),
            ("one".into(), String::new())
        );
    });
}
