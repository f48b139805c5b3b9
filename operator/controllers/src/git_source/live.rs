//! Drift: what somebody changed is put back as in Git, with an Event that names field and manager.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use holdfast_api::GitSource;
use holdfast_core::{
    plan::{Decision, Reason},
    source::{ObjectKey, Why, owned},
};
use holdfast_kube::source::Answer;
use kube::Resource;

use super::{Sources, act::applier, change::Change, memory::Memory, plan_of, read, spec::Spec, watch::Suspect};

/// Events of one round of put-backs; the rest is in the log.
const MAX_EVENTS: usize = 10;

/// Looks at what the watches saw, and puts back what has drifted. Asks the API server nothing unless something has.
pub async fn heal(sources: &Arc<Sources>, source: &GitSource, spec: &Spec, memory: &mut Memory) -> Result<(), Why> {
    // A change set under way is finished first; the next poll goes on with it.
    if memory.underway.is_some() {
        return Ok(());
    }
    let Some(in_force) = memory.in_force.clone() else {
        return Ok(());
    };
    let applier = applier(sources, source, spec, memory)?;
    memory.watches.cover(sources, source, spec, &memory.applier, &in_force);
    let suspects = memory.watches.suspects(&memory.held);
    // What an object itself says of the last apply is truer than what this process remembers.
    for key in memory.watches.behind(&in_force) {
        if let Some(held) = memory.held.get_mut(&key) {
            held.digest = None;
        }
    }
    let now = jiff::Timestamp::now();
    // Left alone: by a person's wish, or because somebody keeps changing it and its turn has not come.
    let mut paused = memory.paused(&in_force);
    paused.extend(
        memory
            .fights
            .iter()
            .filter(|(_, f)| f.next() > now)
            .map(|(key, _)| key.clone()),
    );
    // Objects that were paused while Git changed, and are no longer.
    let behind: Vec<ObjectKey> = in_force
        .entries
        .iter()
        .filter(|(key, entry)| {
            !paused.contains(*key) && memory.held.get(*key).is_some_and(|h| h.digest != Some(entry.digest))
        })
        .map(|(key, _)| key.clone())
        .collect();
    if suspects.is_empty() && behind.is_empty() {
        memory.live_problems.clear();
        return Ok(());
    }
    let suspects: Vec<Suspect> = suspects
        .into_iter()
        .filter(|s| in_force.entries.contains_key(&s.key) && !paused.contains(&s.key))
        .collect();
    let mut drifted: BTreeMap<ObjectKey, (String, String)> = BTreeMap::new();
    for some in suspects.chunks(read::HELD) {
        let keys = some.iter().map(|s| s.key.clone()).collect();
        let contents = read::load(sources.folder(source), &in_force, keys, spec, sources.kinds()).await?;
        for suspect in some {
            let key = suspect.key.clone();
            let Some(loaded) = contents.get(&key) else { continue };
            if let Some(live) = &suspect.live()
                && owned::drifted(&loaded.manifest.value, live, &spec.manager).is_empty()
            {
                if let Some(held) = memory.held.get_mut(&key) {
                    held.owned = suspect.owned;
                }
                memory.watches.settled(&key);
                continue;
            }
            // What a watch saw is old news by now: look again before anything is written.
            let Some(facts) = sources.kinds().get(&loaded.manifest.api_version, &key.kind) else {
                continue;
            };
            match applier.get(&key, &loaded.manifest.api_version, &facts).await {
                Answer::Done(live) => {
                    let fields = owned::drifted(&loaded.manifest.value, &live, &spec.manager);
                    match fields.first() {
                        None => {
                            let seen = memory.watches.note(&key, &live, &spec.manager);
                            if let Some(held) = memory.held.get_mut(&key) {
                                held.owned = seen;
                            }
                        }
                        Some(field) => {
                            let manager = owned::owner(&live, field, &spec.manager)
                                .unwrap_or_else(|| "somebody who removed it".into());
                            drifted.insert(key, (field.clone(), manager));
                        }
                    }
                }
                Answer::Missing(_) => {
                    drifted.insert(key, ("the object".into(), "somebody who deleted it".into()));
                }
                Answer::Forbidden(message) => return Err(Why::Forbidden { message }),
                other => {
                    return Err(Why::ApiFailed {
                        message: format!("{key} cannot be looked at: {other:?}"),
                    });
                }
            }
        }
    }
    if drifted.is_empty() && behind.is_empty() {
        return Ok(());
    }
    let keys: BTreeSet<ObjectKey> = drifted.keys().cloned().collect();
    if let Decision::Do { steps, .. } = plan_of(memory, spec, &in_force, &keys, &paused) {
        // One object that cannot be put back must not keep the others from it.
        let mut change = Change::new(sources, source, spec, applier, in_force, HashMap::new()).one_by_one();
        let outcome = change.run(memory, steps).await;
        memory.underway = None;
        let (left_out, problems) = change.left_out();
        memory.live_problems = problems;
        for key in &left_out {
            memory.fights.entry(key.clone()).or_default().put_back(now);
        }
        drifted.retain(|key, _| !left_out.contains(key));
        if let Err(verdict) = outcome {
            for key in drifted.keys().chain(&behind) {
                memory.fights.entry(key.clone()).or_default().put_back(now);
            }
            memory.live_problems.extend(verdict.problems);
            return Err(verdict.why);
        }
    }
    for (n, (key, (field, manager))) in drifted.into_iter().enumerate() {
        memory.fights.entry(key.clone()).or_default().put_back(now);
        let why = Why::PutBack {
            object: key.to_string(),
            field,
            manager,
        };
        tracing::info!(reason = why.reason(), %why);
        if n < MAX_EVENTS {
            sources.teller.event(&source.object_ref(&()), "PutBack", &why).await;
        }
    }
    memory
        .fights
        .retain(|_, fight| fight.is_on() || fight.next() > now - jiff::SignedDuration::from_mins(30));
    Ok(())
}
