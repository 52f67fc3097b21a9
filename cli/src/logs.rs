//! Logs: to stderr, as text or JSON.
//!
//! I/O rim.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use millrace_terms::{Code, Error};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::client::style::Paint;

/// What processes log: the steps of these two libraries at `info` are ours to tell, not theirs.
const PROCESS_FILTER: &str = "info,refinery_core=warn,tokio_postgres=warn";

/// How logs are written.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logging")]
pub struct LogArguments {
    /// Level, or levels by module: info, debug, warn,millrace_replication=debug [default: info for processes, warn for client commands]
    #[arg(long, global = true, value_name = "FILTER", env = "MILLRACE_LOG")]
    log: Option<String>,
    /// Form of the log lines [default: text where stdout is a terminal and for client commands, otherwise json]
    #[arg(long, global = true, value_name = "FORM", env = "MILLRACE_LOG_FORMAT")]
    log_format: Option<Format>,
}

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Who is logging: it decides the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// A process that runs until it is told to stop.
    Process,
    /// A command that a person waits for.
    Command,
}

/// Sends the logs of this process to stderr.
///
/// # Errors
/// INVALID_ARGUMENT if the filter cannot be read.
pub fn start(arguments: &LogArguments, speaker: Speaker) -> Result<(), Error> {
    let filter = arguments.log.as_deref().unwrap_or(match speaker {
        Speaker::Process => PROCESS_FILTER,
        Speaker::Command => "warn",
    });
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Error::new(Code::InvalidArgument, format!("--log {filter}: {error}"))
            .with_remedy("Give a level (error, warn, info, debug, trace) or module=level, comma-separated.")
    })?;
    let format = arguments.log_format.unwrap_or(match speaker {
        Speaker::Process if !std::io::stdout().is_terminal() => Format::Json,
        _ => Format::Text,
    });
    let lines = tracing_subscriber::fmt().with_env_filter(filter);
    let stderr = BoxMakeWriter::new(std::io::stderr);
    match format {
        Format::Text => lines.with_ansi(Paint::stderr().is_on()).with_writer(stderr).init(),
        Format::Json => lines.json().flatten_event(true).with_writer(stderr).init(),
    }
    Ok(())
}
