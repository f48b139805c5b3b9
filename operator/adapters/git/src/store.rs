//! The bare repository that is kept for one source between polls.

use std::{fs, path::Path};

use git2::{Oid, Repository, RepositoryInitOptions};
use holdfast_api::git_source::VerifyMode;
use holdfast_core::source::{
    Why,
    revision::{Ancestry, Signature, Target},
};

use crate::{
    Access, Bounds, Cancel, GitError,
    remote::{Depth, fetch, tip},
    verify::{self, Signers},
};

/// Where a fetch puts what it got.
const HERE: &str = "refs/holdfast/target";
/// A repository with more packs than this is made anew: libgit2 has no repack, and every look-up asks each pack.
const MAX_PACKS: usize = 100;

/// A bare repository. Deleting its folder costs one fetch and nothing else.
pub struct Store {
    repository: Repository,
}

/// What people want to know about a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitFacts {
    /// Full id.
    pub revision: String,
    /// First line of its message, cut.
    pub subject: Option<String>,
}

impl Store {
    /// Opens the repository in `folder`, and first makes it anew when it has grown too many packs. The second value says
    /// that nothing fetched before is here any more.
    pub fn renew(folder: &Path) -> Result<(Self, bool), GitError> {
        let worn = packs(folder) > MAX_PACKS;
        if worn {
            fs::remove_dir_all(folder).map_err(|e| GitError::Local(format!("{}: {e}", folder.display())))?;
        }
        Ok((Self::open(folder)?, worn))
    }

