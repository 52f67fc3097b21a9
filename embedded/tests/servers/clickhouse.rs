//! The embedded ClickHouse against clients that nobody here wrote: the official `clickhouse` crate,
//! `clickhouse-connect` of PyPI, and curl.

mod crate_client;
mod curl;
mod python;
mod restart;

use std::sync::OnceLock;

use millrace_embedded::cache::Cache;
use millrace_embedded::clickhouse::{Settings, install, serve};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const USER: &str = "millrace";
const PASSWORD: &str = "s3cret";

/// `host:port` of the one server of this process: there can be one engine in a process.
fn address() -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let library = install(&Cache::open().unwrap()).unwrap();
                let dir = tempfile::tempdir().unwrap();
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap().to_string()).unwrap();
                let settings = Settings {
                    library,
                    dir: dir.path().join("clickhouse"),
                    user: USER.to_owned(),
                    password: PASSWORD.to_owned(),
                };
                serve(listener, settings, CancellationToken::new()).await.unwrap();
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
