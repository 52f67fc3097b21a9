//! `millrace apply`.
//!
//! I/O rim.

mod show;
mod sources;
mod substitute;

use std::process::ExitCode;

use clap::Args;
use millrace_proto::v1::applied_object::{Action, Kind};
use millrace_proto::v1::{ApplyRequest, ApplyResponse};

use crate::client::output::Output;
use crate::client::{Client, ClientArguments, call_of};
use crate::failure::Failure;
use crate::mirror::{Goal, reach};

/// Arguments of `millrace apply`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  SHOP_PASSWORD=... millrace apply -f shop.yaml --dry-run
  millrace apply -f peers.yaml -f mirrors.yaml --wait=snapshot
  generate | millrace apply -f - --prune

In values, ${NAME} is replaced by that environment variable and ${file:/path} by the content of that file.")]
pub struct ApplyArguments {
    /// File to apply, - for stdin; several are merged
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<String>,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Drop mirrors and peers that the file does not hold
    #[arg(long)]
    prune: bool,
    /// With a mirror, drop its destination tables, too
    #[arg(long)]
    drop_destination: bool,
    /// Wait until the tables of all mirrors of the file are copied, or until all of them stream
    #[arg(long, value_name = "GOAL", num_args = 0..=1, require_equals = true, default_missing_value = "streaming")]
    wait: Option<Goal>,
    #[command(flatten)]
    client: ClientArguments,
}

/// Runs the command.
///
/// # Errors
/// INVALID_ARGUMENT if a file cannot be read; what the server answers; SERVER_UNREACHABLE if it does
/// not; what a mirror fails with while it is waited for.
pub async fn run(arguments: ApplyArguments) -> anyhow::Result<ExitCode> {
    let sources = sources::read(&arguments.files)?;
    let mut client = Client::connect(&arguments.client.address).await?;
    let request = ApplyRequest {
        document: sources.document().to_owned(),
        dry_run: arguments.dry_run,
        prune: arguments.prune,
        drop_destination: arguments.drop_destination,
    };
    let answer = client.system.apply(call_of("Apply", request)).await;
    let answer = answer.map_err(|status| sources.locate(Failure::from(status)))?.into_inner();
    let (output, dry_run) = (arguments.client.output, arguments.dry_run);
    // People see at once what was done; programs get one object at the end.
    if output == Output::Table {
        output.print(&answer, |answer| show::applied(answer, dry_run))?;
    }
    if let Some(goal) = arguments.wait.filter(|_| !dry_run) {
        wait(&mut client, &answer, goal).await?;
    }
    if output != Output::Table {
        output.print(&answer, |_| String::new())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits for the mirrors, one after the other: all have begun already.
async fn wait(client: &mut Client, answer: &ApplyResponse, goal: Goal) -> anyhow::Result<()> {
    let mirrors = answer.objects.iter().filter(|object| object.kind() == Kind::Mirror);
    for object in mirrors.filter(|object| object.action() != Action::Deleted) {
        reach(client, &object.name, goal).await?;
    }
    Ok(())
}
