//! The operator's wish in its ConfigMap.

use std::sync::Arc;

use futures::StreamExt;
use holdfast_core::instance::SetSpec;
use holdfast_wire::{Names, SPEC_KEY};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};

use crate::options::Options;
use crate::shell::{Inbox, Input};

/// Tells each wish.
pub(super) async fn watch(client: Client, options: Arc<Options>, inbox: Inbox) {
    let api: Api<ConfigMap> = Api::namespaced(client, &options.namespace);
    let fields = format!("metadata.name={}", Names(&options.set).spec());
    let config = watcher::Config::default().fields(&fields);
    let mut stream = std::pin::pin!(watcher(api, config).default_backoff().applied_objects());
    while let Some(next) = stream.next().await {
        match next {
            Ok(map) => {
                let json = map.data.as_ref().and_then(|d| d.get(SPEC_KEY));
                match json.map(|j| serde_json::from_str::<SetSpec>(j)) {
                    Some(Ok(spec)) => {
                        let _ = inbox.send(Input::Spec(spec));
                    }
                    Some(Err(e)) => tracing::error!("the wish cannot be read: {e}"),
                    None => tracing::warn!("the wish's ConfigMap has no {SPEC_KEY}"),
                }
            }
            Err(e) => tracing::debug!("watching the wish: {e}"),
        }
    }
}
