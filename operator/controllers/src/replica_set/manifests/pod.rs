//! A member's Pod: any image with PostgreSQL's binaries, with Holdfast's agent as its first process.

use std::collections::BTreeMap;

use holdfast_api::replica_set::{HAReplicaSetSpec, PostgresqlEngine};
use holdfast_wire::{Bootstrap, HEALTH_PORT, Names, PEER_PORT, POSTGRES_PORT, SET_LABEL, env, paths};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapProjection, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    HTTPGetAction, KeyToPath, ObjectFieldSelector, PersistentVolumeClaimVolumeSource, Pod, PodAffinityTerm,
    PodAntiAffinity, PodSecurityContext, PodSpec, Probe, ProjectedVolumeSource, SeccompProfile, SecretProjection,
    SecurityContext, ServiceAccountTokenProjection, TopologySpreadConstraint, Volume, VolumeMount, VolumeProjection,
    WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sha2::{Digest, Sha256};

use super::state::SQL_KEY;
use super::{Owner, TEMPLATE};

/// What a Pod is made from.
pub struct PodInput<'a> {
    /// Whose Pod.
    pub owner: &'a Owner,
    /// As the user wrote it.
    pub spec: &'a HAReplicaSetSpec,
    /// The engine.
    pub engine: &'a PostgresqlEngine,
    /// How the first directory is made.
    pub bootstrap: &'a Bootstrap,
    /// Image that brings the `holdfast` binary.
    pub agent_image: &'a str,
}

/// Time between SIGTERM and SIGKILL: a switchover, a shutdown checkpoint and its shipping to standbys.
const GRACE_SECONDS: i64 = 120;

/// Hash of everything in the Pod but the member's name and the digest that the image resolved to: Pods made from another
/// one are renewed. The agent's image is left out, so an upgrade of the operator restarts no database.
pub fn template_hash(input: &PodInput<'_>) -> String {
    let mut template = pod(input, "template", &input.engine.image, "");
    if let Some(spec) = template.spec.as_mut() {
        spec.init_containers = None;
    }
    let json = serde_json::to_vec(&template.spec).unwrap_or_default();
    Sha256::digest(&json)
        .iter()
        .take(8)
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// The Pod of `member`, running the engine's `image`.
pub fn pod(input: &PodInput<'_>, member: &str, image: &str, template: &str) -> Pod {
    let owner = input.owner;
    let mut metadata = owner.of_member(owner.meta(member.to_owned()), member);
    metadata
        .annotations
        .get_or_insert_default()
        .insert(TEMPLATE.to_owned(), template.to_owned());
    let placement = &input.spec.placement;
    Pod {
        metadata,
        spec: Some(PodSpec {
            service_account_name: Some(Names(&owner.name).account()),
            // The token comes by its own projected volume below, mounted into the agent's container only.
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            restart_policy: Some("Always".into()),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(input.engine.run_as_user),
                run_as_group: Some(input.engine.run_as_user),
                fs_group: Some(input.engine.run_as_user),
                fs_group_change_policy: Some("OnRootMismatch".into()),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".into(),
                    ..SeccompProfile::default()
                }),
                ..PodSecurityContext::default()
            }),
            init_containers: Some(vec![setup(input)]),
            containers: vec![engine(input, member, image)],
            volumes: Some(volumes(input, member)),
            node_selector: (!placement.node_selector.is_empty()).then(|| placement.node_selector.clone()),
            affinity: Some(affinity(owner, placement.affinity.clone())),
            tolerations: Some(placement.tolerations.clone()).filter(|t| !t.is_empty()),
            priority_class_name: placement.priority_class_name.clone(),
            topology_spread_constraints: placement.spread_over.clone().map(|key| vec![spread(owner, key)]),
            image_pull_secrets: Some(input.spec.image_pull_secrets.clone()).filter(|s| !s.is_empty()),
            ..PodSpec::default()
        }),
        status: None,
    }
}

fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".into()]),
            add: None,
        }),
        ..SecurityContext::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// Brings the binary, and a passwd entry for whatever user ID the engine runs as: `initdb` and `postgres` refuse a user
/// without one.
fn setup(input: &PodInput<'_>) -> Container {
    Container {
        name: "setup".into(),
        image: Some(input.agent_image.into()),
        command: Some(vec![format!("{}/{}", paths::IMAGE_BIN, paths::AGENT)]),
        args: Some(vec!["setup".into()]),
        security_context: Some(restricted()),
        volume_mounts: Some(vec![
            mount("bin", paths::BIN, false),
            mount("etc", "/holdfast/etc", false),
        ]),
        resources: Some(k8s_openapi::api::core::v1::ResourceRequirements {
            requests: Some(quantities("10m", "16Mi")),
            limits: Some(quantities("500m", "64Mi")),
            ..Default::default()
        }),
        ..Container::default()
    }
}

fn quantities(cpu: &str, memory: &str) -> BTreeMap<String, Quantity> {
    BTreeMap::from([
        ("cpu".to_owned(), Quantity(cpu.into())),
        ("memory".to_owned(), Quantity(memory.into())),
    ])
}

