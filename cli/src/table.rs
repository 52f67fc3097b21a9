//! `millrace table`.
//!
//! I/O rim.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use millrace_proto::v1::{
    CancelTableCopyRequest, DropTableRequest, PauseTableRequest, ResumeTableRequest, ResyncTableRequest,
};

use crate::client::confirm::Confirmation;
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
    /// Stop writing to a table; the others go on, and the source's log is not kept for it
    Pause(Named),
    /// Take a paused table up again, which is copied again, for its changes meanwhile are not kept; or go on
    /// with a copy that was cancelled
    Resume(Named),
    /// Copy a table again while it goes on streaming; brings a table back that is in error
    Resync(Named),
    /// Cancel the copy of a table, which goes on streaming; resume goes on with it, resync begins anew
    Cancel(Named),
    /// Remove a table from its mirror
    Drop(DropArguments),
}

#[derive(Debug, Args)]
struct Named {
    /// Name of the mirror
    mirror: String,
    /// Name of the table on the source
    #[arg(value_name = "SCHEMA.TABLE")]
    table: String,
}

#[derive(Debug, Args)]
struct DropArguments {
    #[command(flatten)]
    named: Named,
    /// Drop the destination table, too
    #[arg(long)]
    drop_destination: bool,
    #[command(flatten)]
    confirmation: Confirmation,
}

/// Runs the command.
///
/// # Errors
/// What the server answers; SERVER_UNREACHABLE if it does not.
pub async fn run(arguments: TableArguments) -> anyhow::Result<ExitCode> {
    let mut client = Client::connect(&arguments.client.link).await?;
    let mirrors = &mut client.mirrors;
    let request_id = request_id();
    let (mirror, text) = match arguments.command {
        TableCommand::Pause(Named { mirror: name, table }) => {
            let text = format!("table {table} paused");
            (
                mirrors
                    .pause_table(call(PauseTableRequest { name, table, request_id, ..Default::default() }))
                    .await?,
                text,
            )
        }
        TableCommand::Resume(Named { mirror: name, table }) => {
            let text = format!("table {table} is resumed; follow it with `millrace mirror watch {name}`");
            (
                mirrors
                    .resume_table(call(ResumeTableRequest { name, table, request_id, ..Default::default() }))
                    .await?,
                text,
            )
        }
        TableCommand::Cancel(Named { mirror: name, table }) => {
            let text = format!(
                "the copy of {table} is cancelled, and its changes are streamed; \
                 `millrace table resume {name} '{table}'` goes on with it"
            );
            let request = CancelTableCopyRequest { name, table, request_id, ..Default::default() };
            (mirrors.cancel_table_copy(call(request)).await?, text)
        }
        TableCommand::Resync(Named { mirror: name, table }) => {
            let text = format!("table {table} is resynced; follow it with `millrace mirror watch {name}`");
            (
                mirrors
                    .resync_table(call(ResyncTableRequest { name, table, request_id, ..Default::default() }))
                    .await?,
                text,
            )
        }
        TableCommand::Drop(arguments) => {
            let DropArguments { named: Named { mirror: name, table }, drop_destination, confirmation } =
                arguments;
            let data = if drop_destination { ", and its destination table with it" } else { "" };
            confirmation.ask(&format!("Remove table {table} from mirror {name}{data}?"))?;
            let stays = if drop_destination { "" } else { "; its destination table stays" };
            let text = format!("table {table} left mirror {name}{stays}");
            let request =
                DropTableRequest { name, table, request_id, drop_destination, ..Default::default() };
            (mirrors.drop_table(call(request)).await?, text)
        }
    };
    arguments.client.output.print(&mirror.into_inner(), |_| text)?;
    Ok(ExitCode::SUCCESS)
}
