//! Events on the member's Pod.

use std::time::Duration;

use holdfast_core::instance::Why;
use holdfast_core::plan::{Reason, Severity};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use crate::options::Options;

/// Publishes Events.
pub struct Events {
    recorder: Recorder,
    pod: ObjectReference,
}

impl Events {
    pub(super) fn new(client: Client, options: &Options) -> Events {
        let reporter = Reporter {
            controller: "holdfast.dev/agent".to_owned(),
            instance: Some(options.member.0.clone()),
        };
        Events {
            recorder: Recorder::new(client, reporter),
            pod: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(options.member.0.clone()),
                namespace: Some(options.namespace.clone()),
                uid: Some(options.pod_uid.clone()),
                ..ObjectReference::default()
            },
        }
    }

    pub(super) async fn tell(&self, why: &Why) {
        let mut note = why.to_string();
        // The API server refuses more than 1 kB.
        while note.len() > 1000 {
            note.pop();
        }
        let event = Event {
            type_: match why.severity() {
                Severity::Normal => EventType::Normal,
                Severity::Warning => EventType::Warning,
            },
            reason: why.reason().to_owned(),
            note: Some(note),
            action: why.reason().to_owned(),
            secondary: None,
        };
        let published = tokio::time::timeout(Duration::from_secs(10), self.recorder.publish(&event, &self.pod)).await;
        if let Ok(Err(e)) = published {
            tracing::debug!("Event not published: {e}");
        }
    }
}
