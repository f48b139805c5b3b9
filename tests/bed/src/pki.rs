//! Keys, certificates and kubeconfig files of a bed. They live as long as the bed does.

use crate::net::{Host, Net};
use crate::paths;
use anyhow::{Context, Result};
use base64::Engine as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::fs;
use std::io::Read;
use std::path::Path;

/// An authority that signs server certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, PEM.
    pub pem: String,
}

impl Authority {
    /// Makes one and writes `NAME.crt` and `NAME.key` into `dir`.
    pub fn create(dir: &Path, name: &str) -> Result<Authority> {
        let mut params = CertificateParams::new(Vec::new())?;
        params
            .distinguished_name
            .push(DnType::CommonName, format!("bed {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        fs::write(dir.join(format!("{name}.crt")), &pem)?;
        write_secret(&dir.join(format!("{name}.key")), &key.serialize_pem())?;
        Ok(Authority {
            issuer: Issuer::new(params, key),
            pem,
        })
    }

    /// Signs a certificate for `common_name` at `names` (DNS names and addresses) and writes it and its key into `dir`.
    pub fn sign(&self, dir: &Path, file: &str, common_name: &str, names: Vec<String>) -> Result<()> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let cert = params
            .signed_by(&key, &self.issuer)
            .context("cannot sign a certificate")?;
        fs::write(dir.join(format!("{file}.crt")), cert.pem())?;
        write_secret(&dir.join(format!("{file}.key")), &key.serialize_pem())
    }
}

/// Makes the cluster's authority, the API server's certificate and the key that signs service account tokens.
pub fn create_cluster(dir: &Path, net: &Net) -> Result<()> {
    let authority = Authority::create(dir, "ca")?;
    let mut names: Vec<String> = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "localhost",
        "cp.bed",
    ]
    .map(String::from)
    .to_vec();
    names.push("kubernetes.default.svc.cluster.local".into());
    names.extend([
        net.ip(Host::Cp).to_string(),
        net.service(1).to_string(),
        "127.0.0.1".into(),
    ]);
    // The API server shows the same certificate to kubelets, where this name has a role of its own.
    authority.sign(dir, "api", "kube-apiserver", names)?;
    let accounts = KeyPair::generate()?;
    fs::write(dir.join("sa.pub"), accounts.public_key_pem())?;
    write_secret(&dir.join("sa.key"), &accounts.serialize_pem())
}

/// Writes a kubeconfig that holds everything it needs: it can be copied anywhere on this machine.
pub fn write_kubeconfig(file: &Path, net: &Net, ca_pem: &str, token: &str) -> Result<()> {
    let ca = base64::engine::general_purpose::STANDARD.encode(ca_pem);
    let server = format!("https://{}:6443", net.ip(Host::Cp));
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "bed", "cluster": {"server": server, "certificate-authority-data": ca}}],
        "users": [{"name": "bed", "user": {"token": token}}],
        "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": "bed"}}],
        "current-context": "bed",
    });
    // JSON is YAML: every client reads it.
    write_secret(file, &serde_json::to_string_pretty(&config)?)
}

/// Writes a file that only root can read.
pub fn write_secret(file: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// 128 random bits in hexadecimal.
pub fn token() -> Result<String> {
    let mut bytes = [0u8; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The path of a file as text, for command lines.
pub fn file(dir: &Path, name: &str) -> Result<String> {
    Ok(paths::text(&dir.join(name))?.to_string())
}
