//! A database for each test on one cluster, which dies with the test process.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use millrace_catalog::mirrors::{NewMirror, NewStream, NewTable};
use millrace_catalog::peers::CreateOptions;
use millrace_catalog::spec::{
    ClickhousePeer, MirrorSpec, Mode, PeerConfig, PeerSpec, PostgresPeer, RULES, Secret, Settings, TableSpec,
};
use millrace_catalog::{Catalog, SecretKeys, migrate};
use millrace_embedded::cache::Cache;
use millrace_embedded::{postgres, scratch};
use millrace_terms::TableName;

pub const PASSWORD: &str = "hunter2-hunter2";

static CLUSTER: OnceLock<String> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The URL of the shared cluster. Its process is tied to the life of the thread that started it, so
/// that thread waits for ever.
fn cluster() -> &'static str {
    CLUSTER.get_or_init(|| {
        let (ready, url) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let dir = scratch::dir(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("catalog")).unwrap();
            let settings = postgres::Settings {
                name: "catalog".into(),
                dir: dir.join("data"),
                port: TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(),
                password: PASSWORD.into(),
                log: dir.join("postgres.log"),
                parameters: BTreeMap::from([("fsync".to_owned(), "off".to_owned())]),
            };
            let binaries = postgres::install(&Cache::open().unwrap()).unwrap();
            tokio::runtime::Runtime::new().unwrap().block_on(async {
                let _cluster = postgres::Cluster::start(&binaries, &settings).await.unwrap();
                ready.send(settings.url()).unwrap();
                std::future::pending::<()>().await;
            });
        });
        url.recv().unwrap()
    })
}

/// The URL of a new, empty database.
pub async fn empty() -> String {
    let cluster = tokio::task::spawn_blocking(cluster).await.unwrap();
    let name = format!("catalog_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    let (client, connection) = tokio_postgres::connect(cluster, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("create database {name}")).await.unwrap();
    cluster.replace("/postgres", &format!("/{name}"))
}

pub fn keys(text: &str) -> SecretKeys {
    SecretKeys::parse(text).unwrap()
}

/// A catalog with the peers `pg` and `ch`.
pub async fn catalog() -> Catalog {
    let url = empty().await;
    migrate(&url).await.unwrap();
    let catalog = Catalog::connect(&url, keys(&SecretKeys::generate())).await.unwrap();
    for peer in [source(), destination()] {
        catalog.create_peer(&peer, &CreateOptions::default()).await.unwrap();
    }
    catalog
}

/// A second statement by other means than the catalog's own.
pub async fn raw(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub fn source() -> PeerSpec {
    PeerSpec {
        name: "pg".into(),
        config: PeerConfig::Postgres(PostgresPeer {
            host: "localhost".into(),
            port: 5432,
            user: "u".into(),
            password: Secret::new(PASSWORD),
            database: "d".into(),
            tls: Default::default(),
        }),
    }
}

pub fn destination() -> PeerSpec {
    PeerSpec {
        name: "ch".into(),
        config: PeerConfig::Clickhouse(ClickhousePeer {
            url: "http://localhost:8123".into(),
            user: "default".into(),
            password: Secret::default(),
            database: "d".into(),
            cluster: String::new(),
            tls: Default::default(),
            max_inserts_per_second: 50,
            max_concurrent_inserts: 4,
        }),
    }
}

/// A mirror of `tables` tables `public.t0`, `public.t1`, …
pub fn mirror(name: &str, tables: u32) -> NewMirror {
    let names: Vec<TableName> = (0..tables).map(|n| TableName::new("public", format!("t{n}"))).collect();
    NewMirror {
        spec: MirrorSpec {
            name: name.into(),
            source: "pg".into(),
            destination: "ch".into(),
            mode: Mode::SnapshotAndStream,
            tables: names.iter().map(|name| TableSpec::new(name.to_string())).collect(),
            settings: Settings::default(),
        },
        rules: RULES,
        streams: vec![NewStream { slot: format!("slot_{name}"), publication: format!("pub_{name}") }],
        tables: names
            .into_iter()
            .zip(1..)
            .map(|(source, oid)| NewTable {
                stream: 0,
                destination: source.name.clone(),
                source,
                oid,
                plan: serde_json::json!({"oid": oid}),
                rows_estimated: 1_000,
                bytes_total: 8_192,
            })
            .collect(),
    }
}
