//! One change set: try all of it on the server, then apply and delete in order.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use holdfast_api::GitSource;
use holdfast_core::source::{
    ObjectKey, Problem, Why, conflict,
    health::{self, Health},
    kinds::Kinds,
    object::annotation,
    plan::Step,
    report::Verdict,
};
use holdfast_kube::source::{Answer, Applier, Mode, Pruned, find, write_shards};

use super::{
    Sources,
    explain::{Class, explain, is_enough},
    memory::{Memory, PAUSE, asks_for_pause},
    read::{self, Loaded, Reading},
    spec::Spec,
    verdict,
};

/// Requests of one source that are under way at the same time.
const AT_ONCE: usize = 16;
/// How long a new CustomResourceDefinition may take to be served.
const DEFINITION_FOR: Duration = Duration::from_secs(30);

/// One change set on its way.
pub struct Change<'a> {
    sources: &'a Arc<Sources>,
    source: &'a GitSource,
    spec: &'a Spec,
    applier: Applier,
    reading: Arc<Reading>,
    contents: HashMap<ObjectKey, Loaded>,
    /// What was applied before, for fields that others changed since.
    before: HashMap<ObjectKey, Loaded>,
    kinds: Kinds,
    force: BTreeSet<ObjectKey>,
    skip: BTreeSet<ObjectKey>,
    one_by_one: bool,
    problems: Vec<Problem>,
}

/// What trying one object came to.
enum Tried {
    Fine,
    Take,
    Paused,
    /// Its namespace or kind comes with this very change set.
    Deferred,
    Wrong(Class, Vec<Problem>),
}

impl<'a> Change<'a> {
    pub fn new(
        sources: &'a Arc<Sources>,
        source: &'a GitSource,
        spec: &'a Spec,
        applier: Applier,
        reading: Arc<Reading>,
        contents: HashMap<ObjectKey, Loaded>,
    ) -> Self {
        Change {
            sources,
            source,
            spec,
            applier,
            reading,
            contents,
            before: HashMap::new(),
            kinds: Kinds::default(),
            force: BTreeSet::new(),
            skip: BTreeSet::new(),
            one_by_one: false,
            problems: Vec::new(),
        }
    }

    /// For objects that are each on their own, not parts of one commit: those that cannot be applied are left out.
    pub fn one_by_one(mut self) -> Self {
        self.one_by_one = true;
        self
    }

    /// Those that were left out, and what was wrong with them.
    pub fn left_out(self) -> (BTreeSet<ObjectKey>, Vec<Problem>) {
        (self.skip, self.problems)
    }

    /// Performs the steps in order; returns how many objects were changed and deleted.
    pub async fn run(&mut self, memory: &mut Memory, steps: Vec<Step>) -> Result<(usize, usize), Box<Verdict>> {
        let types: BTreeSet<(&str, &str)> = self
            .reading
            .entries
            .iter()
            .map(|(key, e)| (e.api_version.as_str(), key.kind.as_str()))
            .collect();
        let types = types
            .into_iter()
            .map(|(version, kind)| (version.to_owned(), kind.to_owned()))
            .filter(|t| !self.reading.provided.contains(t))
            .collect();
        self.kinds = self.sources.learn(types).await.map_err(|why| self.refuse(why))?;
        let (mut changed, mut pruned) = (0, 0);
        for step in steps {
            match step {
                Step::Try(keys) => self.try_all(memory, keys).await?,
                Step::Record(keys) => {
                    let added: Vec<ObjectKey> = keys.into_iter().filter(|k| !self.skip.contains(k)).collect();
                    for key in &added {
                        memory.held.entry(key.clone()).or_default().orphan = false;
                    }
                    self.write_inventory(memory, |inventory| inventory.add(&added, false))
                        .await?;
                }
                Step::Apply(keys) => {
                    // From here on there is only forward: part of this commit is in the cluster.
                    memory.underway = Some(Arc::clone(&self.reading));
                    changed += self.apply_all(memory, keys).await?;
                }
                Step::Prune(keys) => pruned += self.prune_all(memory, keys).await?,
                Step::Forget(keys) => {
                    let gone: Vec<ObjectKey> = keys
                        .into_iter()
                        .filter(|k| !memory.held.get(k).is_some_and(|h| h.orphan))
                        .collect();
                    for key in &gone {
                        memory.held.remove(key);
                        memory.watches.forget(key);
                    }
                    self.write_inventory(memory, |inventory| inventory.remove(&gone))
                        .await?;
                }
                Step::Keep(keys) => {
                    for key in &keys {
                        memory.held.entry(key.clone()).or_default().orphan = true;
                    }
                    self.write_inventory(memory, |inventory| inventory.add(&keys, true))
                        .await?;
                }
            }
        }
        Ok((changed, pruned))
    }

