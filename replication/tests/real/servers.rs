//! Servers for the tests, shared by all of them.

use std::sync::atomic::{AtomicU32, Ordering};

use millrace_replication::clickhouse::{Clickhouse, ClickhouseConfig, ClickhouseTls, InsertCompression};
use millrace_replication::postgres::{self, Session, SourceConfig, Tls, TlsMode};
use secrecy::SecretString;

/// The `application_name` of the tests' sessions, as a mirror's.
pub const APPLICATION: &str = "millrace/a1b2c3/test";

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
        let admin = config("postgres");
        let session = postgres::dial(&admin, "test").await.unwrap();
        session.batch_execute(&format!("create database {word}")).await.unwrap();
        let config = config(&word);
        let sql = postgres::dial(&config, "test").await.unwrap();
        sql.batch_execute("set search_path = public").await.unwrap();
        Self { config, sql, word }
    }

    pub async fn run(&self, sql: &str) {
        self.sql.batch_execute(sql).await.unwrap();
    }

    pub async fn session(&self) -> Session {
        let session = postgres::dial(&self.config, APPLICATION).await.unwrap();
        session.batch_execute("set search_path = public").await.unwrap();
        session
    }
}

/// A database of the name on the shared destination.
pub async fn destination(database: &str) -> Clickhouse {
    let config = ClickhouseConfig {
        url: std::env::var("MILLRACE_TEST_CLICKHOUSE").unwrap_or("http://127.0.0.1:15123".into()),
        user: "default".into(),
        password: SecretString::from(String::new()),
        database: database.into(),
        tls: ClickhouseTls::default(),
        compression: InsertCompression::Auto,
    };
    let clickhouse = Clickhouse::connect(&config).await.unwrap();
    clickhouse.create_database("").await.unwrap();
    clickhouse
}

fn config(database: &str) -> SourceConfig {
    let port = std::env::var("MILLRACE_TEST_PORT").unwrap_or("15555".into()).parse().unwrap();
    SourceConfig {
        host: "127.0.0.1".into(),
        port,
        user: "postgres".into(),
        password: SecretString::from(String::new()),
        database: database.into(),
        tls: Tls { mode: TlsMode::Prefer, ..Tls::default() },
    }
}
