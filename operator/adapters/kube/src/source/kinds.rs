//! Learning kinds that are not built in.

use holdfast_core::source::{
    kinds::{KindFacts, Kinds},
    object::split_api_version,
};
use kube::{
    Client,
    core::{ApiResource, GroupVersionKind},
    discovery::{Scope, pinned_kind},
};

use super::{Answer, read};

/// Asks the server about a kind, unless it is known. `Ok(false)`: the server has no such kind.
pub async fn learn(client: &Client, kinds: &mut Kinds, api_version: &str, kind: &str) -> Result<bool, String> {
    if kinds.get(api_version, kind).is_some() {
        return Ok(true);
    }
    let (group, version) = split_api_version(api_version);
    match pinned_kind(client, &GroupVersionKind::gvk(group, version, kind)).await {
        Ok((resource, capabilities)) => {
            let namespaced = matches!(capabilities.scope, Scope::Namespaced);
            kinds.learn(
                api_version,
                kind,
                KindFacts {
                    plural: resource.plural,
                    namespaced,
                },
            );
            Ok(true)
        }
        Err(kube::Error::Discovery(_)) => Ok(false),
        Err(e) => match read(&e) {
            Answer::Missing(_) => Ok(false),
            Answer::Forbidden(message) | Answer::Failed(message) => Err(message),
            other => Err(format!("{other:?}")),
        },
    }
}

/// What requests need to know about a kind.
pub fn resource(api_version: &str, kind: &str, facts: &KindFacts) -> ApiResource {
    let (group, version) = split_api_version(api_version);
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), &facts.plural)
}

/// The version and facts of a kind of which only group and kind are known: an object that has gone from Git.
pub async fn find(
    client: &Client,
    kinds: &Kinds,
    group: &str,
    kind: &str,
) -> Result<Option<(String, KindFacts)>, String> {
    if let Some(known) = kinds.any_version(group, kind) {
        return Ok(Some(known));
    }
    match kube::discovery::group(client, group).await {
        Ok(served) => Ok(served.recommended_kind(kind).map(|(resource, capabilities)| {
            (
                resource.api_version,
                KindFacts {
                    plural: resource.plural,
                    namespaced: matches!(capabilities.scope, Scope::Namespaced),
                },
            )
        })),
        Err(kube::Error::Discovery(_)) => Ok(None),
        Err(e) => match read(&e) {
            Answer::Missing(_) => Ok(None),
            _ => Err(e.to_string()),
        },
    }
}