    fn refuse(&self, why: Why) -> Box<Verdict> {
        verdict(&self.reading.revision, why, Vec::new())
    }

    async fn write_inventory(
        &self,
        memory: &mut Memory,
        edit: impl FnOnce(&mut holdfast_core::source::inventory::Inventory) -> BTreeSet<u32>,
    ) -> Result<(), Box<Verdict>> {
        let inventory = memory.inventory.get_or_insert_default();
        let dirty = edit(inventory);
        write_shards(&self.sources.client, self.source, inventory, &dirty)
            .await
            .map_err(|e| {
                self.refuse(Why::ApiFailed {
                    message: format!("the inventory cannot be written: {e}"),
                })
            })
    }

    /// Content that is not in hand yet.
    async fn load(&mut self, keys: &[ObjectKey]) -> Result<(), Box<Verdict>> {
        let missing: Vec<ObjectKey> = keys
            .iter()
            .filter(|k| !self.contents.contains_key(*k))
            .cloned()
            .collect();
        let folder = self.sources.folder(self.source);
        let found = read::load(folder, &self.reading, missing, self.spec, self.kinds.clone())
            .await
            .map_err(|why| self.refuse(why))?;
        self.contents.extend(found);
        Ok(())
    }

    /// What was applied of these before.
    async fn load_before(&mut self, memory: &Memory, keys: &[ObjectKey]) {
        if let Some(in_force) = &memory.in_force {
            let held: Vec<ObjectKey> = keys.iter().filter(|k| memory.held.contains_key(*k)).cloned().collect();
            let folder = self.sources.folder(self.source);
            self.before = read::load(folder, in_force, held, self.spec, self.kinds.clone())
                .await
                .unwrap_or_default();
        }
    }

    /// Of many objects only some have their content in hand at a time.
    fn let_go(&mut self, of: usize) {
        if of > read::HELD {
            self.contents = HashMap::new();
        }
        self.before = HashMap::new();
    }

    async fn try_all(&mut self, memory: &Memory, keys: Vec<ObjectKey>) -> Result<(), Box<Verdict>> {
        let new_namespaces: BTreeSet<String> = self
            .reading
            .entries
            .keys()
            .filter(|k| k.group.is_empty() && k.kind == "Namespace")
            .map(|k| k.name.clone())
            .collect();
        let mut wrong: BTreeMap<Class, Vec<Problem>> = BTreeMap::new();
        for some in keys.chunks(read::HELD) {
            self.load(some).await?;
            self.load_before(memory, some).await;
            self.try_some(some, &new_namespaces, &mut wrong).await;
            self.let_go(keys.len());
            if is_enough(&wrong) {
                break;
            }
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(self.sum_up(wrong))
        }
    }

