//! `millrace worker`.
//!
//! I/O rim: wiring only.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::settings::{CatalogUrl, SecretKeys, Temporal};
use crate::signals;

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
    /// Networks that peers may be in, such as 10.0.0.0/8,192.168.1.7 [default: all but link-local, metadata services
    /// and multicast]
    #[arg(long, value_name = "NETWORKS", env = "MILLRACE_PEER_ALLOW", value_delimiter = ',')]
    peer_allow: Vec<String>,
    /// Networks that peers may not be in; 127.0.0.0/8,::1 forbids this machine
    #[arg(long, value_name = "NETWORKS", env = "MILLRACE_PEER_DENY", value_delimiter = ',')]
    peer_deny: Vec<String>,
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

impl From<Queue> for millrace_worker::Queue {
    fn from(queue: Queue) -> Self {
        match queue {
            Queue::Control => Self::Control,
            Queue::Snapshot => Self::Snapshot,
            Queue::Stream => Self::Stream,
        }
    }
}

/// Runs a worker until SIGINT or SIGTERM.
///
/// # Errors
/// What waiting cannot mend: malformed settings, a catalog older than needed, a Temporal that refuses
/// the worker.
pub async fn run(arguments: WorkerArguments) -> anyhow::Result<ExitCode> {
    let config = millrace_worker::Config {
        catalog_url: arguments.catalog.resolve()?,
        secret_keys: arguments.keys.resolve()?,
        temporal_address: arguments.temporal.temporal_address,
        temporal_namespace: arguments.temporal.temporal_namespace,
        queue_prefix: arguments.temporal.queue_prefix,
        queues: arguments.queues.into_iter().map(Into::into).collect(),
        peer_allow: arguments.peer_allow,
        peer_deny: arguments.peer_deny,
        metrics_listen: arguments.metrics_listen,
    };
    millrace_worker::run(config, signals::shutdown()?).await?;
    Ok(ExitCode::SUCCESS)
}
