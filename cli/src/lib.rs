//! The command `millrace`: every process of an installation, and the client that drives it.
//!
//! - [`arguments`]: the command line; one module per noun below it. [`command_line`] reads it, [`examples`]
//!   end each help.
//! - [`server`], [`worker`], [`migrate`]: the processes of a production installation.
//! - [`doctor`]: what is wrong, and what mends it. [`status`]: how everything is.
//! - [`dev`], [`demo`], [`embedded_clickhouse`]: the embedded stack.
//! - [`keys`]: the keys that seal secrets in the catalog.
//! - [`health`]: asks a process how it is, for container platforms.
//! - [`peer`], [`mirror`], [`table`], [`apply`], [`export`], [`token`], [`audit`]: the client verbs; [`client`]: what they
//!   share; [`context`]: servers by name.
//! - [`import`]: other tools' mirrors as a file. [`shell`]: completion and manual.
//! - [`settings`]: settings that several processes share.
//! - [`environment`]: the table of all environment variables, read off the command line's definition.
//! - [`failure`]: what an error looks like to a user, and the exit code.
//! - [`logs`], [`signals`]: what every process needs.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod apply;
pub mod arguments;
pub mod audit;
pub mod client;
pub mod command_line;
pub mod context;
pub mod demo;
pub mod dev;
pub mod doctor;
pub mod embedded_clickhouse;
pub mod environment;
pub mod examples;
pub mod export;
pub mod failure;
pub mod health;
pub mod import;
pub mod keys;
pub mod logs;
pub mod migrate;
pub mod mirror;
pub mod peer;
pub mod server;
pub mod settings;
pub mod shell;
pub mod signals;
pub mod status;
pub mod table;
pub mod token;
pub mod worker;

use std::process::ExitCode;

use anyhow::Context;

use crate::arguments::{Arguments, Command};
use crate::client::style::Paint;

/// Stack of each runtime thread, in bytes: the Temporal SDK's futures are deep in debug builds,
/// where tokio's 2 MiB are near their end.
const THREAD_STACK_BYTES: usize = 8 << 20;

/// Runs the command line of this process to its end.
pub fn main() -> ExitCode {
    match command_line::parse().map_err(Into::into).and_then(start) {
        Ok(code) => code,
        Err(error) => failure::report(&error, &mut std::io::stderr(), Paint::stderr()),
    }
}

fn start(arguments: Arguments) -> anyhow::Result<ExitCode> {
    logs::start(&arguments.logs, arguments.command.speaker())?;
    // One provider for every TLS connection of the process. `Err` means that there is one already.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(THREAD_STACK_BYTES)
        .build()
        .context("starting the runtime")?;
    // The command's future stays on this thread: the Temporal worker's is not `Send`.
    runtime.block_on(Box::pin(run(arguments.command)))
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(arguments) => Box::pin(demo::run(arguments)).await,
        Command::Dev(arguments) => Box::pin(dev::run(arguments)).await,
        Command::Server(arguments) => Box::pin(server::run(arguments)).await,
        Command::Worker(arguments) => Box::pin(worker::run(arguments)).await,
        Command::Migrate(arguments) => Box::pin(migrate::run(arguments)).await,
        Command::Table(arguments) => Box::pin(table::run(arguments)).await,
        Command::Peer(arguments) => Box::pin(peer::run(arguments)).await,
        Command::Mirror(arguments) => Box::pin(mirror::run(arguments)).await,
        Command::Keys(arguments) => Box::pin(keys::run(arguments)).await,
        Command::Token(arguments) => Box::pin(token::run(arguments)).await,
        Command::Audit(arguments) => Box::pin(audit::run(arguments)).await,
        Command::Apply(arguments) => Box::pin(apply::run(arguments)).await,
        Command::Diff(arguments) => Box::pin(apply::diff(arguments)).await,
        Command::Export(arguments) => Box::pin(export::run(arguments)).await,
        Command::Context(arguments) => context::run(arguments),
        Command::Import(arguments) => import::run(arguments),
        Command::Schema(arguments) => apply::schema::run(arguments),
        Command::Completion(arguments) => shell::completion(arguments),
        Command::Man(arguments) => shell::man(arguments),
        Command::Status(arguments) => Box::pin(status::run(arguments)).await.map(|()| ExitCode::SUCCESS),
        Command::Doctor(arguments) => Box::pin(doctor::run(arguments)).await,
        Command::Health(arguments) => Box::pin(health::run(arguments)).await,
        Command::EmbeddedClickhouse(arguments) => Box::pin(embedded_clickhouse::run(arguments)).await,
    }
}