fn engine(input: &PodInput<'_>, member: &str, image: &str) -> Container {
    let probe = |path: &str, period: i32, failures: i32| Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::Int(i32::from(HEALTH_PORT)),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Probe::default()
    };
    let port = |name: &str, port: u16| ContainerPort {
        name: Some(name.into()),
        container_port: i32::from(port),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    };
    let mut passwd = mount("etc", "/etc/passwd", true);
    passwd.sub_path = Some("passwd".into());
    let mut group = mount("etc", "/etc/group", true);
    group.sub_path = Some("group".into());
    let mut mounts = vec![
        mount("data", paths::VOLUME, false),
        mount("bin", paths::BIN, true),
        passwd,
        group,
        mount("run", paths::RUN, false),
        mount("tmp", "/tmp", false),
        mount("shm", "/dev/shm", false),
        mount("tls", paths::TLS, true),
        mount("spec", paths::SPEC, true),
        mount("bootstrap", paths::BOOTSTRAP, true),
        mount("token", "/var/run/secrets/kubernetes.io/serviceaccount", true),
    ];
    if input.spec.archive.is_some() {
        mounts.push(mount("archive", paths::ARCHIVE, false));
    }
    Container {
        name: "postgresql".into(),
        image: Some(image.into()),
        command: Some(vec![format!("{}/{}", paths::BIN, paths::AGENT)]),
        env: Some(environment(input, member)),
        ports: Some(vec![
            port("postgresql", POSTGRES_PORT),
            port("peer", PEER_PORT),
            port("health", HEALTH_PORT),
        ]),
        resources: input.spec.resources.clone(),
        security_context: Some(restricted()),
        // Readiness says whether the member is fit for a Service. Liveness only whether the agent's loop turns: a slow
        // engine is the agent's business, and a kubelet's kill would never be what heals it.
        readiness_probe: Some(probe("/readyz", 2, 2)),
        liveness_probe: Some(Probe {
            initial_delay_seconds: Some(10),
            ..probe("/livez", 10, 6)
        }),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

fn environment(input: &PodInput<'_>, member: &str) -> Vec<EnvVar> {
    let value = |name: &str, value: String| EnvVar {
        name: name.into(),
        value: Some(value),
        ..EnvVar::default()
    };
    let field = |name: &str, path: &str| EnvVar {
        name: name.into(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.into(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    let mut all = vec![
        value(env::MEMBER, member.to_owned()),
        value(env::SET, input.owner.name.clone()),
        value(env::NAMESPACE, input.owner.namespace.clone()),
        field(env::POD_IP, "status.podIP"),
        field(env::POD_UID, "metadata.uid"),
        value(
            env::BOOTSTRAP,
            serde_json::to_string(input.bootstrap).unwrap_or_default(),
        ),
    ];
    if input.spec.archive.is_some() {
        all.push(value(env::ARCHIVE, paths::ARCHIVE.to_owned()));
    }
    all
}

fn volumes(input: &PodInput<'_>, member: &str) -> Vec<Volume> {
    let names = Names(&input.owner.name);
    let empty = |name: &str, medium: Option<&str>, limit: &str| Volume {
        name: name.into(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: medium.map(ToOwned::to_owned),
            size_limit: Some(Quantity(limit.into())),
        }),
        ..Volume::default()
    };
    let projected = |name: &str, sources: Vec<VolumeProjection>| Volume {
        name: name.into(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o440),
            sources: Some(sources),
        }),
        ..Volume::default()
    };
    let secret = |name: String, items: Option<Vec<KeyToPath>>| VolumeProjection {
        secret: Some(SecretProjection {
            name,
            items,
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    let config = |name: String, key: &str, optional: bool| VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name,
            items: Some(vec![KeyToPath {
                key: key.into(),
                path: key.into(),
                mode: None,
            }]),
            optional: optional.then_some(true),
        }),
        ..VolumeProjection::default()
    };
    let password = vec![KeyToPath {
        key: "password".into(),
        path: "app-password".into(),
        mode: None,
    }];
    let claim = |name: &str, claim: &str| Volume {
        name: name.into(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.to_owned(),
            read_only: None,
        }),
        ..Volume::default()
    };
    let mut volumes = vec![
        claim("data", member),
        empty("bin", None, "128Mi"),
        empty("etc", None, "1Mi"),
        empty("run", None, "64Mi"),
        empty("tmp", None, "1Gi"),
        empty("shm", Some("Memory"), "1Gi"),
        projected("tls", vec![secret(names.tls(member), None)]),
        projected("spec", vec![config(names.spec(), holdfast_wire::SPEC_KEY, false)]),
        projected(
            "bootstrap",
            vec![secret(names.app(), Some(password)), config(names.spec(), SQL_KEY, true)],
        ),
        projected("token", token_sources()),
    ];
    // Only where it is asked for: the Pods of all others stay as they are.
    if let Some(archive) = &input.spec.archive {
        volumes.push(claim("archive", &archive.volume_claim_name));
    }
    volumes
}

