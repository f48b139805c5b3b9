//! How a source reaches its server, and how the server reaches it.

use std::time::{Duration, Instant};

use holdfast_e2e::requests::Webhook;
use holdfast_e2e::source::{ACCOUNT, account, condition, grant, secret};
use holdfast_e2e::{Repo, Source};
use serde_json::json;

use crate::support::in_namespace;

#[test]
#[ignore = "needs root and a bed: make test"]
fn https_needs_the_right_token_and_an_authority_that_vouches() {
    in_namespace("https", |house, ns| {
        let repo = Repo::new(house, "https").unwrap();
        let commit = repo.config_map("a", "one").unwrap().push("One").unwrap();
        account(house, ns).unwrap();
        grant(house, ns, &["get", "list", "watch", "create", "patch", "delete"]).unwrap();
        let ca = std::fs::read_to_string(&repo.servers.ca).unwrap();
        secret(house, ns, "token", json!({"token": repo.servers.token})).unwrap();
        let source = Source {
            house,
            namespace: ns.into(),
            name: "git".into(),
        };
        let spec = json!({"url": repo.servers.https_url("https"), "ref": {"branch": "main"}, "interval": "1s",
            "credentialsRef": {"name": "token"}, "serviceAccountName": ACCOUNT});
        source.apply(&spec).unwrap();
        let ready = source.wait_ready_says("ServerNotTrusted").unwrap();
        assert!(
            ready.message.contains("git-https.bed") && ready.message.contains("ca.crt"),
            "{ready:?}"
        );

        secret(house, ns, "token", json!({"token": "wrong", "ca.crt": ca})).unwrap();
        let ready = source.wait_ready_says("AccessDenied").unwrap();
        assert!(
            ready.message.contains("git-https.bed") && !ready.message.contains("wrong"),
            "{ready:?}"
        );
        assert_eq!(condition(&source.status().unwrap(), "Fetched").status, "False");
        assert_eq!(source.value("a").unwrap(), "");

        secret(house, ns, "token", json!({"token": repo.servers.token, "ca.crt": ca})).unwrap();
        source.wait_applied(&commit).unwrap();
        assert_eq!(source.value("a").unwrap(), "one");

        // Another authority's server is not believed, whatever it answers.
        let other =
            std::fs::read_to_string(house.bed.kubeconfig().unwrap().with_file_name("pki").join("ca.crt")).unwrap();
        secret(
            house,
            ns,
            "token",
            json!({"token": repo.servers.token, "ca.crt": other}),
        )
        .unwrap();
        source.patch(json!({"interval": "2s"})).unwrap();
        source.wait_ready_says("ServerNotTrusted").unwrap();
    });
}

#[test]
#[ignore = "needs root and a bed: make test"]
fn a_signed_webhook_is_a_poll_at_once_and_an_unsigned_one_is_nothing() {
    in_namespace("webhook", |house, ns| {
        let repo = Repo::new(house, "webhook").unwrap();
        let commit = repo.config_map("a", "one").unwrap().push("One").unwrap();
        secret(house, ns, "hook", json!({"token": "between us\n"})).unwrap();
        let hourly = json!({"interval": "1h", "webhook": {"secretRef": {"name": "hook"}}});
        let source = Source::over_ssh(house, ns, &repo, hourly).unwrap();
        source.wait_applied(&commit).unwrap();

        let hook = |name: &str, token: &[u8]| Webhook::new(house, ns, name, token).unwrap();
        repo.config_map("a", "two").unwrap().push("Two").unwrap();
        assert_eq!(hook("git", b"a guess").deliver().unwrap(), 401);
        let mut unsigned = hook("git", b"");
        unsigned.signature.clear();
        assert_eq!(unsigned.deliver().unwrap(), 401);
        assert_eq!(hook("another", b"between us").deliver().unwrap(), 401);
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(source.value("a").unwrap(), "one");

        let start = Instant::now();
        assert_eq!(hook("git", b"between us").deliver().unwrap(), 202);
        source.wait_value("a", "two").unwrap();
        let took = start.elapsed();
        eprintln!("  applied {:.2} s after the delivery", took.as_secs_f32());
        assert!(took < Duration::from_secs(30), "{took:?}");
    });
}
