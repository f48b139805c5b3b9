//! Whether the ssh server's key is one that known_hosts vouches for.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use ssh_key::known_hosts::{HostPatterns, KnownHosts, Marker};

/// Compares raw key bytes. libgit2's own check reads `~/.ssh/known_hosts` only, which is not the source's.
pub(crate) fn check(known_hosts: &str, host: &str, shown: Option<&[u8]>) -> Result<(), String> {
    let Some(shown) = shown else {
        return Err(format!("{host} showed no host key"));
    };
    let mut kinds = Vec::new();
    let mut known = false;
    // Line by line, so that one line in a format we cannot read does not hide the others.
    for line in known_hosts.lines() {
        for entry in KnownHosts::new(line).flatten() {
            if !matches(entry.host_patterns(), host) {
                continue;
            }
            let same = entry.public_key().to_bytes().is_ok_and(|bytes| bytes == shown);
            match entry.marker() {
                Some(Marker::Revoked) if same => {
                    return Err(format!("{host} showed a key that known_hosts says is revoked"));
                }
                Some(_) => {}
                None => {
                    kinds.push(entry.public_key().algorithm().to_string());
                    known |= same;
                }
            }
        }
    }
    if known {
        return Ok(());
    }
    let fingerprint = fingerprint(shown);
    if kinds.is_empty() {
        Err(format!(
            "known_hosts has no line for {host}; it showed {fingerprint}: check that with its owner and add the output of ssh-keyscan"
        ))
    } else {
        Err(format!(
            "{host} showed {fingerprint}, and known_hosts has only other keys for it ({}): either somebody is in between, or known_hosts lacks one of the server's keys (add all that ssh-keyscan prints, checked with its owner)",
            kinds.join(", ")
        ))
    }
}

fn matches(patterns: &HostPatterns, host: &str) -> bool {
    match patterns {
        HostPatterns::Patterns(patterns) => {
            let hit = |pattern: &str| glob(&pattern.to_ascii_lowercase(), &host.to_ascii_lowercase());
            patterns.iter().any(|p| !p.starts_with('!') && hit(p))
                && !patterns.iter().any(|p| p.strip_prefix('!').is_some_and(hit))
        }
        HostPatterns::HashedName { salt, hash } => Hmac::<Sha1>::new_from_slice(salt)
            .is_ok_and(|mac| mac.chain_update(host.as_bytes()).verify_slice(hash).is_ok()),
    }
}

/// `*` and `?`, as ssh has them.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once(['*', '?']) {
        None => pattern == text,
        Some((head, _)) => {
            let Some(rest) = text.strip_prefix(head) else {
                return false;
            };
            let after = pattern.get(head.len() + 1..).unwrap_or("");
            if pattern.get(head.len()..=head.len()) == Some("?") {
                let mut chars = rest.chars();
                chars.next().is_some() && glob(after, chars.as_str())
            } else {
                rest.char_indices()
                    .map(|(i, _)| i)
                    .chain([rest.len()])
                    .any(|i| rest.get(i..).is_some_and(|tail| glob(after, tail)))
            }
        }
    }
}

/// `ssh-ed25519 SHA256:…`, as ssh prints it.
fn fingerprint(key: &[u8]) -> String {
    use ssh_key::{HashAlg, PublicKey};
    match PublicKey::from_bytes(key) {
        Ok(key) => format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256)),
        Err(_) => format!(
            "a key of an unknown kind ({} bytes, {}…)",
            key.len(),
            STANDARD_NO_PAD.encode(key.get(..12).unwrap_or(key))
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFdD4jAxhtGdrJp3AE9XGxTRT8R3hJKWPGRyWLpCGHqX";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC4o6vyNlSSWMHI2wN5uHW1nzJUCXxfeYL8qG9wRIo7O";

    fn bytes() -> Vec<u8> {
        KEY.parse::<ssh_key::PublicKey>().unwrap().to_bytes().unwrap()
    }

    #[test]
    fn only_a_key_that_is_listed_for_the_host_is_taken() {
        let ok = |known: &str, host: &str| check(known, host, Some(&bytes())).is_ok();
        assert!(ok(&format!("git.example.org {KEY}"), "git.example.org"));
        assert!(ok(&format!("# c\n\na,git.*.org {KEY}"), "git.example.org"));
        assert!(ok(&format!("[h]:2222 {KEY}"), "[h]:2222"));
        assert!(!ok(&format!("h {KEY}"), "[h]:2222"));
        assert!(!ok(&format!("h {OTHER}"), "h"));
        assert!(!ok(&format!("h,!h {KEY}"), "h"));
        assert!(!ok(&format!("h {KEY}\n@revoked h {KEY}"), "h"));
        assert!(!ok(&format!("@cert-authority h {KEY}"), "h"));
        assert!(!ok("", "h"));
        assert!(check(&format!("h {KEY}"), "h", None).is_err());
    }

    #[test]
    fn hashed_names_are_understood() {
        use base64::engine::general_purpose::STANDARD;
        let salt = [7_u8; 20];
        let hash = Hmac::<Sha1>::new_from_slice(&salt)
            .unwrap()
            .chain_update(b"h")
            .finalize()
            .into_bytes();
        let line = format!("|1|{}|{} {KEY}", STANDARD.encode(salt), STANDARD.encode(hash));
        assert!(check(&line, "h", Some(&bytes())).is_ok());
        assert!(check(&line, "g", Some(&bytes())).is_err());
    }
}
