//! `millrace server`.
//!
//! I/O rim: wiring only.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;
use millrace_terms::{Code, Error};

use crate::settings::{CatalogUrl, SecretKeys, Temporal};

/// Arguments of `millrace server`.
#[derive(Debug, Args)]
pub struct ServerArguments {
    /// Address and port of gRPC
    #[arg(long, value_name = "ADDRESS", env = "MILLRACE_GRPC_LISTEN", default_value = "127.0.0.1:8112")]
    grpc_listen: SocketAddr,
    /// Address and port of HTTP: health
    #[arg(long, value_name = "ADDRESS", env = "MILLRACE_HTTP_LISTEN", default_value = "127.0.0.1:8113")]
    http_listen: SocketAddr,
    /// Address and port of Prometheus metrics
    #[arg(long, value_name = "ADDRESS", env = "MILLRACE_METRICS_LISTEN", default_value = "127.0.0.1:9090")]
    metrics_listen: SocketAddr,
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
/// What `millrace_server::run` fails with.
pub async fn run(_arguments: ServerArguments) -> anyhow::Result<ExitCode> {
    Err(Error::new(Code::Unimplemented, "`millrace server` is not built yet").into())
}
