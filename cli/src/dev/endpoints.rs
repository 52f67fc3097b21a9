//! `endpoints.json`: where everything is, for other programs.
//!
//! Pure.

use millrace_embedded::postgres;
use serde::{Deserialize, Serialize};

use super::state::Choices;

/// ClickHouse's one user.
pub const CLICKHOUSE_USER: &str = "millrace";
/// The catalog's database.
pub const CATALOG_DATABASE: &str = "millrace";

/// The file's content. All addresses are URLs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The API.
    pub grpc: String,
    /// Health, over HTTP.
    pub http: String,
    /// Prometheus metrics: the server's first, then each worker's.
    pub metrics: Vec<String>,
    /// Temporal's frontend.
    pub temporal: String,
    /// Temporal's user interface.
    pub temporal_ui: String,
    /// The catalog's database.
    pub catalog: String,
    /// The source cluster, as a superuser.
    pub source: String,
    /// ClickHouse, with user and password.
    pub clickhouse: String,
    /// The processes themselves, never wrappers.
    pub pids: Pids,
}

/// Process ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pids {
    /// `millrace server`.
    pub server: u32,
    /// `millrace worker`, each.
    pub workers: Vec<u32>,
    /// Temporal.
    pub temporal: u32,
    /// `millrace embedded-clickhouse`.
    pub clickhouse: u32,
    /// The catalog's postmaster.
    pub catalog: u32,
    /// The source's postmaster.
    pub source: u32,
}

impl Endpoints {
    /// The endpoints of a stack with `workers` workers.
    pub fn new(choices: &Choices, workers: usize, pids: Pids) -> Self {
        let ports = &choices.ports;
        let http = |port: u16| format!("http://127.0.0.1:{port}");
        let postgres = |port: u16, database: &str| {
            let (user, password) = (postgres::USER, &choices.postgres_password);
            format!("postgresql://{user}:{password}@127.0.0.1:{port}/{database}")
        };
        let metrics = std::iter::once(&ports.server_metrics).chain(&ports.worker_metrics[..workers]);
        Self {
            grpc: http(ports.grpc),
            http: http(ports.http),
            metrics: metrics.map(|port| format!("{}/metrics", http(*port))).collect(),
            temporal: http(ports.temporal),
            temporal_ui: http(ports.temporal_ui),
            catalog: postgres(ports.catalog, CATALOG_DATABASE),
            source: postgres(ports.source, "postgres"),
            clickhouse: format!(
                "http://{CLICKHOUSE_USER}:{}@127.0.0.1:{}",
                choices.clickhouse_password, ports.clickhouse
            ),
            pids,
        }
    }
}