/// What an automounted token brings, bound to this Pod and short-lived.
fn token_sources() -> Vec<VolumeProjection> {
    let item = |key: &str| {
        vec![KeyToPath {
            key: key.into(),
            path: key.into(),
            mode: None,
        }]
    };
    vec![
        VolumeProjection {
            service_account_token: Some(ServiceAccountTokenProjection {
                path: "token".into(),
                expiration_seconds: Some(3607),
                audience: None,
            }),
            ..VolumeProjection::default()
        },
        VolumeProjection {
            config_map: Some(ConfigMapProjection {
                name: "kube-root-ca.crt".into(),
                items: Some(item("ca.crt")),
                optional: None,
            }),
            ..VolumeProjection::default()
        },
        VolumeProjection {
            downward_api: Some(k8s_openapi::api::core::v1::DownwardAPIProjection {
                items: Some(vec![k8s_openapi::api::core::v1::DownwardAPIVolumeFile {
                    path: "namespace".into(),
                    field_ref: Some(ObjectFieldSelector {
                        field_path: "metadata.namespace".into(),
                        ..ObjectFieldSelector::default()
                    }),
                    ..Default::default()
                }]),
            }),
            ..VolumeProjection::default()
        },
    ]
}

fn selector(owner: &Owner) -> LabelSelector {
    LabelSelector {
        match_labels: Some(BTreeMap::from([(SET_LABEL.to_owned(), owner.name.clone())])),
        ..LabelSelector::default()
    }
}

/// The user's affinity, and members apart from each other. A wish, not a demand: on a cluster with fewer nodes than members
/// two on one node are better than one missing.
fn affinity(owner: &Owner, user: Option<Affinity>) -> Affinity {
    let mut affinity = user.unwrap_or_default();
    affinity
        .pod_anti_affinity
        .get_or_insert_with(PodAntiAffinity::default)
        .preferred_during_scheduling_ignored_during_execution
        .get_or_insert_default()
        .push(WeightedPodAffinityTerm {
            weight: 100,
            pod_affinity_term: PodAffinityTerm {
                label_selector: Some(selector(owner)),
                topology_key: "kubernetes.io/hostname".into(),
                ..PodAffinityTerm::default()
            },
        });
    affinity
}

fn spread(owner: &Owner, key: String) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key,
        when_unsatisfiable: "ScheduleAnyway".into(),
        label_selector: Some(selector(owner)),
        ..TopologySpreadConstraint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The template's hash and the engine's container of a Pod with these fields beside the least that a spec needs.
    fn made(archive: Option<&str>) -> (String, PodSpec) {
        let archive = archive.map(|name| serde_json::json!({"volumeClaimName": name}));
        let spec: HAReplicaSetSpec = serde_json::from_value(serde_json::json!({
            "engine": {"postgresql": {"image": "postgres:17"}}, "storage": {"size": "1Gi"}, "archive": archive
        }))
        .unwrap();
        let set = holdfast_api::HAReplicaSet::new("db", spec);
        let (owner, spec) = (Owner::of(&set), &set.spec);
        let bootstrap = Bootstrap {
            database: "app".into(),
            owner: "app".into(),
            encoding: "UTF8".into(),
            locale: "C.UTF-8".into(),
            data_checksums: true,
            wal_segment_mib: 4,
        };
        let input = PodInput {
            owner: &owner,
            engine: spec.engine.postgresql.as_ref().unwrap(),
            spec,
            bootstrap: &bootstrap,
            agent_image: "holdfast",
        };
        (
            template_hash(&input),
            pod(&input, "db-1", "postgres:17", "").spec.unwrap(),
        )
    }

    #[test]
    fn the_archive_is_mounted_where_it_is_asked_for_and_another_one_is_another_template() {
        let (none, plain) = made(None);
        let (wal, pod) = made(Some("wal"));
        let (other, _) = made(Some("wal-2"));
        assert!(none != wal && wal != other, "a rolling restart");
        assert!(!serde_json::to_string(&plain).unwrap().contains("archive"));
        let claim = |name: &str| {
            let volume = pod.volumes.iter().flatten().find(|v| v.name == name);
            volume.and_then(|v| Some(v.persistent_volume_claim.as_ref()?.claim_name.clone()))
        };
        assert_eq!(
            (claim("archive").as_deref(), claim("data").as_deref()),
            (Some("wal"), Some("db-1"))
        );
        let engine = pod.containers.first().unwrap();
        let mounts = engine.volume_mounts.iter().flatten();
        assert!(
            mounts
                .clone()
                .any(|m| m.name == "archive" && m.mount_path == paths::ARCHIVE && m.read_only.is_none())
        );
        let told = engine.env.iter().flatten().find(|e| e.name == env::ARCHIVE);
        assert_eq!(told.and_then(|e| e.value.as_deref()), Some(paths::ARCHIVE));
        assert_eq!(engine.security_context, Some(restricted()));
    }
}
