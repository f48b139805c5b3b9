//! Git's smart protocol over https, with rustls below it instead of libgit2's own transport.
//!
//! libgit2 has one OpenSSL context for the whole process, and OpenSSL corrupts memory when threads check certificates
//! against its one store at the same time (openssl/openssl#28171): two sources that poll at once could end the operator.
//! Here each exchange has its own client, and the server's whole chain is checked, not only its last certificate.

use std::{
    cell::{Cell, RefCell},
    io::{self, Read, Write},
    sync::{Arc, OnceLock},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream, Transport};
use holdfast_core::{
    source::{Why, url::Scheme},
    status::conditions::clip,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use ureq::{
    Agent, BodyReader, RequestBuilder, Timeout,
    http::{Response, header},
    tls::{Certificate, RootCerts, TlsConfig},
};

use crate::{Access, Bounds, cancel::Deadline, process, remote::Verdict};

/// The longest error text that a server or a library gets into ours, in bytes.
const MESSAGE_BYTES: usize = 300;

thread_local! {
    /// What this thread's exchange may do. libgit2 makes a transport from nothing but an address, on the thread that asked.
    static CURRENT: RefCell<Option<Exchange>> = const { RefCell::new(None) };
}

/// Tells libgit2 to come here for https. Once, before threads use libgit2.
#[allow(unsafe_code)] // libgit2's list of transports has no lock; `process::prepare_process` makes this the only write
pub(crate) fn register() -> Result<(), git2::Error> {
    unsafe { git2::transport::register("https", |remote| Transport::smart(remote, true, Https)) }
}

/// While it lives, https exchanges of this thread use what it was made from.
#[must_use]
pub(crate) struct Scope(());

impl Scope {
    /// `None`: the address is not one of https.
    pub(crate) fn enter(
        access: &Access,
        bounds: &Bounds,
        deadline: &Deadline,
        verdict: &Verdict,
    ) -> Result<Option<Self>, Why> {
        if access.url.scheme != Scheme::Https {
            return Ok(None);
        }
        let exchange = Exchange {
            agent: client(access)?,
            host: access.url.known_host(),
            authorization: access
                .credentials
                .login
                .as_ref()
                .map(|(user, password)| format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))),
            bytes: bounds.fetch_bytes,
            received: Cell::new(0),
            deadline: deadline.clone(),
            verdict: Verdict::clone(verdict),
        };
        CURRENT.set(Some(exchange));
        Ok(Some(Scope(())))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

fn client(access: &Access) -> Result<Agent, Why> {
    let roots = match &access.credentials.ca {
        Some(ca) => own_authority(ca)?,
        None => public_authorities(),
    };
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(roots))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    Ok(Agent::config_builder()
        .tls_config(tls)
        .https_only(true)
        // A redirect would take the credentials to a server that nobody named.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .proxy(None)
        // Some servers only show repositories to what calls itself git.
        .user_agent(concat!("git/2.0 (holdfast ", env!("CARGO_PKG_VERSION"), ")"))
        .timeout_connect(Some(process::CONNECT))
        .timeout_send_request(Some(process::SILENCE))
        .timeout_recv_response(Some(process::SILENCE))
        .build()
        .new_agent())
}

fn own_authority(ca: &[u8]) -> Result<Arc<Vec<Certificate<'static>>>, Why> {
    let roots: Vec<_> = CertificateDer::pem_slice_iter(ca)
        .flatten()
        .map(|der| Certificate::from_der(&der).to_owned())
        .collect();
    if roots.is_empty() {
        return Err(Why::ServerNotTrusted {
            message: "ca.crt in the Secret of spec.credentialsRef holds no certificate (PEM)".to_owned(),
        });
    }
    Ok(Arc::new(roots))
}

/// The machine's list, which its owner may have cut or added to; Mozilla's where it has none, as in Holdfast's own image.
fn public_authorities() -> Arc<Vec<Certificate<'static>>> {
    // Read once: it is part of the image that this runs in.
    static ROOTS: OnceLock<Arc<Vec<Certificate<'static>>>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "an authority of this machine cannot be read");
        }
        let certificates = if found.certs.is_empty() {
            webpki_root_certs::TLS_SERVER_ROOT_CERTS
        } else {
            &found.certs
        };
        Arc::new(
            certificates
                .iter()
                .map(|der| Certificate::from_der(der).to_owned())
                .collect(),
        )
    });
    Arc::clone(roots)
}

struct Exchange {
    agent: Agent,
    host: String,
    authorization: Option<String>,
    /// How much the server may send.
    bytes: usize,
    received: Cell<usize>,
    deadline: Deadline,
    verdict: Verdict,
}

impl Exchange {
    /// Ends the exchange for this reason. libgit2 only learns that reading failed.
    fn refuse(&self, why: Why) -> io::Error {
        let error = io::Error::other(why.to_string());
        *self.verdict.borrow_mut() = Some(why);
        error
    }

