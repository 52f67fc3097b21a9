//! The benchmark works: every measurement runs, and finds both sides equal. What it measures is not asserted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The limits are measured by PostgreSQL's own clients.
const CLIENTS: [&str; 2] = ["psql", "pg_recvlogical"];

#[test]
fn every_measurement_works() {
    let is_there = |client: &&str| Command::new(client).arg("--version").output().is_ok();
    if !CLIENTS.iter().all(is_there) {
        eprintln!("SKIPPED, nothing is shown: {} must be on the PATH", CLIENTS.join(" and "));
        return;
    }
    let bench = Path::new(env!("CARGO_BIN_EXE_millrace-bench"));
    let mut command = Command::new(bench);
    command.args(["all", "--small", "--json"]);
    // The tests of the workspace have built it. Built by the benchmark itself, for that package alone, it would
    // be another one, with everything below it.
    let millrace = bench.with_file_name("millrace");
    if millrace.exists() {
        command.arg("--binary").arg(millrace);
    }
    let output = command.output().expect("the benchmark starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
    let sections = report["sections"].as_array().expect("sections");
    let names: Vec<_> = sections.iter().map(|section| section["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["snapshot", "stream", "latency", "memory", "scale"], "{said}");
    for section in sections {
        let lines = section["lines"].as_array().expect("lines");
        assert!(!lines.is_empty() && lines.iter().all(|line| line["figures"].is_object()), "{section}");
    }
}
