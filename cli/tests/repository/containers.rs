//! docker-compose.yml and the Dockerfile cannot run everywhere the tests do, so they are read: images
//! are pinned, references lead somewhere, and every variable is one that the binary knows.

use std::collections::BTreeSet;

use millrace::environment;
use serde_json::Value;

use crate::read;

/// Services that end by themselves; a health check would have nothing to look at.
const JOBS: &[&str] = &["migrate"];

fn compose() -> Value {
    serde_saphyr::from_str(&read("docker-compose.yml")).expect("docker-compose.yml is YAML")
}

fn services(compose: &Value) -> impl Iterator<Item = (&String, &Value)> {
    compose["services"].as_object().expect("services").iter()
}

fn keys(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(map) => map.keys().cloned().collect(),
        Value::Array(list) => list.iter().map(|item| item.as_str().expect("a name").to_owned()).collect(),
        _ => BTreeSet::new(),
    }
}

/// A tag that names one release: `repository:1.2`, not `repository`, `:latest` or `:18`.
fn is_pinned(image: &str) -> bool {
    let tag = image.rsplit_once(':').map(|(_, tag)| tag).unwrap_or_default();
    tag.starts_with(|c: char| c.is_ascii_digit()) && tag.contains('.')
}

#[test]
fn images_are_pinned() {
    for (name, service) in services(&compose()) {
        let image = service["image"].as_str().unwrap_or_else(|| panic!("{name} has an image"));
        assert!(is_pinned(image), "{name}: {image}");
    }
    let dockerfile = read("Dockerfile");
    let bases = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM "));
    for base in bases {
        let image = base.split_whitespace().next().unwrap();
        assert!(is_pinned(image), "{image}");
    }
    assert!(!is_pinned("postgres:latest") && !is_pinned("postgres") && !is_pinned("postgres:18"));
}

#[test]
fn the_image_is_built_by_the_pinned_toolchain_and_runs_as_nobody() {
    let dockerfile = read("Dockerfile");
    let toolchain = read("rust-toolchain.toml");
    let channel =
        toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    assert!(dockerfile.contains(&format!("FROM rust:{channel}-")), "the toolchain is {channel}");
    assert!(dockerfile.contains("\nUSER 65532:65532\n"));
    assert!(dockerfile.contains("ca-certificates"));
    // What the build needs gets past .dockerignore.
    let ignore = read(".dockerignore");
    let manifest = read("Cargo.toml");
    let members = manifest.split("members = [").nth(1).and_then(|rest| rest.split(']').next()).unwrap();
    let members =
        members.split(',').map(|line| line.trim().trim_matches('"')).filter(|name| !name.is_empty());
    for folder in members.chain(["migrations", "Cargo.lock", "rust-toolchain.toml"]) {
        assert!(ignore.lines().any(|line| line == format!("!{folder}")), "{folder}");
    }
}

#[test]
fn services_have_health_checks_and_their_references_exist() {
    let compose = compose();
    let volumes = keys(&compose["volumes"]);
    let networks = keys(&compose["networks"]);
    for (name, service) in services(&compose) {
        let is_job = JOBS.contains(&name.as_str());
        assert_eq!(service.get("healthcheck").is_none(), is_job, "{name}");
        if let Some(dependencies) = service["depends_on"].as_object() {
            for (other, how) in dependencies {
                let target = compose["services"].get(other).unwrap_or_else(|| panic!("{name} needs {other}"));
                let condition = how["condition"].as_str().expect("a condition");
                let expected = match target.get("healthcheck") {
                    Some(_) => "service_healthy",
                    None => "service_completed_successfully",
                };
                assert_eq!(condition, expected, "{name} needs {other}");
            }
        }
        for network in keys(&service["networks"]) {
            assert!(networks.contains(&network), "{name}: network {network}");
        }
        for volume in keys(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            assert!(volumes.contains(source), "{name}: volume {source}");
        }
        for port in keys(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port} is open to the world");
        }
    }
}

#[test]
fn variables_are_known_to_their_command_and_the_required_ones_are_given() {
    let known = environment::variables();
    let mut seen = BTreeSet::new();
    for (name, service) in services(&compose()) {
        let Some(command) = service["command"][0].as_str().filter(|_| service["image"] == "millrace:0.1.0")
        else {
            continue;
        };
        seen.insert(command.to_owned());
        let given = keys(&service["environment"]);
        for variable in given.iter().filter(|variable| variable.starts_with("MILLRACE_")) {
            let entry = known.get(variable).unwrap_or_else(|| panic!("{name}: {variable} is not known"));
            let is_read = entry.commands.contains_key(command) || entry.commands.contains_key("");
            assert!(is_read, "{name}: `millrace {command}` does not read {variable}");
        }
        for alternatives in environment::required(command) {
            assert!(alternatives.iter().any(|one| given.contains(one)), "{name}: one of {alternatives:?}");
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["migrate", "server", "worker"]);
}

#[test]
fn workers_are_replicated_and_take_no_port_of_the_machine() {
    let compose = compose();
    let worker = &compose["services"]["worker"];
    assert!(worker["deploy"]["replicas"].as_u64().unwrap() >= 2);
    assert!(worker.get("ports").is_none() && worker.get("container_name").is_none());
}
