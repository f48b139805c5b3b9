//! `kubectl holdfast fence` and `unfence`.

use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::cluster::{Cluster, FIELD_MANAGER, member};
use crate::failure::Failure;

/// Whom.
#[derive(clap::Args)]
pub struct Options {
    /// The replica set.
    name: String,
    /// The member, by name or number.
    member: String,
    /// Take spec.fenced over from whoever else sets it.
    #[arg(long)]
    force: bool,
}

/// Adds the member to spec.fenced, or takes it out, as an owner of that one field: Git, where it does not set spec.fenced
/// itself, neither sees a difference nor puts it back.
pub async fn run(cluster: &Cluster, options: &Options, fence: bool) -> Result<(), Failure> {
    let (name, set) = (&options.name, cluster.set(&options.name).await?);
    // A member that is fenced may have gone from status since.
    let who = match member(&set, &options.member) {
        Err(_) if set.spec.fenced.contains(&options.member) => options.member.clone(),
        found => found?,
    };
    if set.spec.fenced.contains(&who) == fence {
        println!("{who} is {} already", if fence { "fenced" } else { "not fenced" });
        return Ok(());
    }
    let mut fenced: Vec<String> = set.spec.fenced.iter().filter(|m| **m != who).cloned().collect();
    if fence {
        fenced.push(who.clone());
        fenced.sort();
    }
    // Left out when empty, so that nothing is owned when nothing is fenced.
    let spec = if fenced.is_empty() {
        json!({})
    } else {
        json!({"fenced": fenced})
    };
    let body = json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "HAReplicaSet", "metadata": {"name": name}, "spec": spec,
    });
    let params = PatchParams {
        force: options.force,
        ..PatchParams::apply(FIELD_MANAGER)
    };
    let patched = match cluster.sets().patch(name, &params, &Patch::Apply(&body)).await {
        Ok(patched) => patched,
        Err(kube::Error::Api(status)) if status.code == 409 => {
            return Err(
                Failure::new(format!("somebody else sets spec.fenced: {}", status.message))
                    .next("change it there (in Git, if it comes from Git), or take it over with --force"),
            );
        }
        Err(e) => return Err(Failure::of(&cluster.call(name), e)),
    };
    if patched.spec.fenced.contains(&who) != fence {
        return Err(Failure::new(format!(
            "spec.fenced is {:?}: somebody else sets it too",
            patched.spec.fenced
        ))
        .next("change it where it comes from, for example in Git"));
    }
    if fence {
        let leads = set.status.and_then(|s| s.primary).as_ref() == Some(&who);
        println!("fenced {who}: its engine is stopped and stays so until `kubectl holdfast unfence {name} {who}`");
        if leads {
            println!(
                "it was the primary: the others elect another one, if they can prove to hold every acknowledged commit"
            );
        }
    } else {
        println!("unfenced {who}: it starts, rewinds or copies what it lacks, and follows");
    }
    println!(
        "this is spec.fenced, owned by {FIELD_MANAGER}; a Git source that sets spec.fenced too will say that there is a conflict"
    );
    Ok(())
}
