//! Certificates and passwords: the adapter to the random source.
//!
//! Each replica set has a certificate authority of its own. Members prove who they are with a certificate whose common name
//! is the member's name; the engine shows the same certificate to clients.

use jiff::{SignedDuration, Timestamp};
use rand::RngExt;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use time::OffsetDateTime;

/// A certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// From the certificate library.
    #[error("certificate: {0}")]
    Rcgen(#[from] rcgen::Error),
    /// Not a certificate in PEM.
    #[error("not a PEM certificate: {0}")]
    Parse(String),
    /// A time that certificates cannot express.
    #[error("time out of range for a certificate: {0}")]
    Time(String),
}

/// A certificate with its private key, both PEM.
#[derive(Clone, Default)]
pub struct KeyedCertificate {
    /// The certificate.
    pub certificate: String,
    /// Its private key: never logged.
    pub key: String,
}

/// What a certificate says, as far as renewal needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// When it was issued: later than it is valid from, which allows for clocks that are behind.
    pub issued: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
    /// Host names in it.
    pub dns_names: Vec<String>,
    /// Whole name of the issuer, which here includes a serial: an authority is known by it.
    pub issuer: String,
    /// Whole name of the subject.
    pub subject: String,
}

/// Clocks of nodes may be off by this much before a fresh certificate is refused.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// Makes a new authority.
pub fn authority(set: &str, now: Timestamp, lifetime: SignedDuration) -> Result<KeyedCertificate, PkiError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    // The serial in the name tells two authorities of one set apart, also in chains.
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{set} authority {}", token(8)));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    validity(&mut params, now, lifetime)?;
    let certificate = params.self_signed(&key)?;
    Ok(KeyedCertificate {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

/// Issues a member's certificate, for server and client use.
pub fn issue(
    authority: &KeyedCertificate,
    member: &str,
    dns_names: &[String],
    now: Timestamp,
    lifetime: SignedDuration,
) -> Result<KeyedCertificate, PkiError> {
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(dns_names.to_vec())?;
    params.distinguished_name.push(DnType::CommonName, member);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    validity(&mut params, now, lifetime)?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(KeyedCertificate {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

fn validity(params: &mut CertificateParams, now: Timestamp, lifetime: SignedDuration) -> Result<(), PkiError> {
    let at =
        |t: Timestamp| OffsetDateTime::from_unix_timestamp(t.as_second()).map_err(|e| PkiError::Time(e.to_string()));
    params.not_before = at(now - CLOCK_SKEW)?;
    params.not_after = at(now + lifetime)?;
    Ok(())
}

/// Reads the first certificate of a PEM text.
pub fn facts(pem: &str) -> Result<Facts, PkiError> {
    let bad = |e: &dyn std::fmt::Display| PkiError::Parse(e.to_string());
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|e| bad(&e))?;
    let certificate = block.parse_x509().map_err(|e| bad(&e))?;
    let at = |t: i64| Timestamp::from_second(t).map_err(|e| PkiError::Time(e.to_string()));
    let dns_names = match certificate.subject_alternative_name() {
        Ok(Some(san)) => san
            .value
            .general_names
            .iter()
            .filter_map(|n| match n {
                x509_parser::extensions::GeneralName::DNSName(d) => Some((*d).to_owned()),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    Ok(Facts {
        issued: at(certificate.validity().not_before.timestamp())?
            .checked_add(CLOCK_SKEW)
            .map_err(|e| PkiError::Time(e.to_string()))?,
        not_after: at(certificate.validity().not_after.timestamp())?,
        dns_names,
        issuer: certificate.issuer().to_string(),
        subject: certificate.subject().to_string(),
    })
}

/// A random text of `length` characters from `[a-zA-Z0-9]`, fit for passwords (5.95 bits each) and URIs without quoting.
pub fn token(length: usize) -> String {
    let mut rng = rand::rng();
    (0..length)
        .map(|_| char::from(rng.sample(rand::distr::Alphanumeric)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_certificate_says_who_and_by_whom() {
        let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let ca = authority("registry", now, SignedDuration::from_hours(24 * 3650)).unwrap();
        let leaf = issue(
            &ca,
            "registry-1",
            &["registry-rw".into()],
            now,
            SignedDuration::from_hours(24 * 90),
        )
        .unwrap();
        let (ca_facts, facts) = (facts(&ca.certificate).unwrap(), facts(&leaf.certificate).unwrap());
        assert_eq!(facts.issuer, ca_facts.subject);
        assert!(facts.subject.contains("CN=registry-1"), "{}", facts.subject);
        assert_eq!(facts.dns_names, ["registry-rw"]);
        assert_eq!(facts.issued, now);
        assert_eq!(facts.not_after, now + SignedDuration::from_hours(24 * 90));
        assert_ne!(
            ca_facts.subject,
            super::facts(
                &authority("registry", now, SignedDuration::from_hours(1))
                    .unwrap()
                    .certificate
            )
            .unwrap()
            .subject
        );
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(facts("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
        assert!(facts("").is_err());
    }
}
