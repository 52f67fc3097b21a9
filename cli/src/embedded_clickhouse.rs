//! `millrace embedded-clickhouse`: the engine behind ClickHouse's HTTP interface, as a process of its own.

use std::process::ExitCode;

use clap::Args;
use millrace_terms::{Code, Error};

/// Arguments of `millrace embedded-clickhouse`.
#[derive(Debug, Args)]
pub struct EmbeddedClickhouseArguments {}

/// Runs the server until it is told to stop.
///
/// # Errors
/// Until the embedded stack lands: UNIMPLEMENTED.
pub async fn run(_arguments: EmbeddedClickhouseArguments) -> anyhow::Result<ExitCode> {
    Err(Error::new(Code::Unimplemented, "`millrace embedded-clickhouse` is not built yet").into())
}
