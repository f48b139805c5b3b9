//! Bringing a commit into force: read, decide, and have it changed.

use std::{collections::BTreeSet, sync::Arc};

use holdfast_api::{GitSource, git_source::Applied};
use holdfast_core::{
    plan::Decision,
    source::{Why, kinds::Kinds, report::Verdict},
};
use holdfast_kube::source::{Applier, act_as, learn, read_inventory};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::{
    Sources,
    change::Change,
    memory::{Held, Memory},
    plan_of,
    read::{self, Reading},
    spec::Spec,
    verdict,
};

/// Brings `revision` into force, whole or not at all. `Ok(None)`: it was in force already.
pub async fn bring_into_force(
    sources: &Arc<Sources>,
    source: &GitSource,
    spec: &Spec,
    memory: &mut Memory,
    revision: &str,
) -> Result<Option<Applied>, Box<Verdict>> {
    let failed = |why: Why| verdict(revision, why, Vec::new());
    let applier = applier(sources, source, spec, memory).map_err(failed)?;
    recall(sources, source, spec, memory, revision).await.map_err(failed)?;
    let mut cache = std::mem::take(&mut memory.cache);
    let outcome = read::read(sources.folder(source), revision, spec, &mut cache, |types| {
        sources.learn(types)
    })
    .await;
    memory.cache = cache;
    let (reading, fresh) = outcome?;
    let reading = Arc::new(reading);
    remember_digests(memory, &reading, source);

    let before = memory
        .in_force
        .as_ref()
        .map(|r| r.revision.clone())
        .or_else(|| source.status.as_ref().and_then(|s| s.applied_revision.clone()));
    let (changed, pruned) = match plan_of(memory, spec, &reading, &BTreeSet::new(), &memory.paused(&reading)) {
        Decision::Stay(Why::NothingNew { .. }) | Decision::Wait { .. } => (0, 0),
        Decision::Stay(why) => return Err(failed(why)),
        Decision::Do { steps, .. } => {
            let mut change = Change::new(sources, source, spec, applier, Arc::clone(&reading), fresh);
            change.run(memory, steps).await?
        }
    };
    memory.underway = None;
    memory.watches.cover(sources, source, spec, &memory.applier, &reading);
    let entry = (before.as_deref() != Some(revision)).then(|| Applied {
        revision: revision.to_owned(),
        at: Time(jiff::Timestamp::now()),
        subject: reading.subject.clone(),
        signer: memory
            .verified
            .as_ref()
            .filter(|(r, _)| r == revision)
            .map(|(_, signer)| signer.clone()),
        changed: u32::try_from(changed).unwrap_or(u32::MAX),
        pruned: u32::try_from(pruned).unwrap_or(u32::MAX),
    });
    memory.in_force = Some(reading);
    Ok(entry)
}

/// The client that acts as the source's ServiceAccount, made once per spec.
pub fn applier(sources: &Sources, source: &GitSource, spec: &Spec, memory: &mut Memory) -> Result<Applier, Why> {
    if let Some((account, applier)) = &memory.applier
        && *account == spec.account
    {
        return Ok(applier.clone());
    }
    let namespace = source.namespace().unwrap_or_default();
    let client = act_as(&sources.config, &namespace, &spec.account).map_err(|message| Why::Forbidden { message })?;
    let applier = Applier::new(client, spec.manager.clone(), &namespace, &source.name_any());
    memory.applier = Some((spec.account.clone(), applier.clone()));
    Ok(applier)
}

/// After a restart: the inventory, and what the applied commit wanted, if it is still here.
async fn recall(
    sources: &Arc<Sources>,
    source: &GitSource,
    spec: &Spec,
    memory: &mut Memory,
    revision: &str,
) -> Result<(), Why> {
    if memory.inventory.is_none() {
        let inventory = read_inventory(&sources.client, source)
            .await
            .map_err(|e| Why::ApiFailed {
                message: format!("the inventory cannot be read: {e}"),
            })?;
        memory.held = inventory
            .entries()
            .map(|(key, orphan)| {
                (
                    key.clone(),
                    Held {
                        orphan,
                        ..Held::default()
                    },
                )
            })
            .collect();
        memory.inventory = Some(inventory);
    }
    let applied = source.status.as_ref().and_then(|s| s.applied_revision.clone());
    if memory.in_force.is_none()
        && let Some(applied) = applied.filter(|a| a != revision)
    {
        let mut cache = read::Cache::default();
        // Without it every object is applied again, which is slower and no less right.
        if let Ok((reading, _)) = read::read(sources.folder(source), &applied, spec, &mut cache, |types| {
            sources.learn(types)
        })
        .await
        {
            memory.cache = cache;
            remember_digests(memory, &reading, source);
            memory.in_force = Some(Arc::new(reading));
        }
    }
    Ok(())
}

/// A revision is called applied only once all of it was; so its objects that are in the inventory are known to be as it
/// wants them, or to have drifted since, which the watch will show.
fn remember_digests(memory: &mut Memory, reading: &Reading, source: &GitSource) {
    let applied = memory
        .written
        .as_ref()
        .or(source.status.as_ref())
        .and_then(|s| s.applied_revision.as_deref());
    if memory.in_force.is_some() || memory.underway.is_some() || applied != Some(reading.revision.as_str()) {
        return;
    }
    for (key, held) in &mut memory.held {
        if let Some(entry) = reading.entries.get(key) {
            held.digest.get_or_insert(entry.digest);
        }
    }
}

impl Sources {
    /// Asks the server about kinds that are not known yet.
    pub(super) async fn learn(&self, types: BTreeSet<(String, String)>) -> Result<Kinds, Why> {
        let mut kinds = self.kinds();
        let mut news = false;
        for (api_version, kind) in types {
            if kinds.get(&api_version, &kind).is_none() {
                news |= learn(&self.client, &mut kinds, &api_version, &kind)
                    .await
                    .map_err(|message| Why::ApiFailed { message })?;
            }
        }
        if news && let Ok(mut shared) = self.kinds.lock() {
            *shared = kinds.clone();
        }
        Ok(kinds)
    }
}
