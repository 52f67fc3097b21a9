//! `millrace export`: the way back from an installation to the file that `apply` takes.
//!
//! I/O rim.

use std::process::ExitCode;

use clap::Args;
use millrace_proto::v1::ExportRequest;

use crate::client::{Client, ClientArguments, call};

/// Arguments of `millrace export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  millrace export > millrace.yaml
  millrace export shop > shop.yaml
  millrace export | SHOP_PG_PASSWORD=... WAREHOUSE_PASSWORD=... millrace apply -f - --dry-run

Secrets are never given back: references such as ${SHOP_PG_PASSWORD} stand in their places.")]
pub struct ExportArguments {
    /// Mirrors to write, with their peers; without names everything is written
    #[arg(value_name = "MIRROR")]
    mirrors: Vec<String>,
    #[command(flatten)]
    client: ClientArguments,
}

/// Runs the command.
///
/// # Errors
/// What the server answers; SERVER_UNREACHABLE if it does not.
pub async fn run(arguments: ExportArguments) -> anyhow::Result<ExitCode> {
    let mut client = Client::connect(&arguments.client.link).await?;
    let request = ExportRequest { mirrors: arguments.mirrors };
    let answer = client.system.export(call(request)).await?.into_inner();
    arguments.client.output.print(&answer, |answer| answer.document.clone())?;
    Ok(ExitCode::SUCCESS)
}
