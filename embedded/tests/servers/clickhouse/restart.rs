//! Killed and started again on the same directory: what was acknowledged is there.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use millrace_embedded::cache::Cache;
use millrace_embedded::clickhouse::{Settings, install, serve};
use millrace_embedded::process::{Process, Spec};
use nix::sys::signal::Signal;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{PASSWORD, USER};
use crate::free_port;

const DIR: &str = "MILLRACE_TEST_CLICKHOUSE_DIR";
const PORT: &str = "MILLRACE_TEST_CLICKHOUSE_PORT";

/// Not a test by itself: the server, when this binary is started by the test below.
#[tokio::test]
async fn server() {
    let (Ok(dir), Ok(port)) = (std::env::var(DIR), std::env::var(PORT)) else { return };
    let library = tokio::task::spawn_blocking(|| install(&Cache::open()?)).await.unwrap().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", port.parse().unwrap())).await.unwrap();
    let settings =
        Settings { library, dir: dir.into(), user: USER.to_owned(), password: PASSWORD.to_owned() };
    serve(listener, settings, CancellationToken::new()).await.unwrap();
}

pub async fn start(dir: &Path, port: u16) -> (Process, clickhouse::Client) {
    let spec = Spec::new("clickhouse", std::env::current_exe().unwrap(), dir.join("log"))
        .args(["--exact", "clickhouse::restart::server", "--nocapture"])
        .env(DIR, dir.join("data"))
        .env(PORT, port.to_string());
    let mut process = Process::spawn(spec).unwrap();
    let client = clickhouse::Client::default()
        .with_url(format!("http://127.0.0.1:{port}"))
        .with_user(USER)
        .with_password(PASSWORD);
    let probe = async || client.query("SELECT 1").fetch_one::<u8>().await.is_ok();
    process.ready(Duration::from_secs(60), probe).await.unwrap();
    (process, client)
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut acknowledged = BTreeSet::new();
    for round in 0..3_u32 {
        let (mut process, client) = start(dir.path(), port).await;
        let table = "CREATE TABLE IF NOT EXISTS t (a UInt32, v UInt128, d UInt8) ENGINE = ReplacingMergeTree(v, d) ORDER BY a";
        client.query(table).execute().await.unwrap();
        let found: Vec<u32> = client.query("SELECT a FROM t FINAL").fetch_all().await.unwrap();
        let found: BTreeSet<u32> = found.into_iter().collect();
        assert!(acknowledged.is_subset(&found), "round {round}: {} of {}", found.len(), acknowledged.len());
        let writers = (0..4_u32).map(|writer| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut done = Vec::new();
                for i in 0.. {
                    let a = round << 24 | writer << 16 | i;
                    let sql = format!("INSERT INTO t VALUES ({a}, 1, 0)");
                    if client.query(&sql).execute().await.is_err() {
                        break;
                    }
                    done.push(a);
                }
                done
            })
        });
        let writers: Vec<_> = writers.collect();
        tokio::time::sleep(Duration::from_millis(700)).await;
        process.signal(Signal::SIGKILL);
        process.wait().await;
        for writer in writers {
            acknowledged.extend(writer.await.unwrap());
        }
    }
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
}
