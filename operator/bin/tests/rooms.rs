//! Which room may import which: the arrows of docs/architecture.md, read from the workspace's own manifests.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is the assertion"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Each room, and the rooms that it may import. Only `bin` (the package `holdfast`) knows `controllers`, and `core` nothing but `api`.
const MAY: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("core", &["api"]),
    ("wire", &["api", "core"]),
    ("git", &["api", "core", "wire"]),
    ("kube", &["api", "core", "wire"]),
    ("pki", &["api", "core", "wire"]),
    ("postgres", &["api", "core", "wire"]),
    ("telemetry", &["api", "core", "wire"]),
    (
        "agent",
        &["api", "core", "wire", "kube", "pki", "postgres", "telemetry"],
    ),
    (
        "controllers",
        &["api", "core", "wire", "git", "kube", "pki", "telemetry"],
    ),
    ("cli", &["api", "core", "wire", "git", "kube", "telemetry"]),
    ("sim", &["core"]),
];

/// Names of the workspace's packages and of those that each depends on, in whatever way.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let name = |of: &serde_json::Value| of["name"].as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    let of = |package: &serde_json::Value| {
        let all = package["dependencies"].as_array().unwrap().iter().map(name);
        all.filter(|dependency| ours.contains(dependency)).collect()
    };
    packages.iter().map(|package| (name(package), of(package))).collect()
}

#[test]
fn imports_point_one_way() {
    let imports = imports();
    let package = |room: &str| format!("holdfast-{room}");
    for (room, may) in MAY {
        let found = imports.get(&package(room)).unwrap_or_else(|| panic!("no room {room}"));
        let allowed: BTreeSet<String> = may.iter().map(|room| package(room)).collect();
        let wrong: Vec<&String> = found.difference(&allowed).collect();
        assert!(wrong.is_empty(), "{room} may not import {wrong:?}");
    }
    for (name, found) in &imports {
        let tests = ["holdfast-bed", "holdfast-e2e", "holdfast-ledger"].contains(&name.as_str());
        let known = name == "holdfast" || tests || MAY.iter().any(|(room, _)| *name == package(room));
        assert!(known, "{name} is a room that nothing says of what it may import");
        assert!(
            name == "holdfast" || !found.contains("holdfast-controllers"),
            "{name} imports controllers"
        );
    }
}
