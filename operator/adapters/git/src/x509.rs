//! Whether the https server's certificate is vouched for by the source's own authority.
//!
//! libgit2 hands over the server's own certificate, not the chain, so intermediate certificates belong into `ca.crt` too.

use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// Checks a certificate (DER) for `host` against the authorities in `ca` (PEM).
pub(crate) fn check(ca: &[u8], host: &str, certificate: &[u8]) -> Result<(), String> {
    let bundle: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(ca).flatten().collect();
    if bundle.is_empty() {
        return Err("ca.crt holds no certificate (PEM)".to_owned());
    }
    let certificate = CertificateDer::from(certificate);
    let leaf =
        EndEntityCert::try_from(&certificate).map_err(|e| format!("the certificate of {host} cannot be read: {e}"))?;
    let name = ServerName::try_from(host).map_err(|_| format!("{host} is not a name that a certificate can have"))?;
    leaf.verify_is_valid_for_subject_name(&name)
        .map_err(|_| format!("the certificate is not for {host}"))?;
    let anchors: Vec<_> = bundle
        .iter()
        .filter_map(|der| anchor_from_trusted_cert(der).ok())
        .collect();
    leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &[], UnixTime::now(), KeyUsage::server_auth(), None, None)
        .map(drop)
        .map_err(|e| format!("no authority in ca.crt vouches for the certificate of {host}: {e}; intermediate certificates belong into ca.crt too"))
}