    fn ask(&self, url: &str, question: Question, body: &[u8]) -> io::Result<BodyReader<'static>> {
        let (address, kind) = (
            format!("{}{}", url.trim_end_matches('/'), question.path()),
            question.answer_kind(),
        );
        let answer = match question {
            Question::Refs => self.allowed(self.agent.get(&address)).call(),
            Question::Pack => {
                let request = self
                    .agent
                    .post(&address)
                    .header(header::CONTENT_TYPE, "application/x-git-upload-pack-request")
                    .header(header::ACCEPT, kind);
                self.allowed(request).send(body)
            }
        };
        let answer = answer.map_err(|e| self.failed(&e))?;
        self.judge(&answer, kind)?;
        Ok(answer.into_body().into_reader())
    }

    /// The request with what this exchange brings to each: its login, and the time that is left.
    fn allowed<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        let request = match &self.authorization {
            Some(login) => request.header(header::AUTHORIZATION, login),
            None => request,
        };
        let left = Some(self.deadline.left());
        request.config().timeout_global(left).build()
    }

    fn judge<B>(&self, answer: &Response<B>, kind: &str) -> io::Result<()> {
        let host = &self.host;
        let text = |name| {
            answer
                .headers()
                .get(name)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
        };
        Err(self.refuse(match answer.status().as_u16() {
            200 if text(header::CONTENT_TYPE) == kind => return Ok(()),
            200 => Why::FetchFailed {
                message: format!(
                    "{host} answers with '{}', not as a Git server does; check the path of spec.url",
                    clip(text(header::CONTENT_TYPE).to_owned(), MESSAGE_BYTES)
                ),
            },
            300..=399 => Why::FetchFailed {
                message: format!(
                    "{host} redirects to '{}', and a redirect is not followed because it would take the credentials along; if that is right, put it into spec.url",
                    clip(text(header::LOCATION).to_owned(), MESSAGE_BYTES)
                ),
            },
            401 if self.authorization.is_none() => Why::AccessDenied {
                message: format!("{host} wants credentials and spec.credentialsRef gives none (HTTP 401)"),
            },
            status @ (401 | 403) => Why::AccessDenied {
                message: format!("{host} refuses the credentials in the Secret of spec.credentialsRef (HTTP {status})"),
            },
            404 => Why::AccessDenied {
                message: format!(
                    "{host} has no such repository, or does not show it to these credentials (HTTP 404); check spec.url and the Secret of spec.credentialsRef"
                ),
            },
            status => Why::FetchFailed {
                message: format!("{host} cannot be asked: it answers HTTP {status}"),
            },
        }))
    }

    fn failed(&self, e: &ureq::Error) -> io::Error {
        let host = &self.host;
        self.refuse(match (untrusted(e), e) {
            (Some(message), _) => Why::ServerNotTrusted {
                message: format!(
                    "{host} cannot be trusted: {}; if its certificate is from an authority of your own, put that into the Secret of spec.credentialsRef as ca.crt",
                    clip(message, MESSAGE_BYTES)
                ),
            },
            (None, ureq::Error::Timeout(Timeout::Global)) => Why::FetchFailed {
                message: format!("{host} did not finish within spec.limits.timeout"),
            },
            (None, e) => Why::FetchFailed {
                message: format!("{host} cannot be asked: {}", clip(e.to_string(), MESSAGE_BYTES)),
            },
        })
    }
}

/// What TLS has against the server, if that is what failed. The client wraps it into an I/O error or not, by when it failed.
fn untrusted(e: &ureq::Error) -> Option<String> {
    match e {
        ureq::Error::Rustls(e) => Some(e.to_string()),
        ureq::Error::Tls(e) => Some((*e).to_owned()),
        ureq::Error::Io(e) => e.get_ref()?.downcast_ref::<rustls::Error>().map(ToString::to_string),
        _ => None,
    }
}

struct Https;

impl SmartSubtransport for Https {
    fn action(&self, url: &str, action: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        let question = match action {
            Service::UploadPackLs => Question::Refs,
            Service::UploadPack => Question::Pack,
            Service::ReceivePackLs | Service::ReceivePack => {
                return Err(git2::Error::from_str("sources are only read from"));
            }
        };
        Ok(Box::new(Stream {
            url: url.to_owned(),
            question,
            body: Vec::new(),
            answer: None,
        }))
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

/// The two questions of the smart protocol (gitprotocol-http(5)).
#[derive(Clone, Copy)]
enum Question {
    Refs,
    Pack,
}

impl Question {
    fn path(self) -> &'static str {
        match self {
            Question::Refs => "/info/refs?service=git-upload-pack",
            Question::Pack => "/git-upload-pack",
        }
    }

    fn answer_kind(self) -> &'static str {
        match self {
            Question::Refs => "application/x-git-upload-pack-advertisement",
            Question::Pack => "application/x-git-upload-pack-result",
        }
    }
}

/// One request: what is written is its body, the first read sends it.
struct Stream {
    url: String,
    question: Question,
    body: Vec<u8>,
    answer: Option<BodyReader<'static>>,
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.body.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        CURRENT.with_borrow(|current| {
            let exchange = current
                .as_ref()
                .ok_or_else(|| io::Error::other("https is used outside of an exchange"))?;
            if exchange.deadline.passed() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let answer = match &mut self.answer {
                Some(answer) => answer,
                none => none.insert(exchange.ask(&self.url, self.question, &self.body)?),
            };
            let read = answer
                .read(buffer)
                .map_err(|e| exchange.failed(&ureq::Error::from(e)))?;
            let received = exchange.received.get() + read;
            exchange.received.set(received);
            if received > exchange.bytes {
                return Err(exchange.refuse(crate::remote::too_large(received, None)));
            }
            Ok(read)
        })
    }
}
