//! `millrace dev`: the embedded stack in the foreground, each part a process of its own.
//!
//! - [`state`]: the state directory. [`endpoints`]: what other programs read.
//! - [`part`]: the processes. [`stack`]: all of them together.
//!
//! I/O rim.

pub(crate) mod endpoints;
mod part;
pub(crate) mod stack;
mod state;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use millrace_terms::{Code, Error};
use tokio_util::sync::CancellationToken;

use self::part::Ground;
use self::stack::{Stack, say};
use self::state::State;
use crate::signals;

/// Where root keeps the state by default: PostgreSQL's user must reach it.
const SYSTEM_STATE_DIR: &str = "/var/lib/millrace/dev";

/// Arguments of `millrace dev`.
#[derive(Debug, Args)]
#[command(after_help = "\
Addresses are chosen at the first start of a state directory and stay. When everything is ready they are in
DIR/endpoints.json; logs are in DIR/logs. Ctrl-C stops everything; the data stay.

Examples:
  millrace dev
  millrace dev --state-dir /tmp/try --workers 2")]
pub struct DevArguments {
    /// Directory of all data and addresses [default: ~/.local/state/millrace/dev, for root /var/lib/millrace/dev]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Number of workers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=64))]
    workers: u8,
    /// Start what ends again
    #[arg(long)]
    restart: bool,
}

/// Runs the stack until SIGINT or SIGTERM.
///
/// # Errors
/// EMBEDDED_UNAVAILABLE if something is missing on this machine or does not start.
pub async fn run(arguments: DevArguments) -> anyhow::Result<ExitCode> {
    let shutdown = signals::shutdown()?;
    let dir = match arguments.state_dir {
        Some(dir) => dir,
        None => default_dir()?,
    };
    let Some(mut stack) = start(&dir, usize::from(arguments.workers), &shutdown).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    announce(&dir, &stack);
    let watched = stack.watch(arguments.restart, &shutdown).await;
    say("stopping");
    stack.stop().await;
    watched?;
    Ok(ExitCode::SUCCESS)
}

/// Starts a stack; `None` if it is to shut down before all of it runs.
///
/// # Errors
/// EMBEDDED_UNAVAILABLE if something is missing on this machine or does not start.
pub(crate) async fn start(
    dir: &Path,
    workers: usize,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<Stack>> {
    let state = State::open(dir, workers)?;
    let (ready, prepared) = tokio::sync::oneshot::channel();
    // Not one of the runtime's threads: the process would wait for their end when it is told to stop.
    // What is being fetched then was not installed: the cache knows only whole entries.
    std::thread::spawn(move || drop(ready.send(Ground::prepare(state))));
    let Some(ground) = shutdown.run_until_cancelled(prepared).await else { return Ok(None) };
    let ground = ground.context("preparing this machine")??;
    let mut stack = Stack::new(ground, workers);
    let started = shutdown.run_until_cancelled(stack.start()).await;
    if matches!(started, Some(Ok(()))) {
        return Ok(Some(stack));
    }
    stack.stop().await;
    started.transpose().map(|_| None)
}

fn announce(dir: &Path, stack: &Stack) {
    let endpoints = stack.endpoints();
    say(&format!("ready; addresses are in {}", dir.join("endpoints.json").display()));
    for (what, url) in [
        ("API", &endpoints.grpc),
        ("HTTP", &endpoints.http),
        ("Temporal UI", &endpoints.temporal_ui),
        ("source", &endpoints.source),
        ("ClickHouse", &endpoints.clickhouse),
    ] {
        say(&format!("{what:>12}  {url}"));
    }
}

fn default_dir() -> Result<PathBuf, Error> {
    if nix::unistd::geteuid().is_root() {
        return Ok(PathBuf::from(SYSTEM_STATE_DIR));
    }
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("XDG_STATE_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/state")))
        .map(|base| base.join("millrace/dev"))
        .ok_or_else(|| {
            Error::new(Code::EmbeddedUnavailable, "there is no HOME to keep the state in")
                .with_remedy("Give --state-dir.")
        })
}
