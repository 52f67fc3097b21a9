//! `millrace table`.
//!
//! I/O rim.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use millrace_proto::v1::ResyncTableRequest;

use crate::client::output::Output;
use crate::client::{Client, ClientArguments, call, request_id};

/// Arguments of `millrace table`.
#[derive(Debug, Args)]
pub struct TableArguments {
    #[command(subcommand)]
    command: TableCommand,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Subcommand)]
enum TableCommand {
    /// Copy a table again while it goes on streaming; brings a table back that is in error
    Resync(Named),
}

#[derive(Debug, Args)]
struct Named {
    /// Name of the mirror
    mirror: String,
    /// Name of the table on the source
    #[arg(value_name = "SCHEMA.TABLE")]
    table: String,
}

/// Runs the command.
///
/// # Errors
/// What the server answers; SERVER_UNREACHABLE if it does not.
pub async fn run(arguments: TableArguments) -> anyhow::Result<ExitCode> {
    let TableCommand::Resync(named) = arguments.command;
    resync(&arguments.client.address, named, arguments.client.output).await?;
    Ok(ExitCode::SUCCESS)
}

async fn resync(address: &str, named: Named, output: Output) -> anyhow::Result<()> {
    let Named { mirror: name, table } = named;
    let mut client = Client::connect(address).await?;
    let request = ResyncTableRequest { name, table: table.clone(), request_id: request_id() };
    let mirror = client.mirrors.resync_table(call(request)).await?.into_inner();
    output.print(&mirror, |mirror| {
        format!("table {table} is resynced; follow it with `millrace mirror watch {}`", mirror.name)
    })
}
