//! Events for people: the same words as in conditions and logs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use holdfast_core::plan::{Reason, Severity};
use holdfast_core::status::conditions::clip;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};

use super::Metrics;

/// The same words within this time are one Event that counts; the API server forgets Events after an hour.
const SERIES: SignedDuration = SignedDuration::from_mins(6);

/// Publishes Events. Publishing never fails a reconcile.
///
/// The library's recorder makes one series of all Events of a reason about an object, so that people read the first note for
/// ever: another refused commit, another field put back, would not be seen. Here other words are another Event.
pub struct Teller {
    client: Client,
    metrics: Arc<Metrics>,
    controller: String,
    instance: String,
    last: Mutex<HashMap<String, String>>,
    series: Mutex<HashMap<(String, String), Series>>,
}

/// An Event that may be told again.
#[derive(Clone, Debug)]
struct Series {
    name: String,
    count: i32,
    at: Timestamp,
}

impl Teller {
    /// One per process: it aggregates.
    pub fn new(client: Client, controller: &str, metrics: Arc<Metrics>) -> Self {
        Teller {
            client,
            metrics,
            controller: controller.into(),
            // Must not be empty.
            instance: std::env::var("HOSTNAME")
                .ok()
                .filter(|h| !h.is_empty())
                .unwrap_or_else(|| controller.into()),
            last: Mutex::default(),
            series: Mutex::default(),
        }
    }

    /// Tells `why` about `object`, once per change of wording.
    pub async fn tell(&self, object: &ObjectReference, action: &str, why: &impl Reason) {
        let key = format!(
            "{}/{}",
            object.namespace.as_deref().unwrap_or(""),
            object.uid.as_deref().unwrap_or("")
        );
        let said = words(why);
        if let Ok(mut last) = self.last.lock() {
            if last.get(&key) == Some(&said) {
                return;
            }
            last.insert(key, said);
        }
        self.event(object, action, why).await;
    }

    /// Tells `why` about `object`, each time that it is called: something happened, and perhaps again.
    pub async fn event(&self, object: &ObjectReference, action: &str, why: &impl Reason) {
        self.metrics.told(why);
        let now = Timestamp::now();
        let key = (object.uid.clone().unwrap_or_default(), words(why));
        let before = self.series.lock().ok().and_then(|mut series| {
            series.retain(|_, s| now.duration_since(s.at) < SERIES);
            series.get(&key).cloned()
        });
        let namespace = object.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let published = match before {
            Some(before) => {
                let series = EventSeries {
                    count: before.count.saturating_add(1),
                    last_observed_time: MicroTime(now),
                };
                let count = series.count;
                let patch = Patch::Merge(serde_json::json!({ "series": series }));
                let name = before.name;
                api.patch(&name, &PatchParams::default(), &patch)
                    .await
                    .map(|_| Series { name, count, at: now })
            }
            None => {
                let event = self.new_event(object, namespace, action, why, now);
                let name = event.metadata.name.clone().unwrap_or_default();
                api.create(&PostParams::default(), &event).await.map(|_| Series {
                    name,
                    count: 1,
                    at: now,
                })
            }
        };
        match (published, self.series.lock()) {
            (Ok(told), Ok(mut series)) => {
                series.insert(key, told);
            }
            (Err(error), series) => {
                tracing::warn!(%error, reason = why.reason(), "event not published");
                // Perhaps it is gone: the next one is a new one.
                if let Ok(mut series) = series {
                    series.remove(&key);
                }
            }
            (Ok(_), Err(_)) => {}
        }
    }

    fn new_event(
        &self,
        object: &ObjectReference,
        namespace: &str,
        action: &str,
        why: &impl Reason,
        now: Timestamp,
    ) -> Event {
        let name = clip(object.name.clone().unwrap_or_default(), 200);
        Event {
            metadata: ObjectMeta {
                // Two within a nanosecond are told apart by chance.
                name: Some(format!("{name}.{:x}{:04x}", now.as_nanosecond(), rand::random::<u16>())),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            action: Some(action.to_owned()),
            reason: Some(why.reason().to_owned()),
            note: Some(clip(why.to_string(), 1000)),
            type_: Some(match why.severity() {
                Severity::Warning => "Warning".into(),
                Severity::Normal => "Normal".into(),
            }),
            regarding: Some(object.clone()),
            reporting_controller: Some(self.controller.clone()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, namespace: &str, uid: &str) {
        if let Ok(mut last) = self.last.lock() {
            last.remove(&format!("{namespace}/{uid}"));
        }
    }
}

fn words(why: &impl Reason) -> String {
    format!("{} {}", why.reason(), clip(why.to_string(), 1000))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use holdfast_core::source::Why;
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::Value;

    use super::*;

    type Seen = Arc<Mutex<Vec<(String, Value)>>>;

    /// An API server that stores whatever it is sent.
    fn teller(seen: Seen) -> Teller {
        let service = tower::service_fn(move |request: Request<Body>| {
            let seen = seen.clone();
            async move {
                let method = request.method().to_string();
                let body = request.into_body().collect_bytes().await.unwrap();
                let value: Value = serde_json::from_slice(&body).unwrap();
                seen.lock().unwrap().push((method, value));
                let answer = r#"{"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "x"}}"#;
                Ok::<_, std::convert::Infallible>(Response::new(Body::from(answer.as_bytes().to_vec())))
            }
        });
        Teller::new(Client::new(service, "civil"), "holdfast-operator", Arc::default())
    }

    #[tokio::test]
    async fn other_words_are_another_event_and_the_same_words_count() {
        let seen = Seen::default();
        let teller = teller(seen.clone());
        let object = ObjectReference {
            uid: Some("u".into()),
            name: Some("git".into()),
            namespace: Some("civil".into()),
            ..ObjectReference::default()
        };
        let why = |field: &str| Why::PutBack {
            object: "ConfigMap civil/a".into(),
            field: field.into(),
            manager: "kubectl-edit".into(),
        };
        for field in ["data.a", "data.b", "data.b"] {
            teller.event(&object, "PutBack", &why(field)).await;
        }
        teller.tell(&object, "PutBack", &why("data.c")).await;
        teller.tell(&object, "PutBack", &why("data.c")).await;
        let seen = seen.lock().unwrap();
        let told: Vec<(&str, String)> = seen
            .iter()
            .map(|(method, event)| (method.as_str(), event["note"].as_str().unwrap_or("").to_owned()))
            .collect();
        assert_eq!(
            told,
            [
                ("POST", why("data.a").to_string()),
                ("POST", why("data.b").to_string()),
                ("PATCH", String::new()),
                ("POST", why("data.c").to_string())
            ]
        );
        assert_eq!(seen[2].1["series"]["count"], 2);
        assert_ne!(seen[0].1["metadata"]["name"], seen[1].1["metadata"]["name"]);
    }
}
