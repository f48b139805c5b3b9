//! Over ssh.

use holdfast_core::source::Why;

use crate::support::{Here, Repository, SshServer, access, main};

#[test]
fn a_branch_is_found_and_fetched_over_ssh() {
    let (repository, server, here) = (Repository::new(), SshServer::start(), Here::new());
    let commit = repository.write("a.yaml", "a: 1").commit("first");
    let access = server.access(&repository);
    assert_eq!(here.tip(&access, &main()).unwrap(), commit);
    assert_eq!(here.fetch(&access, &main(), None).unwrap(), commit);
    assert_eq!(here.store.facts(&commit).unwrap().subject.as_deref(), Some("first"));
}

#[test]
fn a_server_with_another_host_key_is_not_spoken_to() {
    let (repository, server, here) = (Repository::new(), SshServer::start(), Here::new());
    repository.commit("first");
    let url = server.url(&repository);
    let other = format!("{} {}", url.known_host(), server.read("stranger.pub"));
    for known_hosts in [other.as_str(), "elsewhere ssh-ed25519 AAAA", "git.example.org"] {
        let access = access(
            &url,
            &[("identity", &server.read("client")), ("known_hosts", known_hosts)],
        );
        let why = here.tip(&access, &main()).unwrap_err();
        let Why::ServerNotTrusted { message } = why else {
            panic!("{why:?}")
        };
        assert!(message.contains("SHA256:"), "the shown key can be compared: {message}");
    }
}

#[test]
fn a_key_that_the_server_does_not_know_is_said_to_be_refused() {
    let (repository, server, here) = (Repository::new(), SshServer::start(), Here::new());
    repository.commit("first");
    let access = access(
        &server.url(&repository),
        &[
            ("identity", &server.read("stranger")),
            ("known_hosts", &server.known_hosts()),
        ],
    );
    let why = here.tip(&access, &main()).unwrap_err();
    assert!(matches!(why, Why::AccessDenied { .. }), "{why:?}");
}
