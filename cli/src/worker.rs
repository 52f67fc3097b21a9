//! `millrace worker`.
//!
//! I/O rim: wiring only.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use millrace_terms::{Code, Error};

use crate::settings::{CatalogUrl, SecretKeys, Temporal};

/// Arguments of `millrace worker`.
#[derive(Debug, Args)]
pub struct WorkerArguments {
    /// Task queues that this worker polls
    #[arg(
        long,
        value_name = "QUEUES",
        env = "MILLRACE_QUEUES",
        value_delimiter = ',',
        default_value = "control,snapshot,stream"
    )]
    queues: Vec<Queue>,
    /// Address and port of Prometheus metrics and health
    #[arg(long, value_name = "ADDRESS", env = "MILLRACE_METRICS_LISTEN", default_value = "127.0.0.1:9091")]
    metrics_listen: SocketAddr,
    #[command(flatten)]
    catalog: CatalogUrl,
    #[command(flatten)]
    keys: SecretKeys,
    #[command(flatten)]
    temporal: Temporal,
}

/// A task queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Queue {
    /// Workflows, checks, and everything short.
    Control,
    /// Copies of tables.
    Snapshot,
    /// Change streams.
    Stream,
}

/// Runs a worker until SIGINT or SIGTERM.
///
/// # Errors
/// What `millrace_worker::run` fails with.
pub async fn run(_arguments: WorkerArguments) -> anyhow::Result<ExitCode> {
    Err(Error::new(Code::Unimplemented, "`millrace worker` is not built yet").into())
}
