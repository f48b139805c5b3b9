//! How a source gets in, from the keys of its Secret.

use std::{collections::BTreeMap, fmt};

use holdfast_core::source::{
    Why,
    url::{RepositoryUrl, Scheme},
};

/// Where to, and with what.
#[derive(Clone, Debug)]
pub struct Access {
    /// The repository.
    pub url: RepositoryUrl,
    /// What the server wants, and what we want of the server.
    pub credentials: Credentials,
}

/// See the CRD's `spec.credentialsRef`. Never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// https: user and token or password.
    pub(crate) login: Option<(String, String)>,
    /// https: PEM of the authorities that may vouch for the server.
    pub(crate) ca: Option<Vec<u8>>,
    /// ssh: private key.
    pub(crate) identity: Option<String>,
    /// ssh: passphrase of the private key.
    pub(crate) passphrase: Option<String>,
    /// ssh: host keys.
    pub(crate) known_hosts: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(hidden)")
    }
}

impl Credentials {
    /// Reads the Secret's keys for this kind of address. Says which key is missing, and never what is in one.
    pub fn read(url: &RepositoryUrl, secret: Option<&BTreeMap<String, Vec<u8>>>) -> Result<Self, Why> {
        let unusable = |message: &str| Why::CredentialsUnusable {
            message: format!("the Secret of spec.credentialsRef {message}"),
        };
        let text = |key: &str| -> Result<Option<String>, Why> {
            match secret.and_then(|s| s.get(key)) {
                None => Ok(None),
                Some(bytes) => String::from_utf8(bytes.clone())
                    .map(|t| (!t.trim().is_empty()).then_some(t))
                    .map_err(|_| unusable(&format!("has a key {key} that is not text"))),
            }
        };
        match url.scheme {
            Scheme::Ssh => Ok(Credentials {
                identity: Some(
                    text("identity")?
                        .ok_or_else(|| unusable("has no key identity (the private key, OpenSSH format)"))?,
                ),
                passphrase: text("passphrase")?.map(|p| p.trim_end_matches(['\r', '\n']).to_owned()),
                known_hosts: Some(
                    text("known_hosts")?
                        .ok_or_else(|| unusable("has no key known_hosts (output of ssh-keyscan, checked by you)"))?,
                ),
                ..Credentials::default()
            }),
            Scheme::Https => {
                let one_line = |t: String| t.trim().to_owned();
                let login = match (text("token")?, text("username")?, text("password")?) {
                    // Servers take a token as the password of any user; "git" is accepted by all that we know.
                    (Some(token), user, None) => {
                        Some((user.map_or_else(|| "git".to_owned(), one_line), one_line(token)))
                    }
                    (None, Some(user), Some(password)) => Some((one_line(user), one_line(password))),
                    (None, None, None) => None,
                    (Some(_), _, Some(_)) => return Err(unusable("has both token and password: keep one")),
                    _ => return Err(unusable("has only one of username and password")),
                };
                Ok(Credentials {
                    login,
                    ca: text("ca.crt")?.map(String::into_bytes),
                    ..Credentials::default()
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_core::source::yaml;

    use super::*;

    /// The page about bad inputs says what Secrets get: each row is tried.
    #[test]
    fn secrets_get_what_the_page_says() {
        const PAGE: &str = include_str!("../../../docs/users/bad-inputs.md");
        let section = PAGE
            .split("\n## ")
            .find(|s| s.starts_with("GitSource: Secrets that"))
            .unwrap();
        let rows: Vec<&str> = section.lines().filter(|l| l.starts_with('|')).skip(2).collect();
        assert!(rows.len() > 4, "{rows:?}");
        for row in rows {
            let spans: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
            let url = RepositoryUrl::parse(spans[0]).unwrap();
            let keys = yaml::parse("secret", spans[1].as_bytes()).unwrap();
            let data: BTreeMap<String, Vec<u8>> = keys
                .iter()
                .flat_map(|d| d.value.as_object().unwrap())
                .map(|(key, value)| (key.clone(), value.as_str().unwrap().as_bytes().to_vec()))
                .collect();
            let why = Credentials::read(&url, Some(&data)).unwrap_err();
            assert!(why.to_string().contains(spans[2]), "{row}: {why}");
        }
    }
}
