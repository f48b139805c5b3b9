//! Objects that hold state: the wish, the record, volumes and Secrets.

use std::collections::BTreeMap;

use holdfast_core::failover::Record;
use holdfast_core::instance::SetSpec;
use holdfast_pki::KeyedCertificate;
use holdfast_wire::{Names, POSTGRES_PORT, RECORD_ANNOTATION, SPEC_KEY};
use k8s_openapi::ByteString;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaim, PersistentVolumeClaimSpec, Secret, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::Owner;

/// Key of the bootstrap statements in the wish's ConfigMap.
pub const SQL_KEY: &str = "bootstrap.sql";

/// The wish.
pub fn spec_map(owner: &Owner, wish: &SetSpec, sql: &[String]) -> Result<ConfigMap, serde_json::Error> {
    let mut data = BTreeMap::from([(SPEC_KEY.to_owned(), serde_json::to_string_pretty(wish)?)]);
    if !sql.is_empty() {
        data.insert(
            SQL_KEY.to_owned(),
            sql.iter()
                .map(|s| format!("{};\n", s.trim_end().trim_end_matches(';')))
                .collect(),
        );
    }
    Ok(ConfigMap {
        metadata: owner.meta(Names(&owner.name).spec()),
        data: Some(data),
        ..ConfigMap::default()
    })
}

/// The Lease with the first record. Outlives the replica set, as the data does.
pub fn lease(owner: &Owner, record: &Record) -> Result<Lease, serde_json::Error> {
    let mut metadata = owner.retained(Names(&owner.name).lease());
    metadata
        .annotations
        .get_or_insert_default()
        .insert(RECORD_ANNOTATION.to_owned(), serde_json::to_string(record)?);
    Ok(Lease {
        metadata,
        spec: Some(LeaseSpec {
            holder_identity: Some(record.leader.0.clone()),
            lease_transitions: i32::try_from(record.term.0).ok(),
            ..LeaseSpec::default()
        }),
    })
}

/// A member's volume: deleting the replica set keeps it unless the policy says otherwise.
pub fn claim(owner: &Owner, member: &str, size: &str, class: Option<&str>) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: owner.of_member(owner.retained(member.to_owned()), member),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".into()]),
            storage_class_name: class.map(ToOwned::to_owned),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(size.to_owned()))])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

fn secret(metadata: ObjectMeta, kind: &str, data: &[(&str, &str)]) -> Secret {
    Secret {
        metadata,
        type_: Some(kind.to_owned()),
        data: Some(
            data.iter()
                .map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec())))
                .collect(),
        ),
        ..Secret::default()
    }
}

/// A set's authorities: the one in use, its announced successor, and a former one that is still trusted.
#[derive(Clone, Default)]
pub struct Authorities {
    /// Issues certificates.
    pub current: KeyedCertificate,
    /// Trusted already, not in use yet.
    pub next: Option<KeyedCertificate>,
    /// Certificate of the former one, until it ends.
    pub previous: Option<String>,
}

impl Authorities {
    /// From the Secret; `None` when the authority in use cannot be read.
    pub fn read(secret: &Secret) -> Option<Authorities> {
        let text = |key: &str| {
            secret
                .data
                .as_ref()?
                .get(key)
                .and_then(|b| String::from_utf8(b.0.clone()).ok())
                .filter(|t| !t.is_empty())
        };
        let pair = |certificate: &str, key: &str| {
            Some(KeyedCertificate {
                certificate: text(certificate)?,
                key: text(key)?,
            })
        };
        Some(Authorities {
            current: pair("tls.crt", "tls.key")?,
            next: pair("next.crt", "next.key"),
            previous: text("previous.crt"),
        })
    }

    /// Every authority that is to be trusted, PEM.
    pub fn bundle(&self) -> String {
        let next = self.next.as_ref().map(|n| n.certificate.as_str());
        let all = [Some(self.current.certificate.as_str()), next, self.previous.as_deref()];
        all.into_iter()
            .flatten()
            .map(|pem| format!("{}\n", pem.trim_end()))
            .collect()
    }
}

/// The authority's Secret, which only the operator reads.
pub fn ca_secret(owner: &Owner, authorities: &Authorities) -> Secret {
    let bundle = authorities.bundle();
    let mut data = vec![
        ("tls.crt", authorities.current.certificate.as_str()),
        ("tls.key", authorities.current.key.as_str()),
        ("ca.crt", bundle.as_str()),
    ];
    if let Some(next) = &authorities.next {
        data.extend([("next.crt", next.certificate.as_str()), ("next.key", next.key.as_str())]);
    }
    if let Some(previous) = &authorities.previous {
        data.push(("previous.crt", previous));
    }
    secret(owner.retained(Names(&owner.name).ca()), "Opaque", &data)
}

/// A member's certificate.
pub fn tls_secret(owner: &Owner, member: &str, leaf: &KeyedCertificate, bundle: &str) -> Secret {
    secret(
        owner.of_member(owner.meta(Names(&owner.name).tls(member)), member),
        "kubernetes.io/tls",
        &[
            ("tls.crt", &leaf.certificate),
            ("tls.key", &leaf.key),
            ("ca.crt", bundle),
        ],
    )
}

/// What applications need to connect.
pub fn app_secret(owner: &Owner, database: &str, user: &str, password: &str, bundle: &str) -> Secret {
    let host = format!("{}.{}.svc", Names(&owner.name).rw(), owner.namespace);
    let port = POSTGRES_PORT.to_string();
    let quote = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let (d, u) = (quote(database), quote(user));
    // The password is alphanumeric (holdfast_pki::token), so it needs no quoting.
    let uri = format!("postgresql://{u}:{password}@{host}:{port}/{d}?sslmode=require");
    let jdbc = format!("jdbc:postgresql://{host}:{port}/{d}?user={u}&password={password}&sslmode=require");
    secret(
        owner.retained(Names(&owner.name).app()),
        "kubernetes.io/basic-auth",
        &[
            ("host", &host),
            ("port", &port),
            ("dbname", database),
            ("username", user),
            ("user", user),
            ("password", password),
            ("uri", &uri),
            ("jdbc-uri", &jdbc),
            ("ca.crt", bundle),
        ],
    )
}
