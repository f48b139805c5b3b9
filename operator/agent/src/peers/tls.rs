//! TLS configuration from the member's files, and who a certificate names.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use holdfast_core::failover::MemberName;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Tls;

/// Reads certificate, key and CA. The key's text is in no error.
pub fn load(dir: &Path) -> anyhow::Result<Tls> {
    let certs = |name: &str| -> anyhow::Result<Vec<CertificateDer<'static>>> {
        let path = dir.join(name);
        CertificateDer::pem_file_iter(&path)
            .and_then(Iterator::collect)
            .with_context(|| format!("certificates in {}", path.display()))
    };
    let chain = certs("tls.crt")?;
    let key = || {
        PrivateKeyDer::from_pem_file(dir.join("tls.key"))
            .ok()
            .context("key in tls.key")
    };
    let mut roots = RootCertStore::empty();
    for ca in certs("ca.crt")? {
        roots.add(ca).context("CA certificate")?;
    }
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
        .build()
        .context("CA certificate")?;
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key()?)
        .context("certificate and key")?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.clone(), key()?)
        .context("certificate and key")?;
    Ok(Tls {
        server: Arc::new(server),
        client: Arc::new(client),
        expires: chain.first().and_then(expiry),
    })
}

fn expiry(cert: &CertificateDer<'_>) -> Option<String> {
    let (_, cert) = x509_parser::parse_x509_certificate(cert).ok()?;
    let at = jiff::Timestamp::from_second(cert.validity().not_after.timestamp()).ok()?;
    Some(at.to_string())
}

/// The member that a certificate, already verified against the CA, was made for: its subject's common name.
pub fn member(cert: &CertificateDer<'_>) -> Option<MemberName> {
    let (_, cert) = x509_parser::parse_x509_certificate(cert).ok()?;
    let name = cert.subject().iter_common_name().next()?.as_str().ok()?;
    Some(MemberName(name.to_owned()))
}
