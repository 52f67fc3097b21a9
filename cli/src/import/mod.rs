//! `millrace import`: what another tool replicates, as the file that `apply` takes.
//!
//! - [`draft`]: peers and mirrors in the making, and the warnings.
//! - [`peerdb`], [`peerdb_sql`]: PeerDB's REST API and SQL.
//! - [`debezium`], [`properties`], [`pattern`]: Debezium's connector.
//!
//! I/O rim; everything below is pure.

mod debezium;
mod draft;
mod pattern;
mod peerdb;
mod peerdb_sql;
mod properties;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use millrace_server::export::{self, Dollars};
use millrace_terms::Error;

use self::draft::Draft;
use crate::apply::read_file;
use crate::client::output;
use crate::client::style::{Paint, Tone};

/// Arguments of `millrace import`.
#[derive(Debug, Args)]
pub struct ImportArguments {
    #[command(subcommand)]
    command: ImportCommand,
}

#[derive(Debug, Subcommand)]
enum ImportCommand {
    /// Read PeerDB's mirrors and peers: the JSON of its REST API, or CREATE PEER and CREATE MIRROR
    Peerdb(PeerdbArguments),
    /// Read Debezium's PostgreSQL connector, and the sink that wrote into ClickHouse
    Debezium(DebeziumArguments),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  millrace import peerdb mirror.json > shop.yaml
  cat peers.sql mirrors.sql | millrace import peerdb - > shop.yaml

The file is written to stdout; what has no counterpart is a warning on stderr. No server is asked.")]
struct PeerdbArguments {
    /// File to read, - for stdin; several are taken together if they are of one form
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  millrace import debezium connector.json clickhouse-sink.json > shop.yaml
  millrace import debezium application.properties > shop.yaml

The file is written to stdout; what has no counterpart is a warning on stderr. No server is asked.")]
struct DebeziumArguments {
    /// File to read, JSON or properties, - for stdin; source and sink may be in one or in several
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
    /// Name for a mirror whose connector has none
    #[arg(long, value_name = "NAME", default_value = "debezium")]
    name: String,
}

/// Runs the command.
///
/// # Errors
/// INVALID_ARGUMENT if a file cannot be read, or holds nothing of the tool's.
pub fn run(arguments: ImportArguments) -> anyhow::Result<ExitCode> {
    let draft = match arguments.command {
        ImportCommand::Peerdb(PeerdbArguments { files }) => {
            let texts = read(&files)?;
            peerdb::read(&texts.join("\n")).map_err(|error| error.context(files.join(", ")))?
        }
        ImportCommand::Debezium(DebeziumArguments { files, name }) => {
            let texts = read(&files)?;
            debezium::read(&texts, &name).map_err(|error| error.context(files.join(", ")))?
        }
    };
    let paint = Paint::stderr();
    for warning in &draft.warnings {
        let text = warning.to_string();
        eprintln!("{}", text.replacen("warning:", &paint.paint(Tone::Notable, "warning:"), 1));
    }
    output::write(&document(&draft)?)?;
    Ok(ExitCode::SUCCESS)
}

fn read(files: &[String]) -> Result<Vec<String>, Error> {
    files.iter().map(|file| read_file(file)).collect()
}

fn document(draft: &Draft) -> Result<String, Error> {
    Ok(export::document(&draft.peers, &draft.mirrors, Dollars::References)?.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The warnings and the file, which the server reads when its variables are set.
    pub(super) fn shown(draft: &Draft) -> String {
        let file = document(draft).unwrap();
        let set = file.replace("${CLICKHOUSE_URL}", "http://h:8123");
        millrace_server::document::require_valid(&set).unwrap_or_else(|error| panic!("{error}\n{file}"));
        let warnings: Vec<String> = draft.warnings.iter().map(ToString::to_string).collect();
        let shown = format!("{}\n\n{file}", warnings.join("\n"));
        assert!(!shown.contains("hunter"), "{shown}");
        shown
    }
}
