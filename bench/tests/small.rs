//! The benchmark works: every measurement runs, and finds both sides equal. What it measures is not asserted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// The limits are measured by PostgreSQL's own clients.
const CLIENTS: [&str; 2] = ["psql", "pg_recvlogical"];

/// What `all` measures.
const SECTIONS: [&str; 5] = ["snapshot", "stream", "latency", "memory", "scale"];

#[test]
fn every_measurement_works() {
    let is_there = |client: &&str| Command::new(client).arg("--version").output().is_ok();
    if !CLIENTS.iter().all(is_there) {
        eprintln!("SKIPPED, nothing is shown: {} must be on the PATH", CLIENTS.join(" and "));
        return;
    }
    let bench = Path::new(env!("CARGO_BIN_EXE_millrace-bench"));
    // The tests of the workspace have built it. Built by the benchmark itself, for that package alone, it would
    // be another one, with everything below it.
    let millrace = bench.with_file_name("millrace");
    // All at once, each on a stack of its own: most of the time they wait.
    let running = SECTIONS.map(|section| {
        let mut command = Command::new(bench);
        command.args([section, "--small", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        if millrace.exists() {
            command.arg("--binary").arg(&millrace);
        }
        (section, command.spawn().expect("the benchmark starts"))
    });
    // Nobody may be left behind when one fails.
    let ended = running.map(|(section, bench)| (section, bench.wait_with_output().expect("its end")));
    for (section, output) in ended {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{section}: {said}");
        let report: Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
        let sections = report["sections"].as_array().expect("sections");
        assert!(sections.len() == 1 && sections[0]["name"] == section, "{report}");
        let lines = sections[0]["lines"].as_array().expect("lines");
        assert!(!lines.is_empty() && lines.iter().all(|line| line["figures"].is_object()), "{report}");
    }
}
