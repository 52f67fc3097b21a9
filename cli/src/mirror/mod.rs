//! `millrace mirror`.
//!
//! I/O rim.

mod batches;
mod create;
mod logs;
mod progress;
mod show;
mod update;
mod verify;
mod wait;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use millrace_proto::v1::{
    DeleteMirrorRequest, GetMirrorRequest, ListMirrorsRequest, ListMirrorsResponse, PauseMirrorRequest,
    ResumeMirrorRequest, ResyncMirrorRequest, ValidateMirrorRequest,
};

use crate::client::confirm::Confirmation;
use crate::client::output::{self, Output};
use crate::client::{Client, ClientArguments, LinkArguments, call, call_of, request_id};
use crate::failure;

pub use self::wait::WaitArguments;

/// Time that `drop` waits for the end, when a peer is slow or out of reach. The work goes on after.
const DROP_WAIT_MAX: Duration = Duration::from_secs(60);

/// Arguments of `millrace mirror`.
#[derive(Debug, Args)]
pub struct MirrorArguments {
    #[command(subcommand)]
    command: MirrorCommand,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Subcommand)]
enum MirrorCommand {
    /// Create a mirror and start it, after both databases were looked at
    Create(Box<create::CreateArguments>),
    /// Look at both databases as `create` does and show every check; make nothing
    Validate(Box<create::SpecArguments>),
    /// Show a mirror with its tables, their states and progress
    #[command(aliases = ["show", "status", "describe"])]
    Get(Named),
    /// List the mirrors
    List,
    /// Stop after what is in flight; the slot stays and holds the source's log
    Pause(Named),
    /// Go on from where the mirror was paused
    Resume(Named),
    /// Copy every table again while the mirror goes on streaming
    Resync(Named),
    /// Add and remove tables, and change settings, while the mirror runs
    Update(Box<update::UpdateArguments>),
    /// End a mirror and remove what it made on the source
    #[command(alias = "delete")]
    Drop(DropArguments),
    /// Follow progress and lag until Ctrl-C or the mirror's end
    Watch(Named),
    /// Compare tables with their sources, row by row, while the mirror streams; mend them if asked to
    Verify(verify::VerifyArguments),
    /// Show what the streams of a mirror did, a line for some 10 s in which they did something
    Batches(batches::BatchesArguments),
    /// Show what happened to a mirror
    #[command(alias = "events")]
    Logs(logs::LogsArguments),
}

#[derive(Debug, Args)]
struct Named {
    /// Name of the mirror
    name: String,
}

#[derive(Debug, Args)]
struct DropArguments {
    /// Name of the mirror
    name: String,
    /// Drop the destination tables, too
    #[arg(long)]
    drop_destination: bool,
    /// Forget the mirror also if something of it cannot be removed, and say what stays behind
    #[arg(long)]
    force: bool,
    /// Return at once, do not wait for the end
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    confirmation: Confirmation,
}

