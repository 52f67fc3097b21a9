//! The processes of the stack: how each is started, known to be ready, and stopped.
//!
//! I/O rim.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use millrace_embedded::cache::Cache;
use millrace_embedded::postgres::{self, Binaries, Cluster};
use millrace_embedded::process::{Process, Spec};
use millrace_embedded::{clickhouse, temporal};
use nix::sys::signal::Signal;
use tokio_postgres::NoTls;

use super::endpoints::{CATALOG_DATABASE, CLICKHOUSE_USER, Endpoints, Pids};
use super::state::State;
use crate::embedded_clickhouse::PASSWORD_VARIABLE;
use crate::health::is_well;

/// Longest wait for one of our own processes to be ready: debug builds on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Longest wait for a worker's end: it drains what is in flight. Together with the two limits below
/// and those of the databases it stays under the 30 s that a stop may take.
const WORKER_STOP_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for the server's end.
const SERVER_STOP_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for ClickHouse's end.
const CLICKHOUSE_STOP_LIMIT: Duration = Duration::from_secs(8);

/// Search attributes of our workflows.
const SEARCH_ATTRIBUTES: [&str; 2] = ["MirrorName", "MirrorState"];

/// Variables of our own that reach the processes: everything else that begins like them would be
/// another installation's.
const PASSED_ON: [&str; 3] = ["MILLRACE_LOG", "MILLRACE_LOG_FORMAT", "MILLRACE_CACHE"];

/// A process of the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Source,
    Catalog,
    Temporal,
    Clickhouse,
    Server,
    Worker(usize),
}

impl Part {
    /// Its name in logs and messages.
    pub fn name(self) -> String {
        match self {
            Part::Source => "source".to_owned(),
            Part::Catalog => "catalog".to_owned(),
            Part::Temporal => "temporal".to_owned(),
            Part::Clickhouse => "clickhouse".to_owned(),
            Part::Server => "server".to_owned(),
            Part::Worker(n) => format!("worker-{n}"),
        }
    }

    /// What stops it in order, and how long that may take.
    pub fn stop(self) -> (Signal, Duration) {
        match self {
            Part::Source | Part::Catalog => (postgres::STOP_SIGNAL, postgres::STOP_LIMIT),
            Part::Temporal => (temporal::STOP_SIGNAL, temporal::STOP_LIMIT),
            Part::Clickhouse => (Signal::SIGTERM, CLICKHOUSE_STOP_LIMIT),
            Part::Server => (Signal::SIGTERM, SERVER_STOP_LIMIT),
            Part::Worker(_) => (Signal::SIGTERM, WORKER_STOP_LIMIT),
        }
    }
}

/// What every part is started from.
#[derive(Debug)]
pub struct Ground {
    pub state: State,
    postgres: Binaries,
    temporal: PathBuf,
    library: PathBuf,
    millrace: PathBuf,
}

impl Ground {
    /// Fetches or builds what is missing on this machine. Blocks.
    ///
    /// # Errors
    /// EMBEDDED_UNAVAILABLE with the remedy.
    pub fn prepare(state: State) -> anyhow::Result<Self> {
        let cache = Cache::open()?;
        // First the one that may need a person's help, before 200 MB are fetched.
        let temporal = temporal::install(&cache)?;
        let postgres = postgres::install(&cache)?;
        let library = clickhouse::install(&cache)?;
        let millrace = std::env::current_exe().context("finding our own executable")?;
        Ok(Self { state, postgres, temporal, library, millrace })
    }

    /// Where everything is.
    pub fn endpoints(&self, workers: usize, pids: Pids) -> Endpoints {
        Endpoints::new(self.state.choices(), workers, pids)
    }

    /// Starts a part and waits until it is ready.
    ///
    /// # Errors
    /// EMBEDDED_UNAVAILABLE with the end of its log.
    pub async fn start(&self, part: Part) -> anyhow::Result<Process> {
        let ports = &self.state.choices().ports;
        match part {
            Part::Source => self.cluster(part, ports.source, postgres::Settings::source_parameters()).await,
            Part::Catalog => self.cluster(part, ports.catalog, Default::default()).await,
            Part::Temporal => {
                let settings = temporal::Settings {
                    database: self.state.path("temporal.db"),
                    port: ports.temporal,
                    ui_port: ports.temporal_ui,
                    log: self.state.log(&part.name()),
                    search_attributes: SEARCH_ATTRIBUTES.map(str::to_owned).into(),
                };
                Ok(temporal::Server::start(&self.temporal, &settings).await?.into_process())
            }
            Part::Clickhouse => {
                let url = format!("http://127.0.0.1:{}/ping", ports.clickhouse);
                self.ready(self.clickhouse(), &url).await
            }
            Part::Server => {
                let spec = self
                    .ours("server", &part.name())
                    .env("MILLRACE_GRPC_LISTEN", format!("127.0.0.1:{}", ports.grpc))
                    .env("MILLRACE_HTTP_LISTEN", format!("127.0.0.1:{}", ports.http))
                    .env("MILLRACE_METRICS_LISTEN", format!("127.0.0.1:{}", ports.server_metrics));
                self.ready(spec, &format!("http://127.0.0.1:{}/readyz", ports.http)).await
            }
            Part::Worker(n) => {
                let port = ports.worker_metrics[n];
                let spec = self
                    .ours("worker", &part.name())
                    .env("MILLRACE_METRICS_LISTEN", format!("127.0.0.1:{port}"));
                self.ready(spec, &format!("http://127.0.0.1:{port}/readyz")).await
            }
        }
    }

