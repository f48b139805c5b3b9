//! `POST /hook/<namespace>/<name>`: the Git server says that something was pushed. The payload is believed in nothing: a
//! good signature makes the source poll, and the poll decides. So a replayed request does no harm: it is one `ls-remote`, and no
//! more than one a second, whoever asks.

use std::{
    collections::BTreeMap,
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
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, runtime::reflector::ObjectRef};
use sha2::Sha256;

use super::Sources;

/// Larger bodies are refused before they are read. GitHub's pushes are far below.
const BODY: usize = 256 * 1024;
/// The shared secret of a source is read again after this long.
const SECRET_FOR: Duration = Duration::from_secs(60);
/// Secrets whose tokens (or absence) are remembered; more are asked for again.
const REMEMBERED: usize = 10_000;
/// Secrets read per second, for everybody together: strangers must not make API requests without end.
const READS_PER_SECOND: u32 = 10;

/// When a Secret was asked for, and the token in it, if there is one.
type Token = (Instant, Option<Vec<u8>>);

/// What the receiver remembers, by namespace and name of Secrets.
#[derive(Default)]
pub(super) struct Secrets {
    tokens: Mutex<BTreeMap<(String, String), Token>>,
    reads: Mutex<Option<(Instant, u32)>>,
}

/// The receiver, to be served on a port of its own, behind TLS of an Ingress or Gateway.
pub fn router(sources: Arc<Sources>) -> Router {
    Router::new()
        .route("/hook/{namespace}/{name}", post(receive))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(sources)
}

/// Whoever sends may try again. Nothing is lost if not: an operator that begins to lead polls every source.
const NOT_YET: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
/// How long a webhook waits for the first list of sources.
const LISTED_WITHIN: Duration = Duration::from_secs(5);
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
    let secret = match hook(&sources, &namespace, &name).await {
        Ok(Some(secret)) => secret,
        Ok(None) => return REFUSED,
        Err(status) => return status,
    };
    let token = match token(&sources, &namespace, &secret).await {
        Ok(Some(token)) => token,
        Ok(None) => return REFUSED,
        Err(status) => return status,
    };
    if !genuine(&token, &body, &signature) {
        return REFUSED;
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

/// The name of a source's Secret, if it takes webhooks. The controller's watch tells, so strangers who guess cost nothing.
async fn hook(sources: &Sources, namespace: &str, name: &str) -> Result<Option<String>, StatusCode> {
    let Some(watched) = sources.watched.get() else {
        return Err(NOT_YET);
    };
    match tokio::time::timeout(LISTED_WITHIN, watched.wait_until_ready()).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => return Err(NOT_YET),
    }
    let seen = watched.get(&ObjectRef::new(name).within(namespace));
    let source = seen.as_deref().and_then(|guard| guard.0.as_ref().ok());
    Ok(source.and_then(|source| Some(source.spec.webhook.as_ref()?.secret_ref.name.clone())))
}

async fn token(sources: &Sources, namespace: &str, secret: &str) -> Result<Option<Vec<u8>>, StatusCode> {
    let key = (namespace.to_owned(), secret.to_owned());
    if let Ok(tokens) = sources.webhooks.tokens.lock()
        && let Some((read, token)) = tokens.get(&key)
        && read.elapsed() < SECRET_FOR
    {
        return Ok(token.clone());
    }
    if !sources.webhooks.may_read() {
        return Err(StatusCode::TOO_MANY_REQUESTS);
    }
    let token = read(sources, namespace, secret).await.map_err(|error| {
        tracing::warn!(%error, namespace, secret, "webhook secret cannot be read");
        NOT_YET
    })?;
    if let Ok(mut tokens) = sources.webhooks.tokens.lock() {
        if tokens.len() >= REMEMBERED {
            tokens.clear();
        }
        tokens.insert(key, (Instant::now(), token.clone()));
    }
    Ok(token)
}

async fn read(sources: &Sources, namespace: &str, secret: &str) -> kube::Result<Option<Vec<u8>>> {
    let secret = Api::<Secret>::namespaced(sources.client.clone(), namespace)
        .get_opt(secret)
        .await?;
    // An empty token would let everybody in.
    Ok(secret
        .and_then(|s| s.data?.remove("token"))
        .map(|b| b.0.trim_ascii().to_vec())
        .filter(|t| !t.is_empty()))
}

