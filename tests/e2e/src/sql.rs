//! SQL as an application would: over TLS, with the password and authority from the Secret, through a Service.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::set::Set;

type TlsStream = <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<tokio_postgres::Socket>>::Stream;
/// The network half of a session.
pub type Connection = tokio_postgres::Connection<tokio_postgres::Socket, TlsStream>;

/// Everything needed to connect, fetched once so that connecting does not need the API server.
#[derive(Clone)]
pub struct Access {
    config: Config,
    tls: MakeRustlsConnect,
    /// SQL for the name of the member that answers.
    pub identity: &'static str,
}

impl Access {
    /// To the Service `which` of a set.
    pub fn to(set: &Set<'_>, which: &str) -> Result<Access> {
        let tls = verifying(&set.secret("ca.crt")?)?;
        let name = format!("{}-{which}.{}.svc", set.name, set.namespace);
        let mut config = secured(&name, &set.service(which)?)?;
        config
            .user(set.secret("user")?)
            .password(set.secret("password")?)
            .dbname(set.secret("dbname")?);
        Ok(Access {
            config,
            tls,
            identity: "current_setting('cluster_name')",
        })
    }

    /// The same, trusting these authorities (PEM) and no other.
    pub fn trusting(&self, authorities: &str) -> Result<Access> {
        let tls = verifying(authorities)?;
        Ok(Access { tls, ..self.clone() })
    }

    /// The same, by another way: to this address. The certificate is still checked against the Service's name.
    pub fn at(&self, address: &str) -> Result<Access> {
        let name = self.config.get_hosts().iter().find_map(|host| match host {
            tokio_postgres::config::Host::Tcp(name) => Some(name.as_str()),
            _ => None,
        });
        let mut config = secured(name.context("no name to check")?, address)?;
        config
            .user(self.config.get_user().unwrap_or_default())
            .password(self.config.get_password().unwrap_or_default())
            .dbname(self.config.get_dbname().unwrap_or_default());
        Ok(Access { config, ..self.clone() })
    }

    /// The same, taking any certificate: for a client that has to outlive them.
    pub fn trusting_anybody(&self) -> Result<Access> {
        let tls = believing()?;
        Ok(Access { tls, ..self.clone() })
    }

    /// To an address, with a password and TLS, whoever answers: for servers that live as long as a benchmark.
    pub fn unverified(address: &str, user: &str, password: &str) -> Result<Access> {
        let mut access = Access::plain(address, user, password)?;
        access.config.ssl_mode(tokio_postgres::config::SslMode::Require);
        access.tls = believing()?;
        Ok(access)
    }

    /// To an address, with a password and without TLS. Members are told apart by their addresses.
    pub fn plain(address: &str, user: &str, password: &str) -> Result<Access> {
        let mut config = Config::new();
        config
            .hostaddr(address.parse().with_context(|| format!("address {address:?}"))?)
            .host(address)
            .port(5432)
            .user(user)
            .password(password)
            .dbname("postgres")
            .ssl_mode(tokio_postgres::config::SslMode::Disable)
            .connect_timeout(Duration::from_secs(2));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        Ok(Access {
            config,
            tls: MakeRustlsConnect::new(tls),
            identity: "host(inet_server_addr())",
        })
    }

    /// A session and its connection, which somebody must drive.
    pub async fn open(&self) -> Result<(Client, Connection)> {
        Ok(self.config.connect(self.tls.clone()).await?)
    }

    /// A session.
    pub async fn connect(&self) -> Result<Client> {
        let (client, connection) = self.open().await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Runs statements, and gives the first column of the first row of the last query that has one, as text.
    pub fn query(&self, sql: &str) -> Result<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let client = self.connect().await?;
            let limit = Duration::from_secs(20);
            let rows = tokio::time::timeout(limit, client.simple_query(sql))
                .await
                .context("no answer within 20 s")??;
            let first = rows.iter().rev().find_map(|m| match m {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(ToOwned::to_owned),
                _ => None,
            });
            Ok(first.unwrap_or_default())
        })
    }
}

/// A connection over TLS: the name is what the certificate is checked against, the address is where it goes.
fn secured(name: &str, address: &str) -> Result<Config> {
    let mut config = Config::new();
    config
        .host(name)
        .hostaddr(address.parse().with_context(|| format!("address {address:?}"))?)
        .port(5432)
        .ssl_mode(tokio_postgres::config::SslMode::Require)
        .connect_timeout(Duration::from_secs(2));
    Ok(config)
}

/// TLS that takes certificates issued by these authorities (PEM) for the name that is connected to: `sslmode=verify-full`.
fn verifying(authorities: &str) -> Result<MakeRustlsConnect> {
    let mut roots = RootCertStore::empty();
    for pem in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        roots.add(pem.context("an authority's certificate")?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(tls))
}

/// TLS that takes any certificate.
fn believing() -> Result<MakeRustlsConnect> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(tls))
}

/// Takes any certificate.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
