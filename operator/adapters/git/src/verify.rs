//! ssh signatures of commits.

use git2::{Oid, Repository};
use holdfast_core::source::{Why, revision::Signature};
use ssh_key::{HashAlg, PublicKey, SshSig};

/// What git signs under.
const NAMESPACE: &str = "git";

/// The keys that a source believes, by name.
pub(crate) struct Signers(Vec<(String, PublicKey)>);

impl Signers {
    /// Reads (name, OpenSSH public key) pairs. One that cannot be read is a mistake in the spec, not a signer less.
    pub(crate) fn new(signers: &[(String, String)]) -> Result<Self, Why> {
        signers
            .iter()
            .map(|(name, key)| {
                PublicKey::from_openssh(key.trim())
                    .map(|key| (name.clone(), key))
                    .map_err(|e| Why::SpecInvalid {
                        field: "spec.verify.signers",
                        message: format!(
                            "the key of {name} is no public key in OpenSSH format (ssh-ed25519 AAAA…): {e}"
                        ),
                    })
            })
            .collect::<Result<_, _>>()
            .map(Signers)
    }
}

/// Checks one commit against the signers. A signature of another kind (PGP, X.509) counts as none.
pub(crate) fn commit(repository: &Repository, id: Oid, signers: &Signers) -> Signature {
    let Ok((signature, signed)) = repository.extract_signature(&id, None) else {
        return Signature::Absent;
    };
    if !signature.starts_with(b"-----BEGIN SSH SIGNATURE-----") {
        return Signature::Absent;
    }
    let Ok(signature) = SshSig::from_pem(trimmed(&signature)) else {
        return Signature::Broken;
    };
    match signers
        .0
        .iter()
        .find(|(_, key)| key.key_data() == signature.public_key())
    {
        None => Signature::Unknown {
            fingerprint: signature.public_key().fingerprint(HashAlg::Sha256).to_string(),
        },
        Some((name, key)) => match key.verify(NAMESPACE, &signed, &signature) {
            Ok(()) => Signature::By(name.clone()),
            Err(_) => Signature::Broken,
        },
    }
}

fn trimmed(pem: &[u8]) -> &[u8] {
    pem.trim_ascii()
}