impl Secrets {
    fn may_read(&self) -> bool {
        let Ok(mut reads) = self.reads.lock() else {
            return false;
        };
        let now = Instant::now();
        match reads.as_mut() {
            Some((since, count)) if now.duration_since(*since) < Duration::from_secs(1) => {
                *count += 1;
                *count <= READS_PER_SECOND
            }
            _ => {
                *reads = Some((now, 1));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git_source::Settings;
    use axum::body::Body;
    use holdfast_api::GitSource;
    use http::{Request, Response};
    use kube::{
        Client, Config,
        client::Body as KubeBody,
        core::DeserializeGuard,
        runtime::{reflector, watcher::Event},
    };
    use serde_json::json;
    use tower::ServiceExt;

    const NAMESPACE: &str = "civil";

    /// A watch that has listed a source with a webhook and one without, and an API server that knows a Secret and counts requests.
    fn sources(requests: Arc<Mutex<Vec<String>>>) -> Arc<Sources> {
        let sources = unlisted(requests);
        let (reader, mut writer) = reflector::store();
        writer.apply_watcher_event(&Event::Init);
        for (name, hook) in [("hooked", Some("hook")), ("plain", None), ("lost", Some("gone"))] {
            writer.apply_watcher_event(&Event::InitApply(source(name, hook)));
        }
        writer.apply_watcher_event(&Event::InitDone);
        sources.watched.set(reader).ok().unwrap();
        sources
    }

    fn unlisted(requests: Arc<Mutex<Vec<String>>>) -> Arc<Sources> {
        let service = tower::service_fn(move |request: Request<KubeBody>| {
            let path = request.uri().path().to_owned();
            requests.lock().unwrap().push(path.clone());
            async move {
                let (status, body) = match path.as_str() {
                    "/api/v1/namespaces/civil/secrets/hook" => (
                        200,
                        json!({"metadata": {"name": "hook"}, "data": {"token": "c2VzYW1l"}}),
                    ),
                    _ => (
                        404,
                        json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "message": "no", "code": 404}),
                    ),
                };
                Ok::<_, std::convert::Infallible>(
                    Response::builder()
                        .status(status)
                        .body(KubeBody::from(body.to_string().into_bytes()))
                        .unwrap(),
                )
            }
        });
        let client = Client::new(service, NAMESPACE);
        let config = Config::new("http://127.0.0.1:1".parse().unwrap());
        Sources::new(
            client,
            config,
            Settings {
                cache: "/nonexistent".into(),
                namespace: None,
            },
            Arc::default(),
        )
    }

    fn source(name: &str, hook: Option<&str>) -> DeserializeGuard<GitSource> {
        let mut spec =
            json!({"url": "https://git.example.org/a.git", "ref": {"branch": "main"}, "serviceAccountName": "a"});
        if let Some(secret) = hook {
            spec["webhook"] = json!({"secretRef": {"name": secret}});
        }
        let mut source = GitSource::new(name, serde_json::from_value(spec).unwrap());
        source.metadata.namespace = Some(NAMESPACE.into());
        DeserializeGuard(Ok(source))
    }

    fn sign(body: &str) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(b"sesame")
            .unwrap()
            .chain_update(body.as_bytes())
            .finalize()
            .into_bytes();
        format!("sha256={}", mac.iter().map(|b| format!("{b:02x}")).collect::<String>())
    }

    async fn post(sources: &Arc<Sources>, path: &str, header: Option<(&str, String)>, body: &str) -> u16 {
        let mut request = Request::post(path);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        router(Arc::clone(sources))
            .oneshot(request.body(Body::from(body.to_owned())).unwrap())
            .await
            .unwrap()
            .status()
            .as_u16()
    }

    fn was_asked(sources: &Sources) -> bool {
        !std::mem::take(&mut *sources.asked.lock().unwrap()).is_empty()
    }

    #[tokio::test]
    async fn a_signed_push_asks_for_a_poll() {
        let sources = sources(Arc::default());
        for (header, body) in [("X-Hub-Signature-256", "{}"), ("X-Holdfast-Signature", "pushed")] {
            assert_eq!(
                post(&sources, "/hook/civil/hooked", Some((header, sign(body))), body).await,
                202
            );
            assert!(was_asked(&sources), "{header}");
        }
    }

    #[tokio::test]
    async fn strangers_learn_nothing_and_ask_for_nothing() {
        let sources = sources(Arc::default());
        let good = || Some(("X-Hub-Signature-256", sign("{}")));
        for (path, header, body) in [
            ("/hook/civil/hooked", None, "{}"),
            ("/hook/civil/hooked", Some(("X-Hub-Signature-256", sign("other"))), "{}"),
            (
                "/hook/civil/hooked",
                Some(("X-Hub-Signature-256", "sha256=zz".to_owned())),
                "{}",
            ),
            ("/hook/civil/plain", good(), "{}"),
            ("/hook/civil/absent", good(), "{}"),
            ("/hook/civil/lost", good(), "{}"),
            ("/hook/tax/hooked", good(), "{}"),
            ("/hook/..%2f..%2fsecrets/x", good(), "{}"),
        ] {
            assert_eq!(post(&sources, path, header, body).await, 401, "{path}");
            assert!(!was_asked(&sources), "{path}");
        }
    }

    #[tokio::test]
    async fn a_huge_body_is_refused_before_it_is_read() {
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let sources = sources(Arc::clone(&requests));
        let huge = "x".repeat(BODY + 1);
        assert_eq!(
            post(
                &sources,
                "/hook/civil/hooked",
                Some(("X-Hub-Signature-256", sign(&huge))),
                &huge
            )
            .await,
            413
        );
        assert!(requests.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn guesses_cost_no_request_and_a_wrong_signature_one_a_minute() {
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let sources = sources(Arc::clone(&requests));
        let wrong = || Some(("X-Hub-Signature-256", sign("other")));
        for n in 0..50 {
            assert_eq!(
                post(&sources, &format!("/hook/civil/guess-{n}"), wrong(), "{}").await,
                401
            );
        }
        assert!(requests.lock().unwrap().is_empty());
        for _ in 0..50 {
            assert_eq!(post(&sources, "/hook/civil/hooked", wrong(), "{}").await, 401);
        }
        assert_eq!(*requests.lock().unwrap(), ["/api/v1/namespaces/civil/secrets/hook"]);
    }

    #[tokio::test(start_paused = true)]
    async fn before_sources_are_listed_nobody_is_called_a_stranger() {
        let sources = unlisted(Arc::default());
        let good = || Some(("X-Hub-Signature-256", sign("{}")));
        assert_eq!(post(&sources, "/hook/civil/hooked", good(), "{}").await, 503);
        let (reader, _writer) = reflector::store();
        sources.watched.set(reader).ok().unwrap();
        assert_eq!(post(&sources, "/hook/civil/hooked", good(), "{}").await, 503);
        assert!(!was_asked(&sources));
    }
}
