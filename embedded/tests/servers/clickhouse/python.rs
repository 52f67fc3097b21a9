//! `clickhouse-connect`, the official Python client.

use std::path::Path;
use std::process::Command;

use super::{PASSWORD, USER, address};

const CLIENT: &str = "clickhouse-connect==1.12.0";

const SCRIPT: &str = r#"
import sys, clickhouse_connect
from clickhouse_connect.driver.exceptions import DatabaseError
host, port, user, password = sys.argv[1:]
def connect(**kw):
    return clickhouse_connect.get_client(host=host, port=int(port), username=user, password=password, **kw)
client = connect()
assert client.server_version.startswith("26.7"), client.server_version
client.command("CREATE DATABASE python")
client.command("CREATE TABLE python.t (a Int64, b Nullable(String), c DateTime64(6)) ENGINE = MergeTree ORDER BY a")
from datetime import datetime
rows = [[i, None if i % 3 == 0 else f"v{i}", datetime(2026, 1, 2, 3, 4, 5, i)] for i in range(100000)]
for compress in (True, False, "lz4", "gzip"):
    client = connect(compress=compress, database="python")
    client.command("TRUNCATE TABLE t")
    client.insert("t", rows, column_names=["a", "b", "c"])
    result = client.query("SELECT * FROM t ORDER BY a")
    assert len(result.result_rows) == len(rows), len(result.result_rows)
    assert [[a, b, c.replace(tzinfo=None)] for a, b, c in result.result_rows[:7]] == rows[:7], result.result_rows[:7]
    assert client.query("SELECT count() FROM t WHERE a < {n:Int64}", parameters={"n": 10}).result_rows == [(10,)]
try:
    client.query("SELECT * FROM nowhere")
    raise SystemExit("no error")
except DatabaseError as error:
    assert "UNKNOWN_TABLE" in str(error), error
print("fine")
"#;

#[test]
fn clickhouse_connect_works() {
    let remedy = "install python3 with venv, and let pip reach PyPI";
    let dir = tempfile::tempdir().unwrap();
    if let Err(why) = install(dir.path()) {
        assert!(std::env::var_os("CI").is_none(), "clickhouse-connect cannot be tried: {why}; {remedy}");
        eprintln!("clickhouse_connect_works: skipped: {why}; {remedy}");
        return;
    }
    let (host, port) = address().split_once(':').unwrap();
    let output = Command::new(dir.path().join("bin/python"))
        .args(["-c", SCRIPT, host, port, USER, PASSWORD])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn install(dir: &Path) -> Result<(), String> {
    run(Command::new("python3").args(["-m", "venv"]).arg(dir))?;
    run(Command::new(dir.join("bin/python")).args(["-m", "pip", "install", "--quiet", CLIENT]))
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(error.to_string()),
    }
}