/// Runs the command.
///
/// # Errors
/// What the server answers; SERVER_UNREACHABLE if it does not.
pub async fn run(arguments: MirrorArguments) -> anyhow::Result<ExitCode> {
    let output = arguments.client.output;
    let link = &arguments.client.link;
    match arguments.command {
        MirrorCommand::Create(arguments) => create(link, *arguments, output).await?,
        MirrorCommand::Validate(arguments) => return validate(link, *arguments, output).await,
        MirrorCommand::Get(Named { name }) => {
            let mut client = Client::connect(link).await?;
            let mirror = client.mirrors.get_mirror(call(GetMirrorRequest { name })).await?.into_inner();
            output.print(&mirror, show::mirror)?;
        }
        MirrorCommand::List => {
            let mut client = Client::connect(link).await?;
            output.print(&list(&mut client).await?, show::mirrors)?;
        }
        MirrorCommand::Pause(Named { name }) => {
            let mut client = Client::connect(link).await?;
            let request = PauseMirrorRequest { name, request_id: request_id(), ..Default::default() };
            let mirror = client.mirrors.pause_mirror(call(request)).await?.into_inner();
            output.print(&mirror, |mirror| format!("mirror {} paused", mirror.name))?;
        }
        MirrorCommand::Resume(Named { name }) => {
            let mut client = Client::connect(link).await?;
            let request = ResumeMirrorRequest { name, request_id: request_id(), ..Default::default() };
            let mirror = client.mirrors.resume_mirror(call(request)).await?.into_inner();
            output.print(&mirror, |mirror| format!("mirror {} resumed", mirror.name))?;
        }
        MirrorCommand::Resync(Named { name }) => {
            let mut client = Client::connect(link).await?;
            let request = ResyncMirrorRequest { name, request_id: request_id(), ..Default::default() };
            let mirror = client.mirrors.resync_mirror(call(request)).await?.into_inner();
            output.print(&mirror, |mirror| {
                format!("mirror {0} is resynced; follow it with `millrace mirror watch {0}`", mirror.name)
            })?;
        }
        MirrorCommand::Update(arguments) => update::run(link, *arguments, output).await?,
        MirrorCommand::Drop(arguments) => drop(link, arguments, output).await?,
        MirrorCommand::Watch(Named { name }) => {
            watch::run(&mut Client::connect(link).await?, &name, output).await?;
        }
        MirrorCommand::Verify(arguments) => return verify::run(link, arguments, output).await,
        MirrorCommand::Batches(arguments) => {
            batches::run(&mut Client::connect(link).await?, arguments, output).await?;
        }
        MirrorCommand::Logs(arguments) => {
            logs::run(&mut Client::connect(link).await?, arguments, output).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(
    link: &LinkArguments,
    arguments: create::CreateArguments,
    output: Output,
) -> anyhow::Result<()> {
    let (wait, is_trial) = (arguments.wait.clone(), arguments.validate_only);
    // What is wrong with the arguments is said without a server, too.
    let request = arguments.request()?;
    let mut client = Client::connect(link).await?;
    let mut mirror = client.mirrors.create_mirror(call(request)).await?.into_inner();
    if !is_trial && let Some(there) = wait.run(&mut client, &[mirror.name.clone()]).await?.pop() {
        mirror = there;
    }
    output.print(&mirror, |mirror| match (is_trial, wait.is_set()) {
        (true, _) => format!("mirror {} can be created: {} tables", mirror.name, mirror.tables.len()),
        (false, true) => show::mirror(mirror),
        (false, false) => {
            format!("mirror {} created; follow it with `millrace mirror watch {}`", mirror.name, mirror.name)
        }
    })
}

async fn validate(
    link: &LinkArguments,
    arguments: create::SpecArguments,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let request = ValidateMirrorRequest { mirror: Some(arguments.mirror()?) };
    let mut client = Client::connect(link).await?;
    let answer = client.mirrors.validate_mirror(call(request)).await?.into_inner();
    output.print(&answer, |answer| output::checks(&answer.checks))?;
    Ok(failure::of_checks(&answer.checks))
}

async fn drop(link: &LinkArguments, arguments: DropArguments, output: Output) -> anyhow::Result<()> {
    let DropArguments { name, drop_destination, force, no_wait, confirmation } = arguments;
    let data = if drop_destination { ", and its destination tables with it" } else { "" };
    confirmation.ask(&format!("Drop mirror {name}{data}?"))?;
    let mut client = Client::connect(link).await?;
    let request = DeleteMirrorRequest { name: name.clone(), drop_destination, force, ..Default::default() };
    let mut answer = client.mirrors.delete_mirror(call_of("DeleteMirror", request)).await?.into_inner();
    if !answer.done && !no_wait {
        answer.done = tokio::time::timeout(DROP_WAIT_MAX, wait::gone(&mut client, &name))
            .await
            .is_ok_and(|end| end.is_ok());
    }
    output.print(&answer, |answer| {
        let mut lines = vec![match answer.done {
            true => format!("mirror {name} dropped"),
            false => format!("mirror {name} is being dropped; the work goes on by itself"),
        }];
        lines.extend(answer.leftovers.iter().map(|what| format!("left over: {what}")));
        lines.join("\n")
    })
}

/// All pages as one answer.
async fn list(client: &mut Client) -> anyhow::Result<ListMirrorsResponse> {
    let mut all = ListMirrorsResponse::default();
    loop {
        let page_token = std::mem::take(&mut all.next_page_token);
        let request = ListMirrorsRequest { page_token, ..Default::default() };
        let page = client.mirrors.list_mirrors(call(request)).await?.into_inner();
        all.mirrors.extend(page.mirrors);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        all.next_page_token = page.next_page_token;
    }
}
