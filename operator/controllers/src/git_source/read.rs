//! A commit, read and checked: what it wants, or what is wrong with it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};

use holdfast_core::source::{
    Digest, Manifest, ObjectKey, Origin, Problem, Why,
    check::{Policy, check, duplicates, type_of},
    kinds::{Kinds, definitions},
    report::Verdict,
    yaml::{self, Document},
};
use holdfast_git::{Bounds, CommitFacts, File, GitError, Store};

use super::{
    memory::{PAUSE, asks_for_pause},
    spec::Spec,
    verdict,
};

/// One object of a commit, without its content: that is read from Git again when it is needed.
#[derive(Clone, Debug)]
pub struct Entry {
    pub digest: Digest,
    pub api_version: String,
    pub origin: Origin,
    pub blob: Arc<str>,
    pub paused: bool,
}

/// A commit that has no mistakes that could be seen without the server.
#[derive(Clone, Debug)]
pub struct Reading {
    pub revision: String,
    pub subject: Option<String>,
    pub entries: BTreeMap<ObjectKey, Entry>,
    /// Kinds whose definition is part of this very commit.
    pub provided: BTreeSet<(String, String)>,
}

/// An object with its content and the text of its file.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub manifest: Manifest,
    pub text: Arc<str>,
}

type Items = Arc<Vec<(ObjectKey, Entry)>>;

/// What a file said, by path and content: a file that did not change is not read again.
#[derive(Default)]
pub struct Cache(HashMap<(String, String), Items>);

/// A file that is not in the cache, parsed but not yet checked.
struct Parsed {
    file: File,
    text: Arc<str>,
    documents: Vec<Document>,
}

struct Listing {
    facts: CommitFacts,
    files: Vec<File>,
    parsed: Vec<Parsed>,
    problems: Vec<Problem>,
}

/// Reads a commit. `learn` is asked for the kinds that are not known yet. Returns the objects of new files with their content.
pub async fn read(
    folder: PathBuf,
    revision: &str,
    spec: &Spec,
    cache: &mut Cache,
    learn: impl AsyncFnOnce(BTreeSet<(String, String)>) -> Result<Kinds, Why>,
) -> Result<(Reading, HashMap<ObjectKey, Loaded>), Box<Verdict>> {
    let known: BTreeSet<(String, String)> = cache.0.keys().cloned().collect();
    let listing = {
        let (id, path, bounds) = (revision.to_owned(), spec.path.clone(), spec.bounds.clone());
        blocking(move || list(&folder, &id, &path, &bounds, &known))
            .await
            .map_err(|why| verdict(revision, why, Vec::new()))?
    };
    let types: BTreeSet<(String, String)> = listing
        .parsed
        .iter()
        .flat_map(|p| &p.documents)
        .filter_map(type_of)
        .map(|(v, k)| (v.to_owned(), k.to_owned()))
        .collect();
    let mut kinds = learn(types).await.map_err(|why| verdict(revision, why, Vec::new()))?;
    let provided = definitions(listing.parsed.iter().flat_map(|p| &p.documents), &mut kinds);
    let policy = spec.policy.clone();
    let Listing {
        facts,
        files,
        parsed,
        mut problems,
    } = listing;
    let checked = blocking(move || {
        Ok(parsed
            .into_iter()
            .map(|p| check_file(p, &policy, &kinds))
            .collect::<Vec<_>>())
    })
    .await
    .map_err(|why| verdict(revision, why, Vec::new()))?;

    let mut fresh = HashMap::new();
    for (file, items, loaded, wrong) in checked {
        // Only files without mistakes are remembered, so that the mistakes of the others are named every time.
        if wrong.is_empty() {
            cache.0.insert((file.path.clone(), file.blob.clone()), Arc::new(items));
        }
        problems.extend(wrong);
        fresh.extend(loaded);
    }
    let now: BTreeSet<(&str, &str)> = files.iter().map(|f| (f.path.as_str(), f.blob.as_str())).collect();
    cache
        .0
        .retain(|(path, blob), _| now.contains(&(path.as_str(), blob.as_str())));

    let mut all: Vec<(ObjectKey, Entry)> = Vec::new();
    for file in files {
        if let Some(items) = cache.0.get(&(file.path, file.blob)) {
            all.extend(items.iter().cloned());
        }
    }
    problems.extend(duplicates(all.iter().map(|(key, entry)| (key, &entry.origin))));
    if all.len() > spec.max_objects {
        let why = Why::TooLarge {
            message: format!(
                "{} objects, more than spec.limits.objects allows ({})",
                all.len(),
                spec.max_objects
            ),
        };
        return Err(verdict(revision, why, problems));
    }
    if !problems.is_empty() {
        problems.sort();
        return Err(verdict(
            revision,
            Why::Invalid {
                revision: revision.to_owned(),
                problems: problems.len(),
            },
            problems,
        ));
    }
    Ok((
        Reading {
            revision: revision.to_owned(),
            subject: facts.subject,
            entries: all.into_iter().collect(),
            provided,
        },
        fresh,
    ))
}

