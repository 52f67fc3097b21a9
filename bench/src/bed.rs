//! What is measured: a `millrace dev` of our own, and the sessions to its parts. I/O.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clickhouse::Client as Clickhouse;
use millrace_embedded::process::{Process, Spec};
use nix::sys::signal::Signal;
use serde::Deserialize;
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls};

use crate::api::Api;
use crate::{Scope, say};

/// Longest wait for the stack: on a bare machine it fetches its parts and builds Temporal.
const START_LIMIT: Duration = Duration::from_secs(1_200);
/// Longest wait for its end: the contract says 30 s.
const STOP_LIMIT: Duration = Duration::from_secs(40);
/// Longest wait for anything that is measured.
pub const LIMIT: Duration = Duration::from_secs(900);
/// Database on both sides.
pub const DATABASE: &str = "bench";

/// `endpoints.json` of `millrace dev`, as far as we need it.
#[derive(Debug, Clone, Deserialize)]
pub struct Endpoints {
    grpc: String,
    source: String,
    clickhouse: String,
    catalog: String,
    pub pids: Pids,
}

/// The processes themselves.
#[derive(Debug, Clone, Deserialize)]
pub struct Pids {
    pub server: u32,
    pub workers: Vec<u32>,
    pub temporal: u32,
    pub clickhouse: u32,
    pub catalog: u32,
    pub source: u32,
}

/// A running `millrace dev`.
#[derive(Debug)]
pub struct Stack {
    endpoints: Endpoints,
    process: Process,
    /// Removed at the end.
    directory: tempfile::TempDir,
}

impl Stack {
    /// Where its parts are.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Looks again where they are: what was killed was started again.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn look_again(&mut self) -> anyhow::Result<()> {
        self.endpoints = read_endpoints(self.directory.path())?;
        Ok(())
    }
}

/// A stack with a database on both sides.
#[derive(Debug)]
pub struct Bed {
    pub stack: Stack,
    pub api: Api,
    /// A session in the source's database.
    pub source: Client,
    /// How others are opened.
    pub source_config: tokio_postgres::Config,
    pub clickhouse: Sql,
}

impl Bed {
    /// Starts a stack with so many workers.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(scope: &Scope, workers: usize) -> anyhow::Result<Self> {
        let stack = start(scope, workers).await?;
        let mut source_config: tokio_postgres::Config = stack.endpoints.source.parse()?;
        let admin = connect(&source_config).await?;
        // A checkpoint in the middle of a measurement would be noise.
        admin.batch_execute("alter system set max_wal_size = '16GB'").await?;
        admin.batch_execute("alter system set checkpoint_timeout = '1h'").await?;
        admin.batch_execute("select pg_reload_conf()").await?;
        admin.batch_execute(&format!("create database {DATABASE}")).await?;
        source_config.dbname(DATABASE).application_name("bench");
        let source = connect(&source_config).await?;
        let clickhouse = Sql::new(&stack.endpoints.clickhouse)?;
        clickhouse.execute(&format!("create database if not exists {DATABASE}")).await?;
        let mut api = Api::connect(&stack.endpoints.grpc).await?;
        let named = clickhouse.url.replace("127.0.0.1", &scope.clickhouse_host);
        api.create_peers(&source_config, &Sql { url: named, ..clickhouse.clone() }).await?;
        Ok(Self { stack, api, source, source_config, clickhouse })
    }

    /// Another session in the source's database.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub async fn session(&self) -> anyhow::Result<Client> {
        connect(&self.source_config).await
    }

    /// A session in the catalog.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub async fn catalog(&self) -> anyhow::Result<Client> {
        connect(&self.stack.endpoints.catalog.parse()?).await
    }

    /// Stops everything.
    pub async fn stop(mut self) {
        drop(self.source);
        self.stack.process.stop(Signal::SIGTERM, STOP_LIMIT).await;
    }

    /// One value of the source, as text.
    ///
    /// # Errors
    /// The source's.
    pub async fn value(&self, sql: &str) -> anyhow::Result<String> {
        let row = self.source.query_one(&format!("select ({sql})::text"), &[]).await?;
        Ok(row.get::<_, Option<String>>(0).unwrap_or_default())
    }
}

async fn start(scope: &Scope, workers: usize) -> anyhow::Result<Stack> {
    let directory = tempfile::Builder::new().prefix("millrace-bench-").tempdir()?;
    let state = directory.path().to_owned();
    let log = state.join("dev.log");
    let spec = Spec::new("millrace dev", &scope.binary, &log)
        .args(["dev".into(), "--state-dir".into(), state.clone().into_os_string()])
        .args(["--restart".to_owned(), "--workers".to_owned(), workers.to_string()]);
    say(&format!("starting a stack with {workers} workers in {}", state.display()));
    let mut process = Process::spawn(Spec { death_signal: Signal::SIGTERM, ..spec })?;
    let file = state.join("endpoints.json");
    process.ready(START_LIMIT, || std::future::ready(file.exists())).await?;
    Ok(Stack { endpoints: read_endpoints(&state)?, process, directory })
}

fn read_endpoints(state: &Path) -> anyhow::Result<Endpoints> {
    let file: PathBuf = state.join("endpoints.json");
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    serde_json::from_str(&text).context("endpoints.json")
}

async fn connect(config: &tokio_postgres::Config) -> anyhow::Result<Client> {
    let (client, connection) = config.connect(NoTls).await.context("connecting to the source")?;
    // Its error is seen by the client's next call.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

/// ClickHouse, as one asks it by hand.
#[derive(Clone)]
pub struct Sql {
    client: Clickhouse,
    pub url: String,
    pub user: String,
    pub password: String,
}

impl std::fmt::Debug for Sql {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sql").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Sql {
    fn new(url: &str) -> anyhow::Result<Self> {
        let parts = url.strip_prefix("http://").and_then(|rest| rest.split_once('@'));
        let (credentials, host) = parts.context("ClickHouse's URL")?;
        let (user, password) = credentials.split_once(':').context("ClickHouse's URL")?;
        let url = format!("http://{host}");
        let client = Clickhouse::default().with_url(&url).with_user(user).with_password(password);
        Ok(Self { client, url, user: user.to_owned(), password: password.to_owned() })
    }

    /// Runs a statement.
    ///
    /// # Errors
    /// The server's.
    pub async fn execute(&self, sql: &str) -> anyhow::Result<()> {
        self.client.query_raw(sql).execute().await.with_context(|| sql.to_owned())
    }

    /// What a query prints, without the end of its last line.
    ///
    /// # Errors
    /// The server's.
    pub async fn text(&self, sql: &str) -> anyhow::Result<String> {
        let mut answer = self.client.query_raw(sql).fetch_bytes("TabSeparatedRaw")?;
        let bytes = answer.collect().await.with_context(|| sql.to_owned())?;
        Ok(String::from_utf8(bytes.into())?.trim_end().to_owned())
    }

    /// Asks until the answer is as wanted, and returns when it was asked for the last time.
    ///
    /// # Errors
    /// The server's, except that a table is not there yet, and `LIMIT`.
    pub async fn wait(
        &self,
        sql: &str,
        pause: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> anyhow::Result<Instant> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let asked = Instant::now();
            match self.text(sql).await {
                Ok(text) if wanted(&text) => return Ok(asked),
                Ok(text) if asked > deadline => bail!("{sql} is still {text}"),
                Err(error) if !format!("{error:#}").contains("UNKNOWN_") => return Err(error),
                _ => tokio::time::sleep(pause).await,
            }
        }
    }
}
