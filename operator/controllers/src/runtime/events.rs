//! Events for people: the same words as in conditions and logs.

use std::collections::HashMap;
use std::sync::Mutex;

use holdfast_core::plan::{Reason, Severity};
use holdfast_core::status::conditions::clip;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

/// Publishes an Event when the reason about an object changes. Publishing never fails a reconcile.
pub struct Teller {
    recorder: Recorder,
    last: Mutex<HashMap<String, String>>,
}

impl Teller {
    /// One per process: it aggregates.
    pub fn new(client: Client, controller: &str) -> Self {
        let reporter = Reporter {
            controller: controller.into(),
            instance: std::env::var("HOSTNAME").ok(),
        };
        Teller {
            recorder: Recorder::new(client, reporter),
            last: Mutex::default(),
        }
    }

    /// Tells `why` about `object`, once per change of wording.
    pub async fn tell(&self, object: &ObjectReference, action: &str, why: &impl Reason) {
        let note = clip(why.to_string(), 1000);
        let key = format!(
            "{}/{}",
            object.namespace.as_deref().unwrap_or(""),
            object.uid.as_deref().unwrap_or("")
        );
        let said = format!("{} {note}", why.reason());
        if let Ok(mut last) = self.last.lock() {
            if last.get(&key) == Some(&said) {
                return;
            }
            last.insert(key, said);
        }
        let event = Event {
            type_: if why.severity() == Severity::Warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: why.reason().to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, object).await {
            tracing::warn!(%error, reason = why.reason(), "event not published");
        }
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, namespace: &str, uid: &str) {
        if let Ok(mut last) = self.last.lock() {
            last.remove(&format!("{namespace}/{uid}"));
        }
    }
}
