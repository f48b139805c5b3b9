//! What of a commit is read, and what is not.

use holdfast_core::source::Why;
use holdfast_git::{Bounds, File, GitError};

use crate::support::{Here, HttpsServer, Repository, bounds, main};

fn fetched(repository: &Repository) -> (Here, String) {
    let here = Here::new();
    let commit = here
        .fetch(&HttpsServer::start(repository).access("/repo.git"), &main(), None)
        .unwrap();
    (here, commit)
}

#[test]
fn manifests_under_the_path_are_listed_and_read() {
    let repository = Repository::new();
    for file in [
        "prod/a.yaml",
        "prod/sub/b.YML",
        "prod/c.json",
        "prod/readme.md",
        "prod/.hidden/d.yaml",
        "test/e.yaml",
    ] {
        repository.write(file, file);
    }
    repository.commit("files");
    let (here, commit) = fetched(&repository);
    for path in ["./prod", "prod/", "prod"] {
        let tree = here.store.tree(&commit, path, &bounds()).unwrap();
        assert_eq!(
            tree.files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(),
            ["prod/a.yaml", "prod/c.json", "prod/sub/b.YML"]
        );
        assert!(tree.problems.is_empty());
        assert_eq!(tree.id, here.store.folder(&commit, path).unwrap());
        assert_eq!(
            here.store.blob(&tree.files[0], &bounds()).unwrap().unwrap(),
            b"prod/a.yaml"
        );
    }
    assert_eq!(here.store.tree(&commit, "./", &bounds()).unwrap().files.len(), 4);
    for path in ["nope", "prod/a.yaml"] {
        assert!(matches!(
            here.store.tree(&commit, path, &bounds()).map_err(GitError::why),
            Err(Why::PathMissing { .. })
        ));
    }
}

#[test]
fn links_and_submodules_are_named_and_never_followed() {
    let repository = Repository::new();
    repository.write("prod/a.yaml", "a: 1");
    std::os::unix::fs::symlink("/etc/passwd", repository.work().join("prod/link.yaml")).unwrap();
    std::os::unix::fs::symlink("../..", repository.work().join("prod/up")).unwrap();
    repository.git(&[
        "update-index",
        "--add",
        "--cacheinfo",
        "160000,1111111111111111111111111111111111111111,prod/module",
    ]);
    repository.git(&["add", "prod/a.yaml", "prod/link.yaml", "prod/up"]);
    repository.git(&["commit", "-q", "-m", "links"]);
    repository.git(&["push", "-q", "origin", "HEAD:main"]);
    let (here, commit) = fetched(&repository);
    let tree = here.store.tree(&commit, "prod", &bounds()).unwrap();
    assert_eq!(tree.files.len(), 1);
    let files: Vec<_> = tree.problems.iter().filter_map(|p| p.file.as_deref()).collect();
    assert_eq!(files, ["prod/link.yaml", "prod/module", "prod/up"]);
}

#[test]
fn a_file_and_a_folder_above_the_bounds_are_refused() {
    let repository = Repository::new();
    repository
        .write("a.yaml", "x".repeat(70_000))
        .write("b.yaml", "b: 1")
        .write(&format!("{}c.yaml", "d/".repeat(40)), "c: 1");
    repository.commit("large");
    let (here, commit) = fetched(&repository);
    assert!(
        matches!(
            here.store.tree(&commit, "./", &bounds()).map_err(GitError::why),
            Err(Why::TooLarge { .. })
        ),
        "40 folders deep"
    );
    let few = Bounds { files: 0, ..bounds() };
    assert!(matches!(
        here.store.tree(&commit, "./", &few).map_err(GitError::why),
        Err(Why::TooLarge { .. })
    ));
    let blob = repository.git(&["rev-parse", "HEAD:a.yaml"]).trim().to_owned();
    let problem = here
        .store
        .blob(
            &File {
                path: "a.yaml".into(),
                blob,
            },
            &bounds(),
        )
        .unwrap()
        .unwrap_err();
    assert_eq!(
        (problem.file.as_deref(), problem.value.as_deref()),
        (Some("a.yaml"), Some("70000 bytes"))
    );
}
