//! Which addresses a source may name: an allow-list, because the URL is a tenant's and the network is the operator's.

use super::Why;

/// A repository's address, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryUrl {
    /// `https` or `ssh`.
    pub scheme: Scheme,
    /// ssh only.
    pub user: Option<String>,
    /// Host name or address; IPv6 in brackets.
    pub host: String,
    /// Port, if it is not the scheme's own.
    pub port: Option<u16>,
    /// Path with its leading slash.
    pub path: String,
}

/// How the server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// TLS, with a certificate that is checked.
    Https,
    /// ssh, with a host key that known_hosts vouches for.
    Ssh,
}

impl RepositoryUrl {
    /// Parses `https://host/path` or `ssh://user@host[:port]/path`.
    ///
    /// Refused: other schemes (`file://`, `ext::`, `git://`), passwords in the URL, a user, host or path that starts with
    /// `-` (an option to a program behind the server), control characters, quotes, and hosts that mean this machine or a
    /// cloud's metadata service.
    pub fn parse(url: &str) -> Result<Self, Why> {
        let bad = |message: &str| Why::SpecInvalid {
            field: "spec.url",
            message: message.to_owned(),
        };
        let (scheme, rest) = if let Some(rest) = url.strip_prefix("https://") {
            (Scheme::Https, rest)
        } else if let Some(rest) = url.strip_prefix("ssh://") {
            (Scheme::Ssh, rest)
        } else {
            return Err(bad("must start with https:// or ssh://"));
        };
        if !rest.chars().all(|c| c.is_ascii_graphic())
            || rest.contains(['\'', '"', '`', '\\', '$', '<', '>', '#', '?', ';', '|', '&'])
        {
            return Err(bad("has characters that no repository address needs"));
        }
        let (authority, path) = rest
            .split_once('/')
            .ok_or_else(|| bad("has no path: write https://host/path or ssh://user@host/path"))?;
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        match (scheme, user) {
            (Scheme::Https, Some(_)) => {
                return Err(bad(
                    "must not hold a user or a password: put them into the Secret of spec.credentialsRef",
                ));
            }
            (Scheme::Ssh, Some(user)) if user.contains(':') => {
                return Err(bad(
                    "must not hold a password: ssh uses the key in the Secret of spec.credentialsRef",
                ));
            }
            _ => {}
        }
        let (host, port) = split_port(host).ok_or_else(|| bad("has a port that is not a number"))?;
        if host.is_empty() || path.is_empty() {
            return Err(bad("needs a host and a path"));
        }
        if host.starts_with('-')
            || user.is_some_and(|u| u.is_empty() || u.starts_with('-'))
            || path.starts_with('-')
            || path.split('/').any(|p| p == "..")
        {
            return Err(bad(
                "has a user, host or path that starts with '-', or a '..' in its path",
            ));
        }
        if is_forbidden_host(host) {
            return Err(bad(
                "names this machine or a link-local address, which a repository must not be on",
            ));
        }
        Ok(RepositoryUrl {
            scheme,
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port,
            path: format!("/{path}"),
        })
    }

    /// The host as known_hosts spells it: `host`, or `[host]:port` for another port than 22.
    pub fn known_host(&self) -> String {
        match self.port {
            Some(port) if port != 22 => format!("[{}]:{port}", self.bare_host()),
            _ => self.bare_host().to_owned(),
        }
    }

    /// The host without the brackets of IPv6.
    pub fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

impl std::fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.scheme {
            Scheme::Https => write!(f, "https://")?,
            Scheme::Ssh => write!(f, "ssh://{}@", self.user.as_deref().unwrap_or("git"))?,
        }
        f.write_str(&self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.path)
    }
}

fn split_port(host: &str) -> Option<(&str, Option<u16>)> {
    if let Some(end) = host.rfind(']') {
        let (address, rest) = host.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Some((address, Some(port.parse().ok()?))),
            None if rest.is_empty() => Some((address, None)),
            None => None,
        };
    }
    match host.split_once(':') {
        Some((host, port)) => Some((host, Some(port.parse().ok()?))),
        None => Some((host, None)),
    }
}

/// Loopback is the operator's own pod, and link-local holds the metadata services of clouds. Names that resolve there are
/// the network policy's to stop: what a name means changes between looking and connecting.
fn is_forbidden_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.eq_ignore_ascii_case("localhost") || bare.to_ascii_lowercase().ends_with(".localhost") {
        return true;
    }
    match bare.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(a)) => a.is_loopback() || a.is_link_local() || a.is_unspecified() || a.is_multicast(),
        Ok(std::net::IpAddr::V6(a)) => {
            a.to_ipv4_mapped()
                .is_some_and(|v4| v4.is_loopback() || v4.is_link_local())
                || a.is_loopback()
                || a.is_unspecified()
                || a.is_multicast()
                || a.is_unicast_link_local()
        }
        // Digits and dots that are no address, 0x7f.1 and the like, are read as one by some resolvers.
        Err(_) => bare.split('.').next_back().is_some_and(|last| {
            last.starts_with("0x") || (!last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_addresses() {
        let url = RepositoryUrl::parse("ssh://git@git.example.org:2222/civil.git").unwrap();
        assert_eq!(url.known_host(), "[git.example.org]:2222");
        assert_eq!(url.to_string(), "ssh://git@git.example.org:2222/civil.git");
        let url = RepositoryUrl::parse("https://git.example.org/a/b.git").unwrap();
        assert_eq!(
            (url.host.as_str(), url.port, url.path.as_str()),
            ("git.example.org", None, "/a/b.git")
        );
        assert_eq!(
            RepositoryUrl::parse("ssh://git@[2001:db8::1]:22/x")
                .unwrap()
                .known_host(),
            "2001:db8::1"
        );
    }

    #[test]
    fn bad_addresses() {
        for url in [
            "file:///etc/passwd",
            "ext::sh -c id",
            "git://h/x",
            "http://h/x",
            "git@h:x.git",
            "https://u:p@h/x",
            "https://u@h/x",
            "ssh://u:p@h/x",
            "ssh://-oProxyCommand=x@h/x",
            "ssh://-h/x",
            "ssh://git@h/-x",
            "ssh://git@h/a'b",
            "https://h/../x",
            "https://h",
            "https:///x",
            "https://h:port/x",
            "https://localhost/x",
            "https://127.0.0.1/x",
            "https://[::1]/x",
            "https://169.254.169.254/x",
            "https://0x7f.1/x",
            "https://2130706433/x",
            "https://h/x\ny",
            "https://h/x y",
            "ssh://git@h/x$(id)",
            "https://[::ffff:127.0.0.1]/x",
        ] {
            assert!(RepositoryUrl::parse(url).is_err(), "{url}");
        }
    }
}
