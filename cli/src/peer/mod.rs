//! `millrace peer`.
//!
//! I/O rim.

pub mod address;
mod create;
mod show;
mod update;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use millrace_proto::v1::{
    CleanupPeerRequest, DeletePeerRequest, GetPeerRequest, ListPeersRequest, ListPeersResponse,
    ListSourceTablesRequest, ListSourceTablesResponse, ValidatePeerRequest, validate_peer_request,
};
use millrace_terms::Class;

use crate::client::confirm::Confirmation;
use crate::client::output::{self, Output};
use crate::client::{Client, ClientArguments, LinkArguments, call};
use crate::failure;

/// Arguments of `millrace peer`.
#[derive(Debug, Args)]
pub struct PeerArguments {
    #[command(subcommand)]
    command: PeerCommand,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Subcommand)]
enum PeerCommand {
    /// Store a peer, after a worker has connected to it
    Create(Box<create::CreateArguments>),
    /// Show a peer, without its secrets
    #[command(aliases = ["show", "describe"])]
    Get(Named),
    /// List the peers
    List,
    /// Change how a peer is reached; mirrors go on with it
    Update(Box<update::UpdateArguments>),
    /// Forget a peer that no mirror uses
    #[command(alias = "delete")]
    Drop(DropArguments),
    /// Remove from a PostgreSQL peer what dropped mirrors left behind
    Cleanup(CleanupArguments),
    /// Connect to a peer and show every check; exit 2 or 3 if one failed
    Validate(Named),
    /// List the tables of a PostgreSQL peer
    Tables(TablesArguments),
}

#[derive(Debug, Args)]
struct Named {
    /// Name of the peer
    name: String,
}

#[derive(Debug, Args)]
struct DropArguments {
    /// Name of the peer
    name: String,
    #[command(flatten)]
    confirmation: Confirmation,
}

#[derive(Debug, Args)]
struct CleanupArguments {
    /// Name of the peer
    name: String,
    /// Only say what would be removed
    #[arg(long)]
    validate_only: bool,
}

#[derive(Debug, Args)]
struct TablesArguments {
    /// Name of the peer
    name: String,
    /// Only tables of this schema
    #[arg(long, value_name = "NAME")]
    schema: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// What the server answers; SERVER_UNREACHABLE if it does not.
pub async fn run(arguments: PeerArguments) -> anyhow::Result<ExitCode> {
    let output = arguments.client.output;
    let link = &arguments.client.link;
    match arguments.command {
        PeerCommand::Create(create) => {
            // What is wrong with the arguments is said without a server, too.
            let request = create.request()?;
            let mut client = Client::connect(link).await?;
            let peer = client.peers.create_peer(call(request)).await?.into_inner();
            output.print(&peer, show::peer)?;
        }
        PeerCommand::Get(Named { name }) => {
            let mut client = Client::connect(link).await?;
            let peer = client.peers.get_peer(call(GetPeerRequest { name })).await?.into_inner();
            output.print(&peer, show::peer)?;
        }
        PeerCommand::List => {
            let mut client = Client::connect(link).await?;
            output.print(&list(&mut client).await?, show::peers)?;
        }
        PeerCommand::Update(update) => {
            let mut client = Client::connect(link).await?;
            let stored = call(GetPeerRequest { name: update.name.clone() });
            let stored = client.peers.get_peer(stored).await?.into_inner();
            let peer = client.peers.update_peer(call(update.request(&stored)?)).await?.into_inner();
            output.print(&peer, show::peer)?;
        }
        PeerCommand::Cleanup(arguments) => return cleanup(link, arguments, output).await,
        PeerCommand::Drop(DropArguments { name, confirmation }) => {
            confirmation.ask(&format!("Forget peer {name}?"))?;
            let mut client = Client::connect(link).await?;
            let request = DeletePeerRequest { name: name.clone(), ..DeletePeerRequest::default() };
            let answer = client.peers.delete_peer(call(request)).await?.into_inner();
            output.print(&answer, |_| format!("peer {name} dropped"))?;
        }
        PeerCommand::Validate(Named { name }) => {
            return validate(&mut Client::connect(link).await?, name, output).await;
        }
        PeerCommand::Tables(TablesArguments { name, schema }) => {
            let mut client = Client::connect(link).await?;
            let tables = tables(&mut client, &name, schema.unwrap_or_default()).await?;
            output.print(&tables, show::tables)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What cannot be removed is the environment's fault.
async fn cleanup(
    link: &LinkArguments,
    arguments: CleanupArguments,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let CleanupArguments { name, validate_only } = arguments;
    let mut client = Client::connect(link).await?;
    let request = CleanupPeerRequest { name, validate_only };
    let answer = client.peers.cleanup_peer(call(request)).await?.into_inner();
    output.print(&answer, |answer| {
        let done = if validate_only { "would be removed" } else { "removed" };
        let removed = answer.removed.iter().map(|what| format!("{done}: {what}"));
        let left = answer.leftovers.iter().map(|what| format!("left over: {what}"));
        let lines: Vec<String> = removed.chain(left).collect();
        if lines.is_empty() { "nothing was left behind".to_owned() } else { lines.join("\n") }
    })?;
    let code = if answer.leftovers.is_empty() { 0 } else { failure::exit_code(Class::Unavailable) };
    Ok(ExitCode::from(code))
}

async fn validate(client: &mut Client, name: String, output: Output) -> anyhow::Result<ExitCode> {
    let target = Some(validate_peer_request::Target::Name(name));
    let answer = client.peers.validate_peer(call(ValidatePeerRequest { target })).await?.into_inner();
    output.print(&answer, |answer| output::checks(&answer.checks))?;
    Ok(failure::of_checks(&answer.checks))
}

/// All pages as one answer.
async fn list(client: &mut Client) -> anyhow::Result<ListPeersResponse> {
    let mut all = ListPeersResponse::default();
    loop {
        let page_token = std::mem::take(&mut all.next_page_token);
        let request = ListPeersRequest { page_token, ..Default::default() };
        let page = client.peers.list_peers(call(request)).await?.into_inner();
        all.peers.extend(page.peers);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        all.next_page_token = page.next_page_token;
    }
}

/// All pages as one answer.
async fn tables(client: &mut Client, name: &str, schema: String) -> anyhow::Result<ListSourceTablesResponse> {
    let mut all = ListSourceTablesResponse::default();
    loop {
        let request = ListSourceTablesRequest {
            name: name.to_owned(),
            schema: schema.clone(),
            page_size: 0,
            page_token: std::mem::take(&mut all.next_page_token),
        };
        let page = client.peers.list_source_tables(call(request)).await?.into_inner();
        all.tables.extend(page.tables);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        all.next_page_token = page.next_page_token;
    }
}
