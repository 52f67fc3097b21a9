//! The embedded ClickHouse against clients that nobody here wrote: the official `clickhouse` crate,
//! `clickhouse-connect` of PyPI, and curl.

mod crate_client;
mod curl;
mod python;
mod restart;

use std::path::Path;
use std::sync::OnceLock;

use millrace_embedded::scratch;

use crate::free_port;

const USER: &str = "millrace";
const PASSWORD: &str = "s3cret";

/// `host:port` of the server that the tests share: a process that dies with this one.
fn address() -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            tokio::runtime::Runtime::new().unwrap().block_on(async {
                let dir = scratch::dir(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("clickhouse")).unwrap();
                let port = free_port();
                let _server = restart::start(&dir, port).await;
                sender.send(format!("127.0.0.1:{port}")).unwrap();
                std::future::pending::<()>().await;
            });
        });
        receiver.recv().unwrap()
    })
}

/// The official client, with its default compression.
fn client() -> clickhouse::Client {
    clickhouse::Client::default()
        .with_url(format!("http://{}", address()))
        .with_user(USER)
        .with_password(PASSWORD)
}

/// Makes a database for one test and returns a client in it.
async fn database(name: &str) -> clickhouse::Client {
    client().query(&format!("CREATE DATABASE {name}")).execute().await.unwrap();
    client().with_database(name)
}
