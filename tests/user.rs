//! The command line as a user types it, against the shared stack.

use std::process::{Command, Output};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::bed::Bed;
use crate::support::{http, stack, test};

pub fn tests() -> Vec<Trial> {
    vec![
        test("user::dev_tells_where_everything_is", dev_tells_where_everything_is),
        test("user::creates_watches_and_drops_a_mirror", creates_watches_and_drops_a_mirror),
        test("user::applies_a_file_twice", applies_a_file_twice),
        test("user::errors_name_cause_and_remedy", errors_name_cause_and_remedy),
    ]
}

fn millrace(arguments: &[&str]) -> Output {
    Command::new(stack::binary())
        .args(arguments)
        .env("MILLRACE_ADDRESS", &stack::endpoints().grpc)
        .env_remove("RUST_LOG")
        .output()
        .expect("millrace runs")
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

async fn creates_watches_and_drops_a_mirror(bed: Bed) {
    bed.sql("create table t (id int primary key, v text); insert into t values (1, 'a')").await;
    let (source, destination) = (format!("{}-pg", bed.name), format!("{}-ch", bed.name));
    let created = millrace(&[
        "mirror",
        "create",
        &bed.name,
        "--source",
        &source,
        "--destination",
        &destination,
        "--table",
        "public.t",
        "-o",
        "json",
    ]);
    assert_eq!(json(&created)["name"], bed.name.as_str());
    bed.wait_state(millrace_proto::v1::mirror::State::Running).await;
    let got = json(&millrace(&["mirror", "get", &bed.name, "-o", "json"]));
    assert_eq!(got["state"], "RUNNING");
    assert_eq!(got["tables"][0]["source"], "public.t");
    assert_eq!(got["tables"][0]["destination"], "t");
    assert_eq!(got["tables"][0]["state"], "STREAMING");
    let table = millrace(&["mirror", "list"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains(&bed.name));
    assert_eq!(millrace(&["mirror", "drop", &bed.name]).status.code(), Some(0));
    assert_eq!(millrace(&["mirror", "get", &bed.name]).status.code(), Some(2));
}

async fn applies_a_file_twice(bed: Bed) {
    bed.sql("create table t (id int primary key)").await;
    let url: tokio_postgres::Config = stack::endpoints().source.parse().expect("a URL");
    let (credentials, host) =
        stack::endpoints().clickhouse.trim_start_matches("http://").split_once('@').expect("a URL");
    let (user, password) = credentials.split_once(':').expect("a user");
    let database = bed.name.replace('-', "_");
    let file = format!(
        "peers:\n- name: {name}-a\n  postgres: {{host: 127.0.0.1, port: {port}, user: {pguser}, password: \"${{PGPASS}}\", database: {database}}}\n- name: {name}-b\n  clickhouse: {{url: \"http://{host}\", user: {user}, password: \"${{CHPASS}}\", database: {database}}}\nmirrors:\n- name: {name}\n  source: {name}-a\n  destination: {name}-b\n  tables:\n  - source: public.t\n",
        name = bed.name,
        port = url.get_ports()[0],
        pguser = url.get_user().expect("a user"),
    );
    let path = stack::dir().join(format!("{}.yaml", bed.name));
    std::fs::write(&path, file).expect("a file");
    let apply = |extra: &[&str]| {
        Command::new(stack::binary())
            .args(["apply", "-f"])
            .arg(&path)
            .args(extra)
            .env("MILLRACE_ADDRESS", &stack::endpoints().grpc)
            .env("PGPASS", String::from_utf8_lossy(url.get_password().expect("a password")).as_ref())
            .env("CHPASS", password)
            .output()
            .expect("millrace runs")
    };
    let text = |output: &Output| {
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let dry = apply(&["--dry-run"]);
    assert!(dry.status.success(), "{}", text(&dry));
    assert!(bed.get().await.is_err(), "a dry run makes nothing");
    let first = apply(&["--wait=streaming"]);
    assert!(first.status.success() && text(&first).contains("created"), "{}", text(&first));
    bed.wait_equal("t", "t").await;
    let second = apply(&[]);
    assert!(second.status.success(), "{}", text(&second));
    assert!(text(&second).contains("unchanged") && !text(&second).contains("created"), "{}", text(&second));
}

async fn errors_name_cause_and_remedy(bed: Bed) {
    let missing = millrace(&["mirror", "get", "no-such-mirror"]);
    assert_eq!(missing.status.code(), Some(2));
    let text = String::from_utf8_lossy(&missing.stderr);
    assert!(
        text.contains("MIRROR_NOT_FOUND")
            && text.contains("no-such-mirror")
            && text.contains("millrace mirror list"),
        "{text}"
    );
    let unreachable = Command::new(stack::binary())
        .args(["mirror", "list", "--address", "http://127.0.0.1:1"])
        .output()
        .expect("millrace runs");
    assert_eq!(unreachable.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&unreachable.stderr).contains("SERVER_UNREACHABLE"));
    let path = stack::dir().join(format!("{}.yaml", bed.name));
    std::fs::write(&path, "mirrors:\n- name: x\n  sauce: y\n").expect("a file");
    let typo = millrace(&["apply", "-f", path.to_str().expect("a path")]);
    assert_eq!(typo.status.code(), Some(2));
    let text = String::from_utf8_lossy(&typo.stderr).into_owned();
    assert!(text.contains("sauce") && text.contains("source") && text.contains('3'), "{text}");
}

async fn dev_tells_where_everything_is(_bed: Bed) {
    let stack = stack::endpoints();
    let pids = &stack.pids;
    let single = [pids.server, pids.temporal, pids.clickhouse, pids.catalog, pids.source];
    assert_eq!(
        (pids.workers.len(), stack.metrics.len()),
        (2, 3),
        "two workers; metrics of them and of the server"
    );
    for pid in single.iter().chain(&pids.workers) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), None).expect("the process lives");
    }
    let mut pages =
        vec![format!("{}/healthz", stack.http), format!("{}/readyz", stack.http), stack.temporal_ui.clone()];
    pages.extend(
        stack
            .metrics
            .iter()
            .map(|url| if url.ends_with("/metrics") { url.clone() } else { format!("{url}/metrics") }),
    );
    for page in pages {
        let rest = page.strip_prefix("http://").expect("an http URL");
        let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
        let answer = http::get(address, &format!("/{path}")).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 30"), "{page}: {answer}");
    }
}
