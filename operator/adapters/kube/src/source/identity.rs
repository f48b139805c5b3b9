//! Acting as a source's ServiceAccount.

use kube::{Client, Config};

/// A client whose every request is made as the ServiceAccount `name` of `namespace`. Fails closed: without a whole identity
/// there is no client, since a request without impersonation headers would have the operator's own rights.
pub fn act_as(config: &Config, namespace: &str, name: &str) -> Result<Client, String> {
    let plain = |text: &str| {
        !text.is_empty()
            && text.len() <= 253
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
    };
    if !plain(namespace) || !plain(name) {
        return Err(format!("{namespace}/{name} is not the name of a ServiceAccount"));
    }
    let mut config = config.clone();
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{namespace}:{name}"));
    // Left out, the server gives a ServiceAccount its own groups, and the operator needs no right to impersonate groups.
    config.auth_info.impersonate_groups = None;
    config.auth_info.impersonate_uid = None;
    config.auth_info.impersonate_user_extra = None;
    // A refused or throttled request is answered by the next reconcile, which knows more than a blind retry.
    config.default_retry = false;
    crate::connect(config).map_err(|e| e.to_string())
}
