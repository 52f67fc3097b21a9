//! `millrace dev`.

use std::process::ExitCode;

use clap::Args;
use millrace_terms::{Code, Error};

/// Arguments of `millrace dev`.
#[derive(Debug, Args)]
pub struct DevArguments {}

/// Runs the command to its end.
///
/// # Errors
/// Until the embedded stack lands: UNIMPLEMENTED.
pub async fn run(_arguments: DevArguments) -> anyhow::Result<ExitCode> {
    Err(Error::new(Code::Unimplemented, "`millrace dev` is not built yet").into())
}
