//! Servers for the tests, shared by all of them: the embedded PostgreSQL and ClickHouse, started by
//! the first test that asks.

use std::net::TcpListener;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use millrace_embedded::cache::Cache;
use millrace_embedded::process::{Process, Spec};
use millrace_embedded::{clickhouse, postgres as embedded_postgres, scratch};
use millrace_replication::clickhouse::{Clickhouse, ClickhouseConfig, ClickhouseTls, InsertCompression};
use millrace_replication::postgres::{self, Session, SourceConfig, Tls, TlsMode};
use tokio_util::sync::CancellationToken;

/// The `application_name` of the tests' sessions, as a mirror's.
pub const APPLICATION: &str = "millrace/a1b2c3/test";

const PASSWORD: &str = "it's a \"secret\"";

/// Longest wait for the engine: the first start downloads nothing, but the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

const ENGINE_DIR: &str = "MILLRACE_TEST_ENGINE_DIR";
const ENGINE_PORT: &str = "MILLRACE_TEST_ENGINE_PORT";

static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A database of its own on the shared source.
pub struct Source {
    pub config: SourceConfig,
    /// A session for the test's own statements.
    pub sql: Session,
    /// A word that is this test's alone, for names of objects of the whole cluster.
    pub word: String,
}

impl Source {
    pub async fn new() -> Self {
        let word = format!("t{}_{}", std::process::id(), DATABASES.fetch_add(1, Ordering::Relaxed));
        let session = postgres::dial(&source("postgres"), "test").await.unwrap();
        session.batch_execute(&format!("create database {word}")).await.unwrap();
        let config = source(&word);
        let sql = postgres::dial(&config, "test").await.unwrap();
        sql.batch_execute("set search_path = public").await.unwrap();
        Self { config, sql, word }
    }

    pub async fn run(&self, sql: &str) {
        self.sql.batch_execute(sql).await.unwrap();
    }

    /// A session as the product has it, without a search path.
    pub async fn plain_session(&self) -> Session {
        postgres::dial(&self.config, APPLICATION).await.unwrap()
    }

    pub async fn session(&self) -> Session {
        let session = self.plain_session().await;
        session.batch_execute("set search_path = public").await.unwrap();
        session
    }
}

/// A PostgreSQL of the test's own, for what is a setting of the whole cluster, and the address of its database.
pub async fn own_cluster(name: &str) -> (embedded_postgres::Cluster, SourceConfig) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("replication").join(std::process::id().to_string());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = embedded_postgres::Settings {
        name: name.into(),
        dir: dir.join(name),
        port,
        password: PASSWORD.into(),
        log: dir.join(format!("{name}.log")),
        parameters: embedded_postgres::Settings::source_parameters(),
    };
    std::fs::create_dir_all(&dir).unwrap();
    let installed = embedded_postgres::install(&Cache::open().unwrap()).unwrap();
    let cluster = embedded_postgres::Cluster::start(&installed, &settings).await.unwrap();
    (cluster, source_at(port, "postgres"))
}

fn source(database: &str) -> SourceConfig {
    source_at(servers().source_port, database)
}

fn source_at(port: u16, database: &str) -> SourceConfig {
    SourceConfig {
        host: "127.0.0.1".into(),
        port,
        user: embedded_postgres::USER.into(),
        password: PASSWORD.into(),
        database: database.into(),
        tls: Tls { mode: TlsMode::Prefer, ..Tls::default() },
        addresses: Default::default(),
    }
}

/// How to reach a database on the shared ClickHouse. It need not exist.
pub fn sink(database: &str) -> ClickhouseConfig {
    ClickhouseConfig {
        url: format!("http://127.0.0.1:{}", servers().clickhouse_port),
        user: "millrace".into(),
        password: PASSWORD.into(),
        database: database.into(),
        tls: ClickhouseTls::default(),
        compression: InsertCompression::Auto,
        addresses: Default::default(),
    }
}

/// A database of the name on the shared ClickHouse.
pub async fn destination(database: &str) -> Clickhouse {
    let clickhouse = Clickhouse::connect(&sink(database)).await.unwrap();
    clickhouse.create_database("").await.unwrap();
    clickhouse
}

struct Servers {
    source_port: u16,
    clickhouse_port: u16,
}

/// Every test has a runtime of its own; the servers must outlive them all.
fn servers() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    SERVERS.get_or_init(|| {
        let (ready, started) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(run(ready));
        });
        started.recv().expect("the servers start")
    })
}

async fn run(ready: mpsc::Sender<Servers>) {
    let dir = scratch::dir(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("replication")).unwrap();
    let cache = Cache::open().unwrap();
    let mut parameters = embedded_postgres::Settings::source_parameters();
    // Every test leaves its slots behind: the server is thrown away.
    parameters.insert("max_replication_slots".into(), "500".into());
    let settings = embedded_postgres::Settings {
        name: "source".into(),
        dir: dir.join("source"),
        port: free_port(),
        password: PASSWORD.into(),
        log: dir.join("source.log"),
        parameters,
    };
    let binaries = embedded_postgres::install(&cache).unwrap();
    let _source = embedded_postgres::Cluster::start(&binaries, &settings).await.unwrap();
    let clickhouse_port = free_port();
    let engine = Spec::new("clickhouse", std::env::current_exe().unwrap(), dir.join("clickhouse.log"))
        .args(["--exact", "servers::engine", "--nocapture"])
        .env(ENGINE_DIR, dir.join("clickhouse"))
        .env(ENGINE_PORT, clickhouse_port.to_string());
    let mut engine = Process::spawn(engine).unwrap();
    let probe = async || tokio::net::TcpStream::connect(("127.0.0.1", clickhouse_port)).await.is_ok();
    engine.ready(PATIENCE, probe).await.unwrap();
    ready.send(Servers { source_port: settings.port, clickhouse_port }).unwrap();
    std::future::pending::<()>().await;
}

/// Not a test by itself: the engine, when this binary is started by [`run`]. A process of its own,
/// because the library's threads outlive `main` and fall over what it tears down.
#[tokio::test(flavor = "multi_thread")]
async fn engine() {
    let (Ok(dir), Ok(port)) = (std::env::var(ENGINE_DIR), std::env::var(ENGINE_PORT)) else { return };
    let library =
        tokio::task::spawn_blocking(|| clickhouse::install(&Cache::open()?)).await.unwrap().unwrap();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port.parse().unwrap())).await.unwrap();
    let settings =
        clickhouse::Settings { library, dir: dir.into(), user: "millrace".into(), password: PASSWORD.into() };
    clickhouse::serve(listener, settings, CancellationToken::new()).await.unwrap();
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