fn list(
    folder: &std::path::Path,
    revision: &str,
    path: &str,
    bounds: &Bounds,
    known: &BTreeSet<(String, String)>,
) -> Result<Listing, GitError> {
    let store = Store::open(folder)?;
    let facts = store.facts(revision)?;
    let tree = store.tree(revision, path, bounds)?;
    let mut problems = tree.problems;
    let mut parsed = Vec::new();
    for file in &tree.files {
        if known.contains(&(file.path.clone(), file.blob.clone())) {
            continue;
        }
        match store.blob(file, bounds)?.and_then(|bytes| parse(file, &bytes)) {
            Ok(p) => parsed.push(p),
            Err(problem) => problems.push(*problem),
        }
    }
    Ok(Listing {
        facts,
        files: tree.files,
        parsed,
        problems,
    })
}

fn parse(file: &File, bytes: &[u8]) -> Result<Parsed, Box<Problem>> {
    let documents = yaml::parse(&file.path, bytes)?;
    Ok(Parsed {
        file: file.clone(),
        text: String::from_utf8_lossy(bytes).into(),
        documents,
    })
}

type Checked = (File, Vec<(ObjectKey, Entry)>, Vec<(ObjectKey, Loaded)>, Vec<Problem>);

fn check_file(parsed: Parsed, policy: &Policy, kinds: &Kinds) -> Checked {
    let blob: Arc<str> = parsed.file.blob.as_str().into();
    let (mut items, mut loaded, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    for document in &parsed.documents {
        match check(&parsed.file.path, &parsed.text, document, policy, kinds) {
            Ok(manifest) => {
                let entry = Entry {
                    digest: manifest.digest,
                    api_version: manifest.api_version.clone(),
                    origin: manifest.origin.clone(),
                    blob: Arc::clone(&blob),
                    paused: asks_for_pause(manifest.annotation(PAUSE)),
                };
                items.push((manifest.key.clone(), entry));
                loaded.push((
                    manifest.key.clone(),
                    Loaded {
                        manifest,
                        text: Arc::clone(&parsed.text),
                    },
                ));
            }
            Err(problem) => wrong.push(*problem),
        }
    }
    (parsed.file, items, loaded, wrong)
}

/// Reads the content of some objects again.
pub async fn load(
    folder: PathBuf,
    reading: &Reading,
    keys: Vec<ObjectKey>,
    spec: &Spec,
    kinds: Kinds,
) -> Result<HashMap<ObjectKey, Loaded>, Why> {
    let mut files: BTreeMap<(Arc<str>, Arc<str>), Vec<ObjectKey>> = BTreeMap::new();
    for key in keys {
        if let Some(entry) = reading.entries.get(&key) {
            files
                .entry((Arc::clone(&entry.origin.file), Arc::clone(&entry.blob)))
                .or_default()
                .push(key);
        }
    }
    if files.is_empty() {
        return Ok(HashMap::new());
    }
    let (bounds, policy) = (spec.bounds.clone(), spec.policy.clone());
    blocking(move || {
        let store = Store::open(&folder)?;
        let mut found = HashMap::new();
        for ((path, blob), keys) in files {
            let file = File {
                path: path.to_string(),
                blob: blob.to_string(),
            };
            let Ok(Ok(parsed)) = store
                .blob(&file, &bounds)
                .map(|b| b.and_then(|bytes| parse(&file, &bytes)))
            else {
                continue;
            };
            let (_, _, loaded, _) = check_file(parsed, &policy, &kinds);
            found.extend(loaded.into_iter().filter(|(key, _)| keys.contains(key)));
        }
        Ok(found)
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, GitError> + Send + 'static) -> Result<T, Why> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(GitError::why),
        Err(e) => Err(Why::Internal {
            message: format!("reading Git ended unexpectedly: {e}"),
        }),
    }
}
