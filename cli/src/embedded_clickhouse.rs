//! `millrace embedded-clickhouse`: the engine behind ClickHouse's HTTP interface, as a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use millrace_embedded::clickhouse::{Settings, serve};
use tokio::net::TcpListener;

use crate::signals;

/// Environment variable that holds the user's password.
pub(crate) const PASSWORD_VARIABLE: &str = "MILLRACE_EMBEDDED_PASSWORD";

/// Arguments of `millrace embedded-clickhouse`.
#[derive(Debug, Args)]
pub struct EmbeddedClickhouseArguments {
    /// Address to listen on
    #[arg(long, value_name = "HOST:PORT")]
    listen: SocketAddr,
    /// The engine's library
    #[arg(long, value_name = "FILE")]
    library: PathBuf,
    /// Directory of the data, made at the first start
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The one user
    #[arg(long, value_name = "NAME")]
    user: String,
    /// The user's password
    #[arg(long, value_name = "SECRET", env = PASSWORD_VARIABLE, hide_env_values = true, default_value = "")]
    password: String,
}

/// Runs the server until it is told to stop.
///
/// # Errors
/// If the address is taken, or the engine does not start.
pub async fn run(arguments: EmbeddedClickhouseArguments) -> anyhow::Result<ExitCode> {
    let EmbeddedClickhouseArguments { listen, library, dir, user, password } = arguments;
    let shutdown = signals::shutdown()?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listening on {listen}"))?;
    serve(listener, Settings { library, dir, user, password }, shutdown).await?;
    Ok(ExitCode::SUCCESS)
}