    async fn try_some(
        &mut self,
        keys: &[ObjectKey],
        new_namespaces: &BTreeSet<String>,
        wrong: &mut BTreeMap<Class, Vec<Problem>>,
    ) {
        let (mut force, mut skip, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
        {
            let mut tries = stream::iter(keys.to_vec())
                .map(|key| self.try_one(key, new_namespaces))
                .buffer_unordered(AT_ONCE);
            while let Some((key, tried)) = tries.next().await {
                match tried {
                    Tried::Fine | Tried::Deferred => {}
                    Tried::Take => force.push(key),
                    Tried::Paused => skip.push(key),
                    Tried::Wrong(_, problems) if self.one_by_one => {
                        left_out.extend(problems);
                        skip.push(key);
                    }
                    Tried::Wrong(class, problems) => wrong.entry(class).or_default().extend(problems),
                }
                if is_enough(wrong) {
                    break;
                }
            }
        }
        self.problems.extend(left_out);
        self.force.extend(force);
        self.skip.extend(skip);
    }

    async fn try_one(&self, key: ObjectKey, new_namespaces: &BTreeSet<String>) -> (ObjectKey, Tried) {
        let Some(loaded) = self.contents.get(&key) else {
            let problem = Problem {
                object: Some(key.to_string()),
                message: "its file could not be read again".into(),
                ..Problem::default()
            };
            return (key, Tried::Wrong(Class::Failed, vec![problem]));
        };
        if self
            .reading
            .provided
            .contains(&(loaded.manifest.api_version.clone(), key.kind.clone()))
        {
            return (key, Tried::Deferred);
        }
        let mut answer = self
            .send(
                loaded,
                Mode {
                    dry_run: true,
                    force: false,
                },
            )
            .await;
        let mut fine = Tried::Fine;
        if let Answer::Conflict(conflicts) = &answer {
            let before = self.before.get(&key);
            match conflict::judge(conflicts, |field| {
                before.is_some_and(|b| conflict::holds(&b.manifest.value, field))
            }) {
                conflict::Verdict::Take => {
                    answer = self
                        .send(
                            loaded,
                            Mode {
                                dry_run: true,
                                force: true,
                            },
                        )
                        .await;
                    fine = Tried::Take;
                }
                conflict::Verdict::Refuse(refused) => answer = Answer::Conflict(refused),
            }
        }
        let tried = match answer {
            // The merged object has what a person put on the live one.
            Answer::Done(merged) if asks_for_pause(annotation(&merged, PAUSE)) => Tried::Paused,
            Answer::Done(_) => fine,
            Answer::Missing(_) if key.namespace.as_deref().is_some_and(|n| new_namespaces.contains(n)) => {
                Tried::Deferred
            }
            other => {
                let (class, problems) = explain(loaded, other);
                Tried::Wrong(class, problems)
            }
        };
        (key, tried)
    }

    async fn send(&self, loaded: &Loaded, mode: Mode) -> Answer {
        match self
            .kinds
            .get(&loaded.manifest.api_version, &loaded.manifest.key.kind)
            .or_else(|| {
                self.sources
                    .kinds()
                    .get(&loaded.manifest.api_version, &loaded.manifest.key.kind)
            }) {
            Some(facts) => self.applier.apply(&loaded.manifest, &facts, mode).await,
            None => Answer::Missing(format!(
                "the server has no kind {} in {}",
                loaded.manifest.key.kind, loaded.manifest.api_version
            )),
        }
    }

    async fn apply_all(&mut self, memory: &mut Memory, keys: Vec<ObjectKey>) -> Result<usize, Box<Verdict>> {
        let keys: Vec<ObjectKey> = keys.into_iter().filter(|k| !self.skip.contains(k)).collect();
        let mut changed = 0;
        for some in keys.chunks(read::HELD) {
            self.load(some).await?;
            changed += self.send_some(memory, some).await?;
            self.let_go(keys.len());
        }
        let definitions: Vec<ObjectKey> = keys
            .into_iter()
            .filter(|k| k.kind == "CustomResourceDefinition")
            .collect();
        if !definitions.is_empty() {
            self.load(&definitions).await?;
            for definition in definitions.iter().filter_map(|k| self.contents.get(k)) {
                self.wait_for_definition(definition).await?;
            }
            self.kinds = self
                .sources
                .learn(self.reading.provided.clone())
                .await
                .map_err(|why| self.refuse(why))?;
        }
        Ok(changed)
    }

    async fn send_some(&self, memory: &mut Memory, keys: &[ObjectKey]) -> Result<usize, Box<Verdict>> {
        let mut wrong: BTreeMap<Class, Vec<Problem>> = BTreeMap::new();
        let mut changed = 0;
        let mut sent = stream::iter(keys.to_vec())
            .map(|key| async move {
                let loaded = self.contents.get(&key)?;
                let answer = self
                    .send(
                        loaded,
                        Mode {
                            dry_run: false,
                            force: self.force.contains(&key),
                        },
                    )
                    .await;
                Some((key, loaded, answer))
            })
            .buffer_unordered(AT_ONCE);
        while let Some(outcome) = sent.next().await {
            match outcome {
                Some((key, loaded, Answer::Done(live))) => {
                    changed += 1;
                    let held = memory.held.entry(key.clone()).or_default();
                    held.digest = Some(loaded.manifest.digest);
                    held.owned = memory.watches.note(&key, &live, &self.spec.manager);
                }
                Some((_, loaded, answer)) => {
                    let (class, problems) = explain(loaded, answer);
                    wrong.entry(class).or_default().extend(problems);
                }
                None => {}
            }
            if is_enough(&wrong) {
                break;
            }
        }
        if wrong.is_empty() {
            Ok(changed)
        } else {
            Err(self.sum_up(wrong))
        }
    }

    async fn wait_for_definition(&self, definition: &Loaded) -> Result<(), Box<Verdict>> {
        let manifest = &definition.manifest;
        let Some(facts) = self.kinds.get(&manifest.api_version, &manifest.key.kind) else {
            return Ok(());
        };
        let served = async {
            loop {
                if let Answer::Done(live) = self.applier.get(&manifest.key, &manifest.api_version, &facts).await
                    && health::of(&live) == Health::Current
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(DEFINITION_FOR, served).await.map_err(|_| {
            self.refuse(Why::ApiFailed {
                message: format!("{} is not served after {} s", manifest.key, DEFINITION_FOR.as_secs()),
            })
        })
    }

    async fn prune_all(&self, memory: &mut Memory, keys: Vec<ObjectKey>) -> Result<usize, Box<Verdict>> {
        let mut pruned = 0;
        for key in keys {
            let version = memory
                .in_force
                .as_ref()
                .and_then(|r| r.entries.get(&key))
                .map(|e| e.api_version.clone());
            let known = version.and_then(|v| self.kinds.get(&v, &key.kind).map(|facts| (v, facts)));
            let found = match known {
                Some(known) => Some(known),
                None => find(&self.sources.client, &self.kinds, &key.group, &key.kind)
                    .await
                    .map_err(|message| self.refuse(Why::ApiFailed { message }))?,
            };
            // A kind that is no longer served has no objects left.
            let Some((version, facts)) = found else { continue };
            match self.applier.prune(&key, &version, &facts).await {
                Ok(Pruned::Gone) => pruned += 1,
                Ok(Pruned::NotOurs) => {
                    tracing::info!(object = %key, "gone from Git, but not ours any more: left alone")
                }
                Ok(Pruned::Kept) => {
                    memory.held.entry(key.clone()).or_default().orphan = true;
                    self.write_inventory(memory, |inventory| inventory.add([&key], true))
                        .await?;
                }
                Err(answer) => {
                    let why = match answer {
                        Answer::Forbidden(message) => Why::Forbidden { message },
                        Answer::Invalid(problems) => Why::ApiFailed {
                            message: problems.first().map(|p| p.message.clone()).unwrap_or_default(),
                        },
                        Answer::Failed(message) | Answer::Missing(message) => Why::ApiFailed {
                            message: format!("{key} cannot be deleted: {message}"),
                        },
                        Answer::Conflict(_) | Answer::Done(_) => Why::ApiFailed {
                            message: format!("{key} cannot be deleted"),
                        },
                    };
                    return Err(self.refuse(why));
                }
            }
        }
        Ok(pruned)
    }

    fn sum_up(&self, wrong: BTreeMap<Class, Vec<Problem>>) -> Box<Verdict> {
        let revision = self.reading.revision.clone();
        let class = wrong.keys().next().copied().unwrap_or(Class::Failed);
        let mut problems: Vec<Problem> = wrong.into_values().flatten().collect();
        problems.sort();
        let first = problems.first().map(|p| p.message.clone()).unwrap_or_default();
        let count = problems.len();
        let why = match class {
            Class::Failed => Why::ApiFailed { message: first },
            Class::Forbidden => Why::Forbidden {
                message: format!("ServiceAccount {} may not: {first}", self.spec.account),
            },
            Class::Refused => Why::RefusedByServer {
                revision,
                problems: count,
            },
            Class::Owned => Why::OwnedByOthers {
                revision,
                problems: count,
            },
        };
        verdict(&self.reading.revision, why, problems)
    }
}
