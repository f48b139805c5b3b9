//! The set's authority, members' certificates and the application's Secret.
//!
//! Secrets are read when they were not written by this process or somebody else touched them; else what was written is
//! remembered. Private keys stay in memory only for the authority, which must sign.

use std::collections::HashMap;
use std::sync::Mutex;

use holdfast_core::pki::{AuthorityStep, Validity, authority, renewal};
use holdfast_core::replica_set::SetView;
use holdfast_pki::{Facts, KeyedCertificate, facts, issue};
use holdfast_wire::Names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use super::manifests::{self, Authorities, Owner};
use super::{Context, Error, during};

/// What is in force.
pub struct Kept {
    /// End of the authority in use.
    pub authority_expires: Timestamp,
    /// The next instant at which something is to be renewed.
    pub renew_at: Timestamp,
}

/// What this process has written or read, by namespace and Secret name.
#[derive(Default)]
pub struct Cache {
    authorities: Mutex<HashMap<(String, String), Authorities>>,
    /// What a Secret's certificate says (nothing for the application's), and what was written with it: the bundle, and for the
    /// application's whose it is.
    leaves: Mutex<HashMap<(String, String), Written>>,
}

type Written = (Option<Facts>, String);

/// Keeps all Secrets of a set.
pub async fn keep(
    ctx: &Context,
    owner: &Owner,
    view: &SetView,
    members: &[String],
    now: Timestamp,
) -> Result<Kept, Error> {
    let (authorities, stage_ends) = authorities(ctx, owner, now).await?;
    let current = facts(&authorities.current.certificate)?;
    let bundle = authorities.bundle();
    let mut renew_at = stage_ends;
    for member in members {
        let due = leaf(ctx, owner, member, &authorities.current, &current, &bundle, now).await?;
        renew_at = renew_at.min(due);
    }
    app(ctx, owner, view, &bundle).await?;
    Ok(Kept {
        authority_expires: current.not_after,
        renew_at,
    })
}

fn validity(facts: &Facts) -> Validity {
    Validity {
        issued: facts.issued,
        not_after: facts.not_after,
    }
}

async fn read(ctx: &Context, owner: &Owner, name: &str) -> Result<Option<Secret>, Error> {
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &owner.namespace);
    api.get_opt(name).await.map_err(during("reading a Secret"))
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    secret
        .data
        .as_ref()?
        .get(key)
        .and_then(|b| String::from_utf8(b.0.clone()).ok())
        .filter(|t| !t.is_empty())
}

async fn authorities(ctx: &Context, owner: &Owner, now: Timestamp) -> Result<(Authorities, Timestamp), Error> {
    let lifetime = ctx.settings.authority_lifetime;
    let name = Names(&owner.name).ca();
    let key = (owner.namespace.clone(), name.clone());
    let probe = manifests::ca_secret(owner, &Authorities::default());
    let cached = ctx
        .certificates
        .authorities
        .lock()
        .ok()
        .and_then(|m| m.get(&key).cloned());
    let mut known = match cached.filter(|_| ctx.applied.holds(&probe)) {
        Some(known) => Some(known),
        None => read(ctx, owner, &name).await?.as_ref().and_then(Authorities::read),
    };
    if known.is_none() {
        let fresh = holdfast_pki::authority(&owner.name, now, lifetime)?;
        known = Some(Authorities {
            current: fresh,
            next: None,
            previous: None,
        });
    }
    let Some(mut known) = known else {
        return Ok((Authorities::default(), now));
    };
    let next = known.next.as_ref().map(|n| facts(&n.certificate)).transpose()?;
    let ends = match authority(
        validity(&facts(&known.current.certificate)?),
        next.as_ref().map(validity),
        now,
    ) {
        AuthorityStep::Keep { until } => until,
        AuthorityStep::Announce => {
            known.next = Some(holdfast_pki::authority(&owner.name, now, lifetime)?);
            tracing::info!(set = %owner.name, "a successor of the certificate authority is announced");
            now
        }
        AuthorityStep::Switch => {
            if let Some(next) = known.next.take() {
                known.previous = Some(std::mem::replace(&mut known.current, next).certificate);
                tracing::info!(set = %owner.name, "certificates are issued by the new authority from now on");
            }
            now
        }
    };
    if known
        .previous
        .as_ref()
        .is_some_and(|p| facts(p).is_ok_and(|f| f.not_after < now))
    {
        known.previous = None;
    }
    ctx.applied
        .apply(&ctx.client, &manifests::ca_secret(owner, &known))
        .await
        .map_err(during("applying the authority's Secret"))?;
    if let Ok(mut map) = ctx.certificates.authorities.lock() {
        map.insert(key, known.clone());
    }
    Ok((known, ends))
}