    /// Opens or makes the repository in `folder`. One that cannot be opened is made anew.
    pub fn open(folder: &Path) -> Result<Self, GitError> {
        crate::prepare_process()?;
        if let Ok(repository) = Repository::open_bare(folder) {
            return Ok(Store { repository });
        }
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(|e| GitError::Local(format!("{}: {e}", folder.display())))?;
        }
        let mut options = RepositoryInitOptions::new();
        options
            .bare(true)
            .external_template(false)
            .mode(git2::RepositoryInitMode::from_bits_retain(0o700));
        let repository = Repository::init_opts(folder, &options)?;
        // `connect` has no option for it; a redirect would carry the credentials to another host.
        repository.config()?.set_str("http.followRedirects", "false")?;
        Ok(Store { repository })
    }

    /// A person's clone that `folder` is in, to be read and never written.
    pub fn of_clone(folder: &Path) -> Result<Self, GitError> {
        Ok(Store {
            repository: Repository::discover(folder)?,
        })
    }

    /// The commit that a branch, tag, `HEAD~1` or the start of an id means here.
    pub fn resolve(&self, name: &str) -> Result<String, GitError> {
        let commit = self.repository.revparse_single(name)?.peel_to_commit()?;
        Ok(commit.id().to_string())
    }

    /// The repository itself, for reading.
    pub(crate) fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Where the target stands: one `ls-remote`.
    pub fn tip(&self, access: &Access, target: &Target, bounds: &Bounds, cancel: &Cancel) -> Result<String, GitError> {
        tip(&self.repository, access, target, bounds, cancel).map(|id| id.to_string())
    }

    /// Whether a commit is here.
    pub fn has(&self, revision: &str) -> bool {
        Oid::from_str(revision).is_ok_and(|id| self.repository.find_commit(id).is_ok())
    }

    /// Fetches the target, and as much history as it takes to see how it relates to `applied`. Returns the commit: the ref
    /// may have moved on since [`Store::tip`].
    pub fn fetch(
        &self,
        access: &Access,
        target: &Target,
        applied: Option<&str>,
        bounds: &Bounds,
        cancel: &Cancel,
    ) -> Result<String, GitError> {
        let applied = applied.and_then(|id| Oid::from_str(id).ok());
        let refspec = match target {
            Target::Branch(name) => format!("+refs/heads/{name}:{HERE}"),
            Target::Tag(name) => format!("+refs/tags/{name}:{HERE}"),
            Target::Commit(id) => return self.fetch_commit(id, access, bounds, cancel),
        };
        let get = |depth| {
            fetch(
                &self.repository,
                access,
                std::slice::from_ref(&refspec),
                depth,
                bounds,
                cancel,
            )
        };
        match applied {
            None => get(Depth::Commits(1))?,
            Some(applied) if self.repository.find_commit(applied).is_ok() => get(Depth::Missing)?,
            // The folder was lost: look for the applied commit near the tip before asking for all of history.
            Some(applied) => {
                get(Depth::Commits(64))?;
                if self.repository.find_commit(applied).is_err() {
                    get(Depth::Everything)?;
                }
            }
        }
        let commit = self.repository.find_reference(HERE)?.peel_to_commit()?;
        Ok(commit.id().to_string())
    }

    fn fetch_commit(&self, id: &str, access: &Access, bounds: &Bounds, cancel: &Cancel) -> Result<String, GitError> {
        if self.has(id) {
            return Ok(id.to_owned());
        }
        // By its id, which most servers allow; else every branch and tag, one of which should have it.
        let by_id = fetch(
            &self.repository,
            access,
            &[format!("{id}:{HERE}")],
            Depth::Commits(1),
            bounds,
            cancel,
        );
        if self.has(id) {
            return Ok(id.to_owned());
        }
        let everything = [
            "+refs/heads/*:refs/holdfast/heads/*",
            "+refs/tags/*:refs/holdfast/tags/*",
        ]
        .map(str::to_owned);
        match by_id {
            Err(GitError::Refused(
                why @ (Why::ServerNotTrusted { .. } | Why::AccessDenied { .. } | Why::TooLarge { .. }),
            )) => return Err(why.into()),
            _ => fetch(&self.repository, access, &everything, Depth::Everything, bounds, cancel)?,
        }
        if self.has(id) {
            Ok(id.to_owned())
        } else {
            Err(Why::RefNotFound {
                name: format!("commit {id}"),
            }
            .into())
        }
    }

    /// How `offered` relates to `applied`. A commit that is not here is no ancestor: fetch asked for all that there is.
    pub fn ancestry(&self, applied: Option<&str>, offered: &str) -> Result<Ancestry, GitError> {
        let Some(applied) = applied else {
            return Ok(Ancestry::First);
        };
        if applied == offered {
            return Ok(Ancestry::Same);
        }
        let (Ok(applied), offered) = (Oid::from_str(applied), Oid::from_str(offered)?) else {
            return Ok(Ancestry::Rewritten);
        };
        if self.repository.find_commit(applied).is_err() {
            return Ok(Ancestry::Rewritten);
        }
        Ok(if self.repository.graph_descendant_of(offered, applied)? {
            Ancestry::Follows
        } else {
            Ancestry::Rewritten
        })
    }

    /// The signatures of the commits after `applied` up to `offered`, newest first. Without an applied commit that `offered`
    /// follows, of `offered` alone: trust begins with the first commit that is taken.
    pub fn signatures(
        &self,
        applied: Option<&str>,
        offered: &str,
        mode: VerifyMode,
        signers: &[(String, String)],
        bounds: &Bounds,
    ) -> Result<Vec<(String, Signature)>, GitError> {
        let signers = Signers::new(signers)?;
        let offered_id = Oid::from_str(offered)?;
        let mut ids = vec![offered_id];
        if mode == VerifyMode::EveryCommit && self.ancestry(applied, offered)? == Ancestry::Follows {
            let applied = Oid::from_str(applied.unwrap_or_default())?;
            let mut walk = self.repository.revwalk()?;
            walk.set_sorting(git2::Sort::TOPOLOGICAL)?;
            walk.push(offered_id)?;
            walk.hide(applied)?;
            ids = walk.take(bounds.commits + 1).collect::<Result<_, _>>()?;
            if ids.len() > bounds.commits {
                return Err(Why::TooLarge {
                    message: format!("more than {} commits to verify at once", bounds.commits),
                }
                .into());
            }
        }
        Ok(ids
            .into_iter()
            .map(|id| (id.to_string(), verify::commit(&self.repository, id, &signers)))
            .collect())
    }

    /// Subject line and id of a commit.
    pub fn facts(&self, revision: &str) -> Result<CommitFacts, GitError> {
        let commit = self.repository.find_commit(Oid::from_str(revision)?)?;
        let subject = commit
            .summary_bytes()
            .map(|s| holdfast_core::status::conditions::clip(String::from_utf8_lossy(s).into_owned(), 120));
        Ok(CommitFacts {
            revision: revision.to_owned(),
            subject,
        })
    }
}

fn packs(folder: &Path) -> usize {
    fs::read_dir(folder.join("objects/pack")).map_or(0, |entries| {
        entries
            .flatten()
            .filter(|e| e.path().extension().is_some_and(|x| x == "pack"))
            .count()
    })
}
