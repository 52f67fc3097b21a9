//! `millrace server`.
//!
//! I/O rim: wiring only.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;

use crate::settings::{CatalogUrl, SecretKeys, Temporal};
use crate::signals;

/// Arguments of `millrace server`.
#[derive(Debug, Args)]
pub struct ServerArguments {
    /// Address and port of gRPC
    #[arg(long, value_name = "ADDRESS", env = "MILLRACE_GRPC_LISTEN", default_value = "127.0.0.1:8112")]
    grpc_listen: SocketAddr,
    /// Address and port of HTTP: REST, its documentation, health
    #[arg(long, value_name = "ADDRESS", env = "MILLRACE_HTTP_LISTEN", default_value = "127.0.0.1:8113")]
    http_listen: SocketAddr,
    /// Address and port of Prometheus metrics
    #[arg(long, value_name = "ADDRESS", env = "MILLRACE_METRICS_LISTEN", default_value = "127.0.0.1:9090")]
    metrics_listen: SocketAddr,
    /// Origins of web pages that may ask, such as https://ui.example.com, several with commas; * for any
    #[arg(long, value_name = "ORIGINS", env = "MILLRACE_CORS_ORIGINS", value_delimiter = ',')]
    cors_origins: Vec<String>,
    #[command(flatten)]
    catalog: CatalogUrl,
    #[command(flatten)]
    keys: SecretKeys,
    #[command(flatten)]
    temporal: Temporal,
}

/// Runs the server until SIGINT or SIGTERM.
///
/// # Errors
/// What waiting cannot mend: an address in use, malformed settings, a catalog older than needed.
pub async fn run(arguments: ServerArguments) -> anyhow::Result<ExitCode> {
    let config = millrace_server::Config {
        catalog_url: arguments.catalog.resolve()?,
        secret_keys: arguments.keys.resolve()?,
        temporal_address: arguments.temporal.temporal_address,
        temporal_namespace: arguments.temporal.temporal_namespace,
        queue_prefix: arguments.temporal.queue_prefix,
        grpc_listen: arguments.grpc_listen,
        http_listen: arguments.http_listen,
        metrics_listen: arguments.metrics_listen,
        cors_origins: arguments.cors_origins,
    };
    millrace_server::run(config, signals::shutdown()?).await?;
    Ok(ExitCode::SUCCESS)
}
