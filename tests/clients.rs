//! Stock clients in another language, from PyPI: a gRPC client that knows nothing but the address, and
//! schemathesis, which makes requests out of the OpenAPI document.
//!
//! They need `python3` and PyPI. Where these are missing, the tests say so and show nothing.

use std::path::{Path, PathBuf};
use std::process::Output;

use libtest_mimic::Trial;
use tokio::process::Command;

use crate::support::bed::Bed;
use crate::support::cell::Cell;
use crate::support::{stack, test};

pub fn tests() -> Vec<Trial> {
    vec![
        test("clients::python_by_reflection", python_by_reflection),
        test("clients::schemathesis_finds_no_5xx", schemathesis_finds_no_5xx),
    ]
}

/// What is installed: fixed versions, so that a release of somebody else's changes no result.
const GRPC: [&str; 2] = ["grpcio==1.85.1", "grpcio-reflection==1.85.1"];
const SCHEMATHESIS: [&str; 1] = ["schemathesis==4.32.5"];
/// Asks for the tests that take minutes.
const LONG: &str = "MILLRACE_TEST_LONG";
/// Requests that schemathesis makes of each method at most, for each of its phases.
const EXAMPLES: &str = "25";

/// A Python environment with these packages; none where that cannot be had, which is said.
async fn python(dir: &Path, packages: &[&str]) -> Option<PathBuf> {
    let venv = dir.join("venv");
    let made = run(Command::new("python3").args(["-m", "venv"]).arg(&venv)).await;
    let installed = match made {
        Ok(_) => {
            let mut pip = Command::new(venv.join("bin/pip"));
            run(pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(packages)).await
        }
        missing => missing,
    };
    match installed {
        Ok(_) => Some(venv.join("bin")),
        Err(why) => {
            eprintln!("SKIPPED, nothing is shown: {packages:?} cannot be installed here: {why}");
            None
        }
    }
}

async fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().await.map_err(|error| error.to_string())?;
    if output.status.success() { Ok(output) } else { Err(told(&output)) }
}

fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}", text(&output.stdout), text(&output.stderr))
}

async fn python_by_reflection(bed: Bed) {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(bin) = python(dir.path(), &GRPC).await else { return };
    bed.sql("create table t (id int primary key); insert into t select generate_series(1, 1000)").await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/clients/life.py");
    let address = stack::endpoints().grpc.strip_prefix("http://").expect("an http URL").to_owned();
    let done = run(Command::new(bin.join("python")).arg(script).args([&address, &bed.name])).await;
    done.unwrap_or_else(|told| panic!("{told}"));
}

/// Requests of every kind, right and wrong ones: none may be answered with a failure of the server. On an
/// installation of its own, because it deletes what it finds.
async fn schemathesis_finds_no_5xx(mut bed: Bed) {
    if std::env::var_os(LONG).is_none() {
        eprintln!("SKIPPED, nothing is shown: it takes minutes, and runs with {LONG}=1");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let Some(bin) = python(dir.path(), &SCHEMATHESIS).await else { return };
    bed.sql("create table t (id int primary key); insert into t values (1)").await;
    let cell = Cell::new(&mut bed).await;
    let _worker = cell.worker().await;
    bed.mirror_streaming(&["public.t"]).await;
    // Names that exist, so that it comes past "not found"; without what would delete them at once.
    let names = format!(
        "[[operations]]\ninclude-path-regex = '/v1/mirrors/.*'\nparameters = {{ 'path.name' = '{0}', 'path.table' = 'public.t' }}\n\
         [[operations]]\ninclude-path-regex = '/v1/peers/.*'\nparameters = {{ 'path.name' = '{0}-pg' }}\n",
        bed.name
    );
    std::fs::write(dir.path().join("schemathesis.toml"), names).expect("its settings");
    for left_out in ["Apply|Delete|Drop|Watch", "Watch"] {
        schemathesis(&bin, dir.path(), &cell, left_out).await;
    }
}

async fn schemathesis(bin: &Path, dir: &Path, cell: &Cell, left_out: &str) {
    let mut schemathesis = Command::new(bin.join("schemathesis"));
    schemathesis
        .arg("run")
        .arg(format!("{}/openapi.json", cell.http))
        .args(["--checks", "not_a_server_error,content_type_conformance,response_schema_conformance"])
        .args(["--max-examples", EXAMPLES, "--seed", "1", "--suppress-health-check", "all"])
        .args(["--request-timeout", "100", "--exclude-operation-id-regex", left_out])
        .current_dir(dir);
    let done = run(&mut schemathesis).await;
    done.unwrap_or_else(|told| panic!("{told}"));
}