/// Keeps one member's certificate; returns when it is due next.
async fn leaf(
    ctx: &Context,
    owner: &Owner,
    member: &str,
    authority: &KeyedCertificate,
    authority_facts: &Facts,
    bundle: &str,
    now: Timestamp,
) -> Result<Timestamp, Error> {
    let lifetime = ctx.settings.certificate_lifetime;
    let name = Names(&owner.name).tls(member);
    let key = (owner.namespace.clone(), name.clone());
    let wanted = dns_names(owner, member);
    let due = |f: &Facts| {
        let names_as_wanted = wanted.iter().all(|w| f.dns_names.contains(w));
        renewal(validity(f), f.issuer == authority_facts.subject, names_as_wanted, now)
    };
    let probe = manifests::tls_secret(owner, member, &KeyedCertificate::default(), "");
    let cached = ctx.certificates.leaves.lock().ok().and_then(|m| m.get(&key).cloned());
    let in_force = cached
        .filter(|(_, with)| ctx.applied.holds(&probe) && with == bundle)
        .and_then(|(facts, _)| facts);
    if let Some(at) = in_force.as_ref().and_then(due) {
        return Ok(at);
    }
    let there = read(ctx, owner, &name).await?;
    let present = there.as_ref().and_then(|s| {
        let certificate = text(s, "tls.crt")?;
        Some((
            facts(&certificate).ok()?,
            KeyedCertificate {
                certificate,
                key: text(s, "tls.key")?,
            },
        ))
    });
    let (known, pair) = match present {
        Some((facts, pair)) if due(&facts).is_some() => (facts, pair),
        _ => {
            let pair = issue(authority, member, &wanted, now, lifetime)?;
            tracing::info!(set = %owner.name, member, "certificate issued");
            (facts(&pair.certificate)?, pair)
        }
    };
    ctx.applied
        .apply(&ctx.client, &manifests::tls_secret(owner, member, &pair, bundle))
        .await
        .map_err(during("applying a member's certificate"))?;
    let at = due(&known).unwrap_or(now);
    if let Ok(mut map) = ctx.certificates.leaves.lock() {
        map.insert(key, (Some(known), bundle.to_owned()));
    }
    Ok(at)
}

/// Names that clients may connect by: each Service, from short to fully qualified, and the member itself.
fn dns_names(owner: &Owner, member: &str) -> Vec<String> {
    let names = Names(&owner.name);
    let ns = &owner.namespace;
    let mut all = vec!["localhost".to_owned(), member.to_owned()];
    for service in [names.rw(), names.ro(), names.r()] {
        all.push(format!("{service}.{ns}"));
        all.push(format!("{service}.{ns}.svc"));
        all.push(format!("{service}.{ns}.svc.cluster.local"));
        all.push(service);
    }
    all
}

/// Keeps the application's Secret. The password is made once and never changed by the operator.
async fn app(ctx: &Context, owner: &Owner, view: &SetView, bundle: &str) -> Result<(), Error> {
    let initdb = &view.plan.initdb;
    let key = (owner.namespace.clone(), Names(&owner.name).app());
    let probe = manifests::app_secret(owner, "", "", "", "");
    let cached = ctx.certificates.leaves.lock().ok().and_then(|m| m.get(&key).cloned());
    // Another object of this name may have adopted it, and the policy may have changed.
    let with = format!("{} {} {bundle}", owner.uid, owner.data_goes);
    if ctx.applied.holds(&probe) && cached.is_some_and(|(_, before)| before == with) {
        return Ok(());
    }
    let there = read(ctx, owner, &key.1).await?;
    let password = there
        .as_ref()
        .and_then(|s| text(s, "password"))
        .unwrap_or_else(|| holdfast_pki::token(32));
    let secret = manifests::app_secret(owner, &initdb.database, &initdb.owner, &password, bundle);
    ctx.applied
        .apply(&ctx.client, &secret)
        .await
        .map_err(during("applying the application's Secret"))?;
    if let Ok(mut map) = ctx.certificates.leaves.lock() {
        map.insert(key, (None, with));
    }
    Ok(())
}
