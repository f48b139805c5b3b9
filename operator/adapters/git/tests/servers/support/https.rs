//! git's http-backend behind TLS: a small CGI bridge with a token, and some bad habits to order.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use holdfast_core::source::url::{RepositoryUrl, Scheme};
use holdfast_git::Access;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Repository, access};

pub const TOKEN: &str = "right";

pub struct HttpsServer {
    pub ca: String,
    port: u16,
}

impl HttpsServer {
    /// Serves one repository as `/repo.git`, with the token; `/slow.git` never finishes an answer; `/page.git` is a page, `/none.git` is not
    /// there, `/moved.git` redirects to another host name.
    pub fn start(repository: &Repository) -> Self {
        let (ca, config) = certificates();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let bare = repository.bare();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, bare) = (Arc::clone(&config), bare.clone());
                thread::spawn(move || serve(stream, config, &bare, port));
            }
        });
        HttpsServer { ca, port }
    }

    pub fn url(&self, path: &str) -> RepositoryUrl {
        RepositoryUrl {
            scheme: Scheme::Https,
            user: None,
            host: "127.0.0.1".into(),
            port: Some(self.port),
            path: path.into(),
        }
    }

    pub fn access(&self, path: &str) -> Access {
        access(&self.url(path), &[("token", TOKEN), ("ca.crt", &self.ca)])
    }
}

/// The PEM of a new authority, and a server's configuration with a certificate from it for `localhost`.
pub fn certificates() -> (String, Arc<ServerConfig>) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(certificate.der().to_vec())],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    (ca, Arc::new(config))
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, bare: &PathBuf, port: u16) -> Option<()> {
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(config).ok()?, stream));
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let (method, target) = line.split_once(' ')?;
    let (method, target) = (method.to_owned(), target.split(' ').next()?.to_owned());
    let (mut length, mut authorized, mut kind, mut chunked, mut gzip) = (0, false, String::new(), false, false);
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).ok()?;
        let header = header.trim_end();
        let Some((name, value)) = header.split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "content-type" => kind = value.to_owned(),
            "content-encoding" => gzip = value == "gzip",
            "transfer-encoding" => chunked = value == "chunked",
            "authorization" => authorized = value == format!("Basic {}", STANDARD.encode(format!("git:{TOKEN}"))),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    while chunked {
        let mut size = String::new();
        stream.read_line(&mut size).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).ok()?;
        body.extend_from_slice(&chunk[..size]);
        chunked = size > 0;
    }
    let stream = stream.get_mut();
    if let Some(rest) = target.strip_prefix("/moved.git") {
        let answer = format!(
            "HTTP/1.1 302 Found\r\nLocation: https://localhost:{port}/repo.git{rest}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        return stream.write_all(answer.as_bytes()).ok();
    }
    if target.starts_with("/slow.git") {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\nContent-Length: 100000\r\n\r\n001e# service=git-upload-pack\n0000").ok()?;
        stream.flush().ok()?;
        thread::sleep(Duration::from_secs(600));
        return None;
    }
    if !authorized {
        return stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok();
    }
    if target.starts_with("/page.git") {
        return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\nConnection: close\r\n\r\n<html></html>").ok();
    }
    if target.starts_with("/none.git") {
        return stream
            .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .ok();
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut cgi = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", bare)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path.strip_prefix("/repo.git")?)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", kind)
        .env("HTTP_CONTENT_ENCODING", if gzip { "gzip" } else { "" })
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("REMOTE_USER", "git")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    cgi.stdin.take()?.write_all(&body).ok()?;
    let output = cgi.wait_with_output().ok()?.stdout;
    let split = output.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&output[..split]).into_owned();
    let status = head
        .lines()
        .find_map(|l| l.strip_prefix("Status: "))
        .unwrap_or("200 OK")
        .to_owned();
    let content = &output[split + 4..];
    let answer = format!(
        "HTTP/1.1 {status}\r\n{head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        content.len()
    );
    stream.write_all(answer.as_bytes()).ok()?;
    stream.write_all(content).ok()?;
    stream.conn.send_close_notify();
    stream.flush().ok()
}
