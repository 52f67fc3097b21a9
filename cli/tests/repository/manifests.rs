//! Dependencies between our crates point only where ARCHITECTURE.md lets them.

use crate::read;

const TERMS: &[&str] = &["terms"];

/// Each crate with the crates of ours that it may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("terms", &[]),
    ("tls", &[]),
    ("replication", &["terms", "tls"]),
    ("catalog", &["terms", "tls"]),
    ("workflows", TERMS),
    ("proto", TERMS),
    ("embedded", TERMS),
    ("bench", &["terms", "proto", "embedded"]),
    ("activities", &["terms", "workflows", "replication", "catalog"]),
    ("worker", &["terms", "activities", "workflows", "catalog"]),
    ("server", &["terms", "tls", "workflows", "catalog", "proto"]),
];

#[test]
fn dependencies_point_where_the_architecture_lets_them() {
    for (name, allowed) in ALLOWED {
        let manifest = read(&format!("{name}/Cargo.toml"));
        for used in our_dependencies(&manifest) {
            assert!(
                allowed.contains(&used),
                "{name} depends on {used}; ARCHITECTURE.md lets it use {allowed:?}"
            );
        }
    }
}

#[test]
fn every_crate_is_in_the_rules() {
    let manifest = read("Cargo.toml");
    let members = manifest.split("members = [").nth(1).and_then(|rest| rest.split(']').next()).unwrap();
    for member in members.split(',').map(|line| line.trim().trim_matches('"')).filter(|name| !name.is_empty())
    {
        assert!(member == "cli" || ALLOWED.iter().any(|(name, _)| *name == member), "{member}");
    }
}

/// Our crates in `[dependencies]`; those of tests are free.
fn our_dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    let dependencies = manifest.split("\n[dependencies]").nth(1).unwrap_or_default();
    let dependencies = dependencies.split("\n[").next().unwrap_or_default();
    dependencies.lines().filter_map(|line| {
        let name = line.strip_prefix("millrace-")?;
        name.split(['.', ' ', '=']).next()
    })
}