    async fn ready(&self, spec: Spec, url: &str) -> anyhow::Result<Process> {
        let mut process = Process::spawn(spec)?;
        process.ready(START_LIMIT, || is_well(url)).await?;
        Ok(process)
    }

    async fn cluster(
        &self,
        part: Part,
        port: u16,
        parameters: std::collections::BTreeMap<String, String>,
    ) -> anyhow::Result<Process> {
        let settings = postgres::Settings {
            name: part.name(),
            dir: self.state.path(&part.name()),
            port,
            password: self.state.choices().postgres_password.clone(),
            log: self.state.log(&part.name()),
            parameters,
        };
        Ok(Cluster::start(&self.postgres, &settings).await?.into_process())
    }

    fn clickhouse(&self) -> Spec {
        let choices = self.state.choices();
        let name = Part::Clickhouse.name();
        let listen = format!("127.0.0.1:{}", choices.ports.clickhouse);
        self.own(Spec::new(&name, &self.millrace, self.state.log(&name)))
            .args(["embedded-clickhouse", "--user", CLICKHOUSE_USER, "--listen", &listen])
            .args(["--library".into(), self.library.clone().into_os_string()])
            .args(["--dir".into(), self.state.path(&name).into_os_string()])
            .env(PASSWORD_VARIABLE, &choices.clickhouse_password)
            // The engine's time zone is the machine's otherwise, and with it what tests see.
            .env("TZ", "UTC")
    }

    /// A process of ours that works on the catalog.
    fn ours(&self, command: &str, name: &str) -> Spec {
        let endpoints = self.endpoints(0, Pids::default());
        self.own(Spec::new(name, &self.millrace, self.state.log(name)))
            .args([command])
            .env("MILLRACE_CATALOG_URL", endpoints.catalog)
            .env("MILLRACE_TEMPORAL_ADDRESS", endpoints.temporal)
            .env("MILLRACE_SECRET_KEYS_FILE", self.state.path("secret-keys"))
            // On loopback, as everything here.
            .env("MILLRACE_INSECURE_NO_AUTH", "true")
    }

    /// Hides what the user has set for another installation, and logs as text.
    fn own(&self, mut spec: Spec) -> Spec {
        for (name, _) in std::env::vars_os() {
            let Some(name) = name.to_str() else { continue };
            if name.starts_with("MILLRACE_") && !PASSED_ON.contains(&name) {
                spec = spec.hide(name);
            }
        }
        if std::env::var_os("MILLRACE_LOG_FORMAT").is_none() {
            spec = spec.env("MILLRACE_LOG_FORMAT", "text");
        }
        spec
    }

    /// Makes the catalog's database, if it is not there, and brings its schema up to date.
    ///
    /// # Errors
    /// If the catalog cannot be reached, or `millrace migrate` fails, with the end of its log.
    pub async fn migrate(&self) -> anyhow::Result<()> {
        let mut config: tokio_postgres::Config = self.endpoints(0, Pids::default()).catalog.parse()?;
        config.dbname("postgres");
        let (client, connection) = config.connect(NoTls).await.context("the catalog")?;
        let driver = tokio::spawn(connection);
        let exists = "select 1 from pg_database where datname = $1";
        if client.query_opt(exists, &[&CATALOG_DATABASE]).await?.is_none() {
            client.batch_execute(&format!("create database {CATALOG_DATABASE}")).await?;
        }
        drop(client);
        driver.await??;
        let mut process = Process::spawn(self.ours("migrate", "migrate"))?;
        match tokio::time::timeout(START_LIMIT, process.wait()).await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(process.failure(&format!("failed ({status})")).into()),
            Err(_) => Err(process.failure("did not end").into()),
        }
    }
}
