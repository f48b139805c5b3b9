//! Which commit, and how it relates to the one in force.

use holdfast_core::source::{
    Why,
    revision::{Ancestry, Target},
};

use crate::support::{Here, HttpsServer, Repository, main};

#[test]
fn tags_and_commits_are_found() {
    let (repository, here) = (Repository::new(), Here::new());
    let server = HttpsServer::start(&repository);
    let access = server.access("/repo.git");
    let first = repository.write("a.yaml", "a: 1").commit("first");
    repository.git(&["tag", "-a", "v1", "-m", "one"]);
    repository.git(&["tag", "light"]);
    repository.git(&["push", "-q", "origin", "v1", "light"]);
    let second = repository.write("a.yaml", "a: 2").commit("second");
    for tag in ["v1", "light"] {
        let tag = Target::Tag(tag.into());
        assert_eq!(
            here.tip(&access, &tag).unwrap(),
            first,
            "the commit, not the tag object"
        );
        assert_eq!(here.fetch(&access, &tag, None).unwrap(), first);
    }
    for commit in [&first, &second] {
        let here = Here::new();
        assert_eq!(
            &here.fetch(&access, &Target::Commit(commit.clone()), None).unwrap(),
            commit
        );
        assert!(here.store.has(commit));
    }
    for missing in [Target::Branch("nope".into()), Target::Tag("nope".into())] {
        let why = here.tip(&access, &missing).unwrap_err();
        assert!(matches!(why, Why::RefNotFound { .. }), "{why:?}");
    }
    let why = here.fetch(&access, &Target::Commit("1".repeat(40)), None).unwrap_err();
    assert!(matches!(why, Why::RefNotFound { .. }), "{why:?}");
}

#[test]
fn a_commit_that_servers_do_not_give_by_id_is_found_on_a_branch() {
    let (repository, here) = (Repository::new(), Here::new());
    std::process::Command::new("git")
        .args([
            "-C",
            &repository.bare().display().to_string(),
            "config",
            "uploadpack.allowAnySHA1InWant",
            "false",
        ])
        .status()
        .unwrap();
    let server = HttpsServer::start(&repository);
    let first = repository.commit("first");
    repository.commit("second");
    assert_eq!(
        here.fetch(&server.access("/repo.git"), &Target::Commit(first.clone()), None)
            .unwrap(),
        first
    );
}

#[test]
fn new_commits_follow_and_rewritten_history_is_seen() {
    let (repository, here) = (Repository::new(), Here::new());
    let server = HttpsServer::start(&repository);
    let access = server.access("/repo.git");
    for n in 0..5 {
        repository.commit(&format!("before {n}"));
    }
    let applied = here.fetch(&access, &main(), None).unwrap();
    assert_eq!(here.store.ancestry(None, &applied).unwrap(), Ancestry::First);
    assert_eq!(here.store.ancestry(Some(&applied), &applied).unwrap(), Ancestry::Same);

    repository.commit("one");
    let new = repository.commit("two");
    assert_eq!(here.fetch(&access, &main(), Some(&applied)).unwrap(), new);
    assert_eq!(here.store.ancestry(Some(&applied), &new).unwrap(), Ancestry::Follows);

    repository.git(&["reset", "-q", "--hard", "HEAD~4"]);
    let rewritten = repository.write("x", "y").commit("rewritten");
    assert_eq!(here.fetch(&access, &main(), Some(&new)).unwrap(), rewritten);
    assert_eq!(
        here.store.ancestry(Some(&new), &rewritten).unwrap(),
        Ancestry::Rewritten
    );
}

#[test]
fn a_lost_folder_does_not_make_history_look_rewritten() {
    let repository = Repository::new();
    let server = HttpsServer::start(&repository);
    let access = server.access("/repo.git");
    let applied = repository.commit("applied");
    for n in 0..100 {
        repository.git(&["commit", "-q", "--allow-empty", "-m", &n.to_string()]);
    }
    let new = repository.commit("new");
    let here = Here::new();
    assert_eq!(here.fetch(&access, &main(), Some(&applied)).unwrap(), new);
    assert_eq!(here.store.ancestry(Some(&applied), &new).unwrap(), Ancestry::Follows);
}
