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

/// Objects whose content is held at the same time: as JSON one takes some 5 KiB, and a source may have very many.
pub const HELD: usize = 1_000;
/// Bytes of files whose content is held between parsing and checking; those beyond it are parsed twice.
const HELD_BYTES: usize = 2 * 1024 * 1024;

/// The text of a file and what it says.
type Content = (Arc<str>, Vec<Document>);

/// A file that is not in the cache, parsed but not yet checked; without its content where that would be too much.
struct Parsed {
    file: File,
    content: Option<Content>,
}

struct Listing {
    facts: CommitFacts,
    files: Vec<File>,
    parsed: Vec<Parsed>,
    types: BTreeSet<(String, String)>,
    definitions: Vec<Document>,
    problems: Vec<Problem>,
}

/// Reads a commit. `learn` is asked for the kinds that are not known yet. Returns some objects of new files with their content:
/// all of them, where they are few.
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
        let folder = folder.clone();
        blocking(move || list(&folder, &id, &path, &bounds, &known))
            .await
            .map_err(|why| verdict(revision, why, Vec::new()))?
    };
    let mut kinds = learn(listing.types)
        .await
        .map_err(|why| verdict(revision, why, Vec::new()))?;
    let provided = definitions(&listing.definitions, &mut kinds);
    let (policy, bounds) = (spec.policy.clone(), spec.bounds.clone());
    let (facts, files, parsed, mut problems) = (listing.facts, listing.files, listing.parsed, listing.problems);
    let checked = blocking(move || check_all(&folder, parsed, &policy, &kinds, &bounds))
        .await
        .map_err(|why| verdict(revision, why, Vec::new()))?;
    for (file, items) in checked.items {
        cache.0.insert((file.path, file.blob), Arc::new(items));
    }
    problems.extend(checked.problems);
    let now: BTreeSet<(&str, &str)> = files.iter().map(|f| (f.path.as_str(), f.blob.as_str())).collect();
    cache
        .0
        .retain(|(path, blob), _| now.contains(&(path.as_str(), blob.as_str())));

    let all: Vec<Items> = files
        .into_iter()
        .filter_map(|file| cache.0.get(&(file.path, file.blob)).map(Arc::clone))
        .collect();
    let count = all.iter().map(|items| items.len()).sum::<usize>();
    let entries: BTreeMap<ObjectKey, Entry> = all.iter().flat_map(|items| items.iter().cloned()).collect();
    if entries.len() < count {
        let every = all.iter().flat_map(|items| items.iter());
        problems.extend(duplicates(every.map(|(key, entry)| (key, &entry.origin))));
    }
    if count > spec.max_objects {
        let why = Why::TooLarge {
            message: format!(
                "{count} objects, more than spec.limits.objects allows ({})",
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
            entries,
            provided,
        },
        checked.fresh,
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
    let mut listing = Listing {
        facts,
        files: Vec::new(),
        parsed: Vec::new(),
        types: BTreeSet::new(),
        definitions: Vec::new(),
        problems: tree.problems,
    };
    let mut bytes = 0_usize;
    for file in &tree.files {
        if known.contains(&(file.path.clone(), file.blob.clone())) {
            continue;
        }
        match store.blob(file, bounds)?.and_then(|bytes| parse(file, &bytes)) {
            Ok(content) => {
                for document in &content.1 {
                    if let Some((version, kind)) = type_of(document) {
                        listing.types.insert((version.to_owned(), kind.to_owned()));
                        if kind == "CustomResourceDefinition" {
                            listing.definitions.push(document.clone());
                        }
                    }
                }
                bytes = bytes.saturating_add(content.0.len());
                listing.parsed.push(Parsed {
                    file: file.clone(),
                    content: (bytes <= HELD_BYTES).then_some(content),
                });
            }
            Err(problem) => listing.problems.push(*problem),
        }
    }
    listing.files = tree.files;
    Ok(listing)
}

fn parse(file: &File, bytes: &[u8]) -> Result<Content, Box<Problem>> {
    let documents = yaml::parse(&file.path, bytes)?;
    Ok((String::from_utf8_lossy(bytes).into(), documents))
}

#[derive(Default)]
struct Checked {
    /// Of files without mistakes; only those are remembered, so that the mistakes of the others are named every time.
    items: Vec<(File, Vec<(ObjectKey, Entry)>)>,
    fresh: HashMap<ObjectKey, Loaded>,
    problems: Vec<Problem>,
}

fn check_all(
    folder: &std::path::Path,
    parsed: Vec<Parsed>,
    policy: &Policy,
    kinds: &Kinds,
    bounds: &Bounds,
) -> Result<Checked, GitError> {
    let store = Store::open(folder)?;
    let mut all = Checked::default();
    for Parsed { file, content } in parsed {
        let content = match content {
            Some(content) => Ok(content),
            None => store.blob(&file, bounds)?.and_then(|bytes| parse(&file, &bytes)),
        };
        match content {
            Ok(content) => {
                let (items, loaded, wrong) = check_file(&file, content, policy, kinds);
                if all.fresh.len() + loaded.len() <= HELD {
                    all.fresh.extend(loaded);
                }
                if wrong.is_empty() {
                    all.items.push((file, items));
                }
                all.problems.extend(wrong);
            }
            Err(problem) => all.problems.push(*problem),
        }
    }
    Ok(all)
}

type OfFile = (Vec<(ObjectKey, Entry)>, Vec<(ObjectKey, Loaded)>, Vec<Problem>);

fn check_file(file: &File, (text, documents): Content, policy: &Policy, kinds: &Kinds) -> OfFile {
    let blob: Arc<str> = file.blob.as_str().into();
    let (mut items, mut loaded, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    for document in &documents {
        match check(&file.path, &text, document, policy, kinds) {
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
                        text: Arc::clone(&text),
                    },
                ));
            }
            Err(problem) => wrong.push(*problem),
        }
    }
    (items, loaded, wrong)
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
            let Ok(Ok(content)) = store
                .blob(&file, &bounds)
                .map(|b| b.and_then(|bytes| parse(&file, &bytes)))
            else {
                continue;
            };
            let (_, loaded, _) = check_file(&file, content, &policy, &kinds);
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
