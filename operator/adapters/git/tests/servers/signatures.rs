//! Whose commits are believed.

use holdfast_api::git_source::VerifyMode;
use holdfast_core::source::{Why, revision::trusted};

use crate::support::{Here, HttpsServer, Repository, bounds, main};

struct World {
    repository: Repository,
    server: HttpsServer,
    here: Here,
}

impl World {
    fn new() -> Self {
        let repository = Repository::new();
        World {
            server: HttpsServer::start(&repository),
            repository,
            here: Here::new(),
        }
    }

    fn judge(&self, mode: VerifyMode, applied: Option<&str>) -> Result<String, Why> {
        let offered = self
            .here
            .fetch(&self.server.access("/repo.git"), &main(), applied)
            .unwrap();
        let signers = vec![("alice".to_owned(), self.repository.public_key("alice"))];
        trusted(
            mode,
            &self
                .here
                .store
                .signatures(applied, &offered, mode, &signers, &bounds())
                .unwrap(),
        )
    }
}

#[test]
fn a_commit_by_a_listed_signer_is_taken_and_others_are_refused() {
    let world = World::new();
    world.repository.commit_signed("good", "alice");
    assert_eq!(world.judge(VerifyMode::Head, None).unwrap(), "alice");

    let unsigned = world.repository.commit("unsigned");
    assert_eq!(
        world.judge(VerifyMode::Head, None).unwrap_err(),
        Why::Unsigned { commit: unsigned }
    );

    world.repository.commit_signed("foreign", "mallory");
    assert!(
        matches!(world.judge(VerifyMode::Head, None).unwrap_err(), Why::SignerUnknown { fingerprint, .. } if fingerprint.starts_with("SHA256:"))
    );
}

#[test]
fn every_commit_is_looked_at_and_not_only_the_newest() {
    let world = World::new();
    let applied = world.repository.commit_signed("applied", "alice");
    assert_eq!(world.judge(VerifyMode::EveryCommit, None).unwrap(), "alice");
    let slipped = world.repository.commit("slipped in");
    world.repository.commit_signed("on top", "alice");
    assert_eq!(world.judge(VerifyMode::Head, Some(&applied)).unwrap(), "alice");
    assert_eq!(
        world.judge(VerifyMode::EveryCommit, Some(&applied)).unwrap_err(),
        Why::Unsigned { commit: slipped }
    );
}

#[test]
fn an_unsigned_commit_cannot_hide_in_a_merged_branch() {
    let world = World::new();
    let applied = world.repository.commit_signed("applied", "alice");
    world.judge(VerifyMode::EveryCommit, None).unwrap();
    world.repository.git(&["checkout", "-q", "-b", "side"]);
    let hidden = world.repository.write("b", "b").commit("hidden");
    world.repository.git(&["checkout", "-q", "main"]);
    world.repository.git(&["merge", "-q", "--no-ff", "--no-commit", "side"]);
    world.repository.commit_signed("merge", "alice");
    assert_eq!(
        world.judge(VerifyMode::EveryCommit, Some(&applied)).unwrap_err(),
        Why::Unsigned { commit: hidden }
    );
}

#[test]
fn a_signature_of_another_commit_does_not_fit() {
    let world = World::new();
    let good = world.repository.commit_signed("good", "alice");
    // The same signature, under another message.
    let object = world
        .repository
        .git(&["cat-file", "commit", &good])
        .replace("\ngood\n", "\nevil\n");
    std::fs::write(world.repository.folder().join("forged"), object).unwrap();
    let forged = world
        .repository
        .git(&["hash-object", "-t", "commit", "-w", "../forged"])
        .trim()
        .to_owned();
    world
        .repository
        .git(&["push", "-q", "-f", "origin", &format!("{forged}:refs/heads/main")]);
    assert_eq!(
        world.judge(VerifyMode::Head, None).unwrap_err(),
        Why::SignatureBroken { commit: forged }
    );
}

#[test]
fn a_signers_key_that_cannot_be_read_is_a_mistake_in_the_spec() {
    let world = World::new();
    let commit = world.repository.commit_signed("good", "alice");
    world
        .here
        .fetch(&world.server.access("/repo.git"), &main(), None)
        .unwrap();
    let signers = vec![("alice".to_owned(), "ssh-ed25519 nonsense".to_owned())];
    let why = world
        .here
        .store
        .signatures(None, &commit, VerifyMode::Head, &signers, &bounds())
        .map_err(holdfast_git::GitError::why)
        .unwrap_err();
    assert!(
        matches!(
            why,
            Why::SpecInvalid {
                field: "spec.verify.signers",
                ..
            }
        ),
        "{why:?}"
    );
}
