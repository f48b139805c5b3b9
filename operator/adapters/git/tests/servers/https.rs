//! Over https.

use std::time::{Duration, Instant};

use holdfast_core::source::Why;
use holdfast_git::{Bounds, Cancel, GitError};

use crate::support::{Here, HttpsServer, Repository, access, bounds, main};

fn server() -> (Repository, HttpsServer, Here) {
    let repository = Repository::new();
    let server = HttpsServer::start(&repository);
    (repository, server, Here::new())
}

#[test]
fn a_branch_is_found_and_fetched_over_https_with_token_and_own_authority() {
    let (repository, server, here) = server();
    let commit = repository.write("a.yaml", "a: 1").commit("first");
    let access = server.access("/repo.git");
    assert_eq!(here.tip(&access, &main()).unwrap(), commit);
    assert_eq!(here.fetch(&access, &main(), None).unwrap(), commit);
}

/// OpenSSL below libgit2 corrupted memory here about once in a hundred handshakes: see `https.rs` of the adapter.
#[test]
fn many_sources_may_ask_at_once() {
    let (repository, server, _) = server();
    let commit = repository.commit("first");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let here = Here::new();
                for _ in 0..10 {
                    assert_eq!(here.tip(&server.access("/repo.git"), &main()).unwrap(), commit);
                }
            });
        }
    });
}

#[test]
fn a_page_that_is_no_git_server_and_a_missing_repository_are_named() {
    let (repository, server, here) = server();
    repository.commit("first");
    let why = here.tip(&server.access("/page.git"), &main()).unwrap_err();
    assert!(
        matches!(&why, Why::FetchFailed { message } if message.contains("text/html")),
        "{why:?}"
    );
    let why = here.tip(&server.access("/none.git"), &main()).unwrap_err();
    assert!(
        matches!(&why, Why::AccessDenied { message } if message.contains("404")),
        "{why:?}"
    );
}

#[test]
fn a_certificate_from_another_authority_is_refused() {
    let (repository, server, here) = server();
    repository.commit("first");
    let (stranger, _) = crate::support::certificates();
    for ca in [Some(stranger.as_str()), None] {
        let mut entries = vec![("token", crate::support::TOKEN)];
        entries.extend(ca.map(|ca| ("ca.crt", ca)));
        let why = here
            .tip(&access(&server.url("/repo.git"), &entries), &main())
            .unwrap_err();
        assert!(matches!(why, Why::ServerNotTrusted { .. }), "{why:?}");
    }
}

#[test]
fn a_wrong_or_missing_token_is_said_to_be_refused_and_is_not_shown() {
    let (repository, server, here) = server();
    repository.commit("first");
    for entries in [
        vec![("token", "wrong-secret"), ("ca.crt", &server.ca)],
        vec![("ca.crt", &server.ca)],
    ] {
        let why = here
            .tip(&access(&server.url("/repo.git"), &entries), &main())
            .unwrap_err();
        assert!(matches!(why, Why::AccessDenied { .. }), "{why:?}");
        assert!(!why.to_string().contains("wrong-secret"));
    }
}

#[test]
fn a_redirect_to_another_host_is_not_followed_because_it_would_take_the_token_along() {
    let (repository, server, here) = server();
    repository.commit("first");
    let refusals = [
        here.tip(&server.access("/moved.git"), &main()).unwrap_err(),
        here.fetch(&server.access("/moved.git"), &main(), None).unwrap_err(),
    ];
    for why in refusals {
        assert!(why.to_string().contains("redirect"), "{why:?}");
    }
}

#[test]
fn a_server_that_never_finishes_is_given_up() {
    let (_repository, server, here) = server();
    let begun = Instant::now();
    let quick = Bounds {
        timeout: Duration::from_secs(2),
        ..bounds()
    };
    let why = here
        .store
        .tip(&server.access("/slow.git"), &main(), &quick, &Cancel::default())
        .map_err(GitError::why)
        .unwrap_err();
    assert!(matches!(why, Why::FetchFailed { .. }), "{why:?}");
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
}

#[test]
fn a_repository_above_the_bound_is_refused() {
    let (repository, server, here) = server();
    let noise: Vec<u8> = (0_u64..2_000_000)
        .flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes())
        .collect();
    repository.write("big.bin", noise).commit("big");
    let why = here.fetch(&server.access("/repo.git"), &main(), None).unwrap_err();
    assert!(matches!(why, Why::TooLarge { .. }), "{why:?}");
}
