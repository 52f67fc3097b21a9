//! Measures Millrace beside the limits that the databases at its two ends set.
//!
//! Everything runs on this machine: `millrace dev` starts the real processes, and each figure is taken
//! in the same run as its limit, in turn with it, so that a noisy machine slows both.
//!
//! - [`snapshot`], [`stream`], [`latency`], [`memory`], [`scale`]: what is measured.
//! - [`limits`]: what the databases do without us.
//! - [`bed`]: the processes and the sessions to them. [`api`]: the calls. [`meter`]: what processes use.
//! - [`tables`], [`backlog`]: the data. [`seen`]: when it is visible.
//! - [`report`]: figures, medians, and the tables of `docs/benchmarks.md`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod api;
mod backlog;
mod bed;
mod latency;
mod limits;
mod memory;
mod meter;
mod report;
mod scale;
mod seen;
mod snapshot;
mod stream;
mod tables;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};

use crate::report::Report;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Everything below
    All,
    /// Copies of tables
    Snapshot,
    /// A backlog of changes
    Stream,
    /// From commit to visible
    Latency,
    /// Peaks of memory, and what idle mirrors cost
    Memory,
    /// Many mirrors, tables and workers; a killed worker
    Scale,
}

/// Measures Millrace beside the limits of PostgreSQL and ClickHouse on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure
    what: What,
    /// Print figures as one line of JSON
    #[arg(long)]
    json: bool,
    /// Few rows and one round: only whether everything works
    #[arg(long)]
    small: bool,
    /// Rounds of each measurement; the median is told
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Rows of the reference table in snapshots [default: 5,000,000]
    #[arg(long)]
    rows: Option<u64>,
    /// Changes of a backlog [default: 1,000,000]
    #[arg(long)]
    changes: Option<u64>,
    /// Only what has this in its name
    #[arg(long, default_value = "")]
    only: String,
    /// Write the tables into docs/benchmarks.md
    #[arg(long)]
    write: bool,
    /// Name by which the worker dials ClickHouse; what it sends is compressed, unless that is the loopback's
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    clickhouse_host: String,
    /// The `millrace` to measure; without it, it is built
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

impl Arguments {
    /// What is to be given to measure the same, without what is measured.
    fn how(&self) -> String {
        let rounds = format!(" --rounds {}", self.rounds);
        let number = |flag: &str, value: Option<u64>| value.map(|value| format!(" --{flag} {value}"));
        let only = Some(format!(" --only {}", self.only)).filter(|_| !self.only.is_empty());
        let host = Some(format!(" --clickhouse-host {}", self.clickhouse_host));
        let host = host.filter(|_| self.clickhouse_host != "127.0.0.1");
        [Some(rounds), number("rows", self.rows), number("changes", self.changes), only, host]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// How much is measured.
#[derive(Debug, Clone)]
struct Scope {
    binary: PathBuf,
    rounds: u32,
    rows: u64,
    changes: u64,
    only: String,
    small: bool,
    /// Name of the machine that ClickHouse is on, this one.
    clickhouse_host: String,
}

impl Scope {
    fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }

    /// The number of the first round. Round 0 is not counted: it fills caches.
    fn first_round(&self) -> u32 {
        self.or_small(0, 1)
    }

    /// A number, or another in a small run.
    fn or_small<T>(&self, full: T, small: T) -> T {
        if self.small { small } else { full }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => build()?,
    };
    let scope = Scope {
        binary,
        rounds: if arguments.small { 1 } else { arguments.rounds },
        rows: arguments.rows.unwrap_or(if arguments.small { 20_000 } else { 5_000_000 }),
        changes: arguments.changes.unwrap_or(if arguments.small { 5_000 } else { 1_000_000 }),
        only: arguments.only.clone(),
        small: arguments.small,
        clickhouse_host: arguments.clickhouse_host.clone(),
    };
    let mut report = Report::new(arguments.how());
    let is = |what: What| arguments.what == What::All || arguments.what == what;
    if is(What::Snapshot) {
        report.add(Box::pin(snapshot::measure(&scope)).await.context("snapshot")?);
    }
    if is(What::Stream) {
        report.add(Box::pin(stream::measure(&scope)).await.context("stream")?);
    }
    if is(What::Latency) {
        report.add(Box::pin(latency::measure(&scope)).await.context("latency")?);
    }
    if is(What::Memory) {
        report.add(Box::pin(memory::measure(&scope)).await.context("memory")?);
    }
    if is(What::Scale) {
        report.add(Box::pin(scale::measure(&scope)).await.context("scale")?);
    }
    if arguments.write {
        report.write(&repository().join("docs/benchmarks.md"))?;
    }
    let text = if arguments.json { report.json()? } else { report.markdown() };
    writeln!(std::io::stdout(), "{text}")?;
    Ok(ExitCode::SUCCESS)
}

/// Says how far we are.
fn say(text: &str) {
    // Nobody need read it.
    drop(writeln!(std::io::stderr(), "bench: {text}"));
}

/// Builds the binary, as we were built, and returns where it is.
fn build() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe().context("finding our own executable")?;
    let directory = here.parent().context("our own executable has no directory")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "millrace"]).current_dir(repository());
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let target = directory.parent().context("our own executable is in no target directory")?;
    let built = command.env("CARGO_TARGET_DIR", target).status().context("running cargo")?;
    ensure!(built.success(), "millrace could not be built");
    Ok(directory.join("millrace"))
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
