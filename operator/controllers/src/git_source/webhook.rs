//! `POST /hook/<namespace>/<name>`: the Git server says that something was pushed. The payload is believed in nothing: a
//! good signature makes the source poll, and the poll decides.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode},
    routing::post,
};
use hmac::{Hmac, KeyInit, Mac};
use holdfast_api::GitSource;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use sha2::Sha256;

use super::Sources;

/// Larger bodies are refused before they are read. GitHub's pushes are far below.
const BODY: usize = 256 * 1024;
/// The shared secret of a source is read again after this long.
const SECRET_FOR: Duration = Duration::from_secs(60);
/// Sources whose secrets (or absence) are remembered; more are asked for again.
const REMEMBERED: usize = 10_000;
/// Look-ups of unknown sources per second, from everybody together: strangers must not make API requests without end.
const LOOKUPS_PER_SECOND: u32 = 10;
/// Deliveries remembered against replay.
const DELIVERIES: usize = 1_000;

/// When a source was asked about, and its shared secret, if it has one.
type Token = (Instant, Option<Vec<u8>>);

/// What the receiver remembers.
#[derive(Default)]
pub(super) struct Secrets {
    tokens: Mutex<BTreeMap<(String, String), Token>>,
    lookups: Mutex<Option<(Instant, u32)>>,
    deliveries: Mutex<VecDeque<[u8; 32]>>,
}

/// The receiver, to be served on a port of its own, behind TLS of an Ingress or Gateway.
pub fn router(sources: Arc<Sources>) -> Router {
    Router::new()
        .route("/hook/{namespace}/{name}", post(receive))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(sources)
}

/// One answer for "no such source", "no webhook in its spec" and "wrong signature": strangers learn nothing.
const REFUSED: StatusCode = StatusCode::UNAUTHORIZED;

async fn receive(
    State(sources): State<Arc<Sources>>,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let Some(signature) = signature(&headers) else {
        return REFUSED;
    };
    let token = match token(&sources, &namespace, &name).await {
        Ok(Some(token)) => token,
        Ok(None) => return REFUSED,
        Err(status) => return status,
    };
    if !genuine(&token, &body, &signature) {
        return REFUSED;
    }
    if sources.webhooks.is_replay(&signature) {
        return StatusCode::ACCEPTED;
    }
    sources.poll_now(&namespace, &name);
    StatusCode::ACCEPTED
}

/// GitHub's (and Gitea's, Forgejo's) header, or the generic one.
fn signature(headers: &HeaderMap) -> Option<[u8; 32]> {
    let value = headers
        .get("x-hub-signature-256")
        .or_else(|| headers.get("x-holdfast-signature"))?
        .to_str()
        .ok()?;
    let hex = value.trim().strip_prefix("sha256=")?;
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// In constant time.
fn genuine(token: &[u8], body: &[u8], signature: &[u8; 32]) -> bool {
    Hmac::<Sha256>::new_from_slice(token).is_ok_and(|mac| mac.chain_update(body).verify_slice(signature).is_ok())
}

async fn token(sources: &Sources, namespace: &str, name: &str) -> Result<Option<Vec<u8>>, StatusCode> {
    let key = (namespace.to_owned(), name.to_owned());
    if let Ok(tokens) = sources.webhooks.tokens.lock()
        && let Some((read, token)) = tokens.get(&key)
        && read.elapsed() < SECRET_FOR
    {
        return Ok(token.clone());
    }
    if !sources.webhooks.may_look_up() {
        return Err(StatusCode::TOO_MANY_REQUESTS);
    }
    let token = look_up(sources, namespace, name).await.map_err(|error| {
        tracing::warn!(%error, namespace, name, "webhook secret cannot be read");
        StatusCode::SERVICE_UNAVAILABLE
    })?;
    if let Ok(mut tokens) = sources.webhooks.tokens.lock() {
        if tokens.len() >= REMEMBERED {
            tokens.clear();
        }
        tokens.insert(key, (Instant::now(), token.clone()));
    }
    Ok(token)
}

async fn look_up(sources: &Sources, namespace: &str, name: &str) -> kube::Result<Option<Vec<u8>>> {
    let plain = |text: &str| {
        !text.is_empty()
            && text.len() <= 253
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
    };
    if !plain(namespace)
        || !plain(name)
        || sources
            .settings
            .namespace
            .as_ref()
            .is_some_and(|only| only != namespace)
    {
        return Ok(None);
    }
    let Some(source) = Api::<GitSource>::namespaced(sources.client.clone(), namespace)
        .get_opt(name)
        .await?
    else {
        return Ok(None);
    };
    let Some(webhook) = source.spec.webhook else {
        return Ok(None);
    };
    let secret = Api::<Secret>::namespaced(sources.client.clone(), namespace)
        .get_opt(&webhook.secret_ref.name)
        .await?;
    // An empty token would let everybody in.
    Ok(secret
        .and_then(|s| s.data?.remove("token"))
        .map(|b| b.0.trim_ascii().to_vec())
        .filter(|t| !t.is_empty()))
}

impl Secrets {
    fn may_look_up(&self) -> bool {
        let Ok(mut lookups) = self.lookups.lock() else {
            return false;
        };
        let now = Instant::now();
        match lookups.as_mut() {
            Some((since, count)) if now.duration_since(*since) < Duration::from_secs(1) => {
                *count += 1;
                *count <= LOOKUPS_PER_SECOND
            }
            _ => {
                *lookups = Some((now, 1));
                true
            }
        }
    }

    /// The same signed body twice is a replay, or a redelivery of what was polled for already; the interval covers both.
    fn is_replay(&self, signature: &[u8; 32]) -> bool {
        let Ok(mut deliveries) = self.deliveries.lock() else {
            return false;
        };
        if deliveries.contains(signature) {
            return true;
        }
        if deliveries.len() >= DELIVERIES {
            deliveries.pop_front();
        }
        deliveries.push_back(*signature);
        false
    }
}
