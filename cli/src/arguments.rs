//! The command line. Each noun has a module of its own with its arguments and what they do.
//!
//! Pure.

use clap::{Parser, Subcommand};

use crate::logs::{LogArguments, Speaker};
use crate::{
    apply, audit, context, demo, dev, doctor, embedded_clickhouse, export, health, import, keys, migrate,
    mirror, peer, server, shell, status, table, token, worker,
};

/// Millrace replicates PostgreSQL into ClickHouse.
#[derive(Debug, Parser)]
#[command(
    name = "millrace",
    version,
    about,
    propagate_version = true,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "\
Exit codes: 0 done; 1 a defect; 2 the request is wrong; 3 the environment is (unreachable, unauthenticated, denied);
4 `diff` or `verify` found differences.

Try it, with nothing running:
  millrace demo"
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How logs are written.
    #[command(flatten)]
    pub logs: LogArguments,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start everything on this machine, mirror a small shop, and show it live
    Demo(demo::DemoArguments),
    /// Run the embedded stack in the foreground: databases, Temporal, server and workers
    Dev(dev::DevArguments),
    /// Databases that Millrace connects to
    Peer(peer::PeerArguments),
    /// Tables of a source, replicated into a destination
    Mirror(mirror::MirrorArguments),
    /// Tables of a mirror
    Table(table::TableArguments),
    /// Make the installation hold what a file says
    Apply(apply::ApplyArguments),
    /// Show what `apply` would change; exit 4 if anything
    Diff(apply::DiffArguments),
    /// Write peers and mirrors as the file that `apply` takes
    Export(export::ExportArguments),
    /// Servers by name: their addresses, tokens and certificates
    Context(context::ContextArguments),
    /// Turn another tool's mirrors into the file that `apply` takes
    Import(import::ImportArguments),
    /// Show how everything is: mirrors, workers, lag, and what somebody should look at
    Status(status::StatusArguments),
    /// Look at everything and say what is wrong, and what mends it
    Doctor(doctor::DoctorArguments),
    /// Who may call the API: make, list and revoke tokens
    Token(token::TokenArguments),
    /// Show who changed what through the API
    Audit(audit::AuditArguments),
    /// Run the control server
    Server(server::ServerArguments),
    /// Run a worker: it copies and streams the data
    Worker(worker::WorkerArguments),
    /// Bring the catalog's schema to what this release needs
    Migrate(migrate::MigrateArguments),
    /// Keys that seal the peers' secrets: make, show, rotate
    Keys(keys::KeysArguments),
    /// Ask a server or a worker how it is: exit 0 if well
    Health(health::HealthArguments),
    /// Print the JSON Schema of the file, for editors
    Schema(apply::schema::SchemaArguments),
    /// Print the completion script of a shell
    Completion(shell::CompletionArguments),
    /// Write the manual's pages
    Man(shell::ManArguments),
    /// The embedded ClickHouse server; started by `dev`
    #[command(hide = true)]
    EmbeddedClickhouse(embedded_clickhouse::EmbeddedClickhouseArguments),
}

impl Command {
    /// Who is logging.
    pub fn speaker(&self) -> Speaker {
        match self {
            Command::Server(_)
            | Command::Worker(_)
            | Command::Migrate(_)
            | Command::Keys(_)
            | Command::EmbeddedClickhouse(_) => Speaker::Process,
            _ => Speaker::Command,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }
}
