//! `millrace apply`, and its looking glass `millrace diff`.
//!
//! I/O rim.

pub mod schema;
mod show;
mod sources;
mod substitute;

use std::process::ExitCode;

use clap::Args;
use millrace_proto::v1::applied_object::{Action, Kind};
use millrace_proto::v1::{ApplyRequest, ApplyResponse};

use self::sources::Sources;
pub(crate) use self::sources::read_file;
use crate::client::confirm::Confirmation;
use crate::client::output::{self, Output};
use crate::client::style::Paint;
use crate::client::{Client, ClientArguments, call_of};
use crate::failure::{EXIT_DIFFERENT, Failure};
use crate::mirror::WaitArguments;

/// The files, of `apply` and of `diff`.
#[derive(Debug, Args)]
struct Files {
    /// File to read, - for stdin; several are merged
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<String>,
}

/// Arguments of `millrace apply`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  SHOP_PASSWORD=... millrace apply -f shop.yaml --dry-run
  millrace apply -f peers.yaml -f mirrors.yaml --wait=snapshot --timeout 2h
  generate | millrace apply -f - --prune

In values, ${NAME} is replaced by that environment variable and ${file:/path} by the content of that file; $${ stands for ${ itself.")]
pub struct ApplyArguments {
    #[command(flatten)]
    files: Files,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Drop mirrors and peers that the file does not hold
    #[arg(long)]
    prune: bool,
    /// Mean it when the file holds nothing: drop everything
    #[arg(long, requires = "prune")]
    prune_all: bool,
    /// Drop the destination tables of what leaves, too
    #[arg(long)]
    drop_destination: bool,
    #[command(flatten)]
    wait: WaitArguments,
    #[command(flatten)]
    confirmation: Confirmation,
    #[command(flatten)]
    client: ClientArguments,
}

/// Arguments of `millrace diff`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  millrace diff -f shop.yaml
  millrace diff -f shop.yaml --prune || echo drift

Exit codes: 0 nothing differs; 4 something does; others as everywhere. Nothing is changed.")]
pub struct DiffArguments {
    #[command(flatten)]
    files: Files,
    /// Count mirrors and peers that the file does not hold as differences
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    client: ClientArguments,
}

/// Runs `apply`.
///
/// # Errors
/// INVALID_ARGUMENT if a file cannot be read; what the server answers; SERVER_UNREACHABLE if it does
/// not; what a mirror fails with while it is waited for.
pub async fn run(arguments: ApplyArguments) -> anyhow::Result<ExitCode> {
    let sources = sources::read(&arguments.files.files)?;
    let mut client = Client::connect(&arguments.client.link).await?;
    let mut request = ApplyRequest {
        document: sources.document().to_owned(),
        dry_run: true,
        prune: arguments.prune,
        prune_all: arguments.prune_all,
        drop_destination: arguments.drop_destination,
    };
    let removes = arguments.prune || arguments.drop_destination;
    if removes && !arguments.dry_run && arguments.confirmation.asks() {
        let plan = apply(&mut client, &sources, request.clone()).await?;
        let removals = show::removals(&plan, arguments.drop_destination);
        if !removals.is_empty() {
            arguments.confirmation.ask(&format!("This drops:\n  {}\nGo on?", removals.join("\n  ")))?;
        }
    }
    request.dry_run = arguments.dry_run;
    let answer = apply(&mut client, &sources, request).await?;
    let (output, dry_run) = (arguments.client.output, arguments.dry_run);
    // People see at once what was done; programs get one object at the end.
    if output == Output::Table {
        output.print(&answer, |answer| show::applied(answer, dry_run))?;
    }
    if !dry_run {
        arguments.wait.run(&mut client, &mirrors(&answer)).await?;
    }
    if output != Output::Table {
        output.print(&answer, |_| String::new())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `diff`.
///
/// # Errors
/// As of [`run`].
pub async fn diff(arguments: DiffArguments) -> anyhow::Result<ExitCode> {
    let sources = sources::read(&arguments.files.files)?;
    let mut client = Client::connect(&arguments.client.link).await?;
    let request = ApplyRequest {
        document: sources.document().to_owned(),
        dry_run: true,
        prune: arguments.prune,
        ..ApplyRequest::default()
    };
    let answer = apply(&mut client, &sources, request).await?;
    let differs = show::differs(&answer);
    match arguments.client.output {
        // As `diff` does: silence where nothing differs.
        Output::Table if differs => output::write(&show::difference(&answer, Paint::stdout()))?,
        Output::Table => {}
        form => form.print(&answer, |_| String::new())?,
    }
    Ok(ExitCode::from(if differs { EXIT_DIFFERENT } else { 0 }))
}

async fn apply(
    client: &mut Client,
    sources: &Sources,
    request: ApplyRequest,
) -> Result<ApplyResponse, Failure> {
    let answer = client.system.apply(call_of("Apply", request)).await;
    answer.map(tonic::Response::into_inner).map_err(|status| sources.locate(Failure::from(status)))
}

/// The mirrors that the file holds.
fn mirrors(answer: &ApplyResponse) -> Vec<String> {
    let mirrors = answer.objects.iter().filter(|object| object.kind() == Kind::Mirror);
    mirrors.filter(|object| object.action() != Action::Deleted).map(|object| object.name.clone()).collect()
}
