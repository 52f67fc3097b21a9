//! `millrace demo`.

use std::process::ExitCode;

use clap::Args;
use millrace_terms::{Code, Error};

/// Arguments of `millrace demo`.
#[derive(Debug, Args)]
pub struct DemoArguments {}

/// Runs the command to its end.
///
/// # Errors
/// Until the embedded stack lands: UNIMPLEMENTED.
pub async fn run(_arguments: DemoArguments) -> anyhow::Result<ExitCode> {
    Err(Error::new(Code::Unimplemented, "`millrace demo` is not built yet").into())
}
