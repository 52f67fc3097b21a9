//! `millrace demo`: everything on this machine, a small shop, its mirror, and the proof that both sides
//! are equal.
//!
//! - [`shop`]: the tables and their rows. [`generator`]: the traffic on them.
//! - [`mirror`]: the mirror, through the API. [`latency`]: commit to visible.
//! - [`compare`]: both sides, row by row. [`report`]: what was found. [`display`]: what a person sees.
//! - [`sides`]: sessions on both sides.
//!
//! I/O rim.

mod compare;
mod display;
mod generator;
mod latency;
mod mirror;
mod report;
mod shop;
mod sides;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use millrace_terms::Lsn;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::display::{Display, Stream};
use self::generator::Traffic;
use self::latency::Probe;
use self::mirror::Mirror;
use self::report::{Latency, Report, rate};
use self::shop::{DATABASE, SCHEMA, TABLES};
use self::sides::Sides;
use crate::dev;
use crate::dev::endpoints::Endpoints;
use crate::failure::EXIT_DIFFERENT;
use crate::signals;

/// Exit code of a proof that was interrupted.
const EXIT_INTERRUPTED: u8 = 130;

/// Workers of the demo: two, so that work is seen to be shared.
const WORKERS: usize = 2;
/// Changed rows a second that the demo's traffic makes.
const PACE: f64 = 1_000.0;
/// Changed rows that `--once` streams at least at that pace, besides its burst.
const PACED_MIN: u64 = 8_000;
/// Samples of the latency that `--once` takes at least.
const SAMPLES_MIN: usize = 60;
/// Changed rows that `--once` streams at least in all.
const STREAMED_MIN: u64 = 20_000;
/// Pause between two looks at the mirror.
const LOOK: Duration = Duration::from_millis(250);

/// Arguments of `millrace demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  millrace demo                  # until Ctrl-C
  millrace demo --once --json    # proves that both sides are equal, and ends")]
pub struct DemoArguments {
    /// End by itself: compare both sides, exit 0 if they are equal
    #[arg(long)]
    once: bool,
    /// End with one line of JSON on stdout
    #[arg(long)]
    json: bool,
    /// Keep the databases here instead of in a directory that is removed at the end
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Runs the demo.
///
/// # Errors
/// EMBEDDED_UNAVAILABLE if something is missing on this machine, or what the mirror fails with.
pub async fn run(arguments: DemoArguments) -> anyhow::Result<ExitCode> {
    let shutdown = signals::shutdown()?;
    let temporary = match &arguments.state_dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("millrace-demo-").tempdir()?),
    };
    let dir = match (&arguments.state_dir, &temporary) {
        (Some(dir), _) => dir.clone(),
        (None, Some(dir)) => dir.path().to_owned(),
        (None, None) => anyhow::bail!("no directory"),
    };
    let Some(mut stack) = dev::start(&dir, WORKERS, &shutdown).await? else {
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    };
    let endpoints = stack.endpoints();
    let end = CancellationToken::new();
    let shown = async {
        let result = shutdown.run_until_cancelled(Box::pin(show(&arguments, &endpoints, &shutdown))).await;
        end.cancel();
        result
    };
    let (shown, watched) = tokio::join!(shown, stack.watch(false, &end));
    stack.stop().await;
    watched?;
    match shown {
        Some(code) => code,
        None if arguments.once => Ok(ExitCode::from(EXIT_INTERRUPTED)),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// The demo on a running stack.
async fn show(
    arguments: &DemoArguments,
    endpoints: &Endpoints,
    shutdown: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    print_addresses(endpoints)?;
    let mut display = Display::new(TABLES.len())?;
    let sides = Sides::new(endpoints)?;
    display.say("seeding the shop ...");
    seed(&sides).await?;
    let begin = Instant::now();
    let mut mirror = Mirror::create(endpoints, &sides).await?;
    // Nothing is copied where an earlier run of this state directory did it.
    let was_streaming = mirror::is_streaming(&mirror.get().await?);
    let mut show = Show { display: &mut display, since: Instant::now(), changed: 0 };
    let mut traffic = Traffic::start(&sides, PACE).await?;
    while !mirror::is_streaming(&show.look(&mut mirror, &mut traffic, None).await?) {
        tokio::time::sleep(LOOK).await;
    }
    let copied_in = begin.elapsed();
    let copied: i64 = mirror.get().await?.tables.iter().map(|table| table.rows_copied).sum();
    let copied = if was_streaming { 0 } else { copied.unsigned_abs() };
    show.display.say(&format!(
        "every table is copied and streams: {copied} rows in {:.1} s",
        copied_in.as_secs_f64()
    ));
    let before = traffic.changed();
    let probe = Probe::start(&sides).await?;
    while !shutdown.is_cancelled() && probe.is_running() {
        let enough = traffic.changed() - before >= PACED_MIN && probe.samples().len() >= SAMPLES_MIN;
        if arguments.once && enough {
            break;
        }
        show.look(&mut mirror, &mut traffic, Some(&probe)).await?;
        tokio::time::sleep(LOOK).await;
    }
    let samples = probe.stop().await?;
    let mut stream_rows = traffic.stop().await? - before + samples.len() as u64;
    let (burst_rows, burst_in) = burst(&sides, &mut mirror, STREAMED_MIN.saturating_sub(stream_rows)).await?;
    stream_rows += burst_rows;
    display.clear();
    let (rows, differences) = compare_all(&sides, &display).await?;
    let report = Report {
        equal: differences == 0,
        rows,
        snapshot_rows: copied,
        stream_rows,
        snapshot_rows_per_s: rate(copied, copied_in),
        stream_rows_per_s: rate(burst_rows, burst_in),
        latency_ms: Latency::of(&samples),
    };
    print_report(&report, arguments.json)?;
    Ok(if report.equal { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DIFFERENT) })
}

/// What is shown from one look to the next.
struct Show<'a> {
    display: &'a mut Display,
    since: Instant,
    changed: u64,
}

impl Show<'_> {
    async fn look(
        &mut self,
        mirror: &mut Mirror,
        traffic: &mut Traffic,
        probe: Option<&Probe>,
    ) -> anyhow::Result<millrace_proto::v1::Mirror> {
        traffic.check()?;
        let now = mirror.get().await?;
        let changed = traffic.changed();
        let per_s = rate(changed - self.changed, self.since.elapsed());
        (self.changed, self.since) = (changed, Instant::now());
        let latency = probe.map(|probe| Latency::of(&probe.samples())).unwrap_or_default();
        self.display.show(&now, Stream { changed, per_s, latency });
        Ok(now)
    }
}

/// Makes the shop, unless it is there from an earlier run.
async fn seed(sides: &Sides) -> anyhow::Result<()> {
    let admin = sides.admin().await?;
    let exists = "select 1 from pg_database where datname = $1";
    if admin.query_opt(exists, &[&DATABASE]).await?.is_some() {
        return Ok(());
    }
    // Renamed when it is complete: an interrupted seed is begun anew.
    let draft = format!("{DATABASE}_draft");
    admin.batch_execute(&format!("drop database if exists {draft}")).await?;
    admin.batch_execute(&format!("create database {draft}")).await?;
    let client = sides.database(&draft).await?;
    client.batch_execute(SCHEMA).await?;
    for statement in shop::seed() {
        client.batch_execute(&statement).await?;
    }
    drop(client);
    // The session above may need a moment to end.
    admin
        .batch_execute(&format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{draft}'"
        ))
        .await?;
    admin.batch_execute(&format!("alter database {draft} rename to {DATABASE}")).await?;
    Ok(())
}

/// Writes as fast as it goes, at least `min` rows, and waits until all of it is in ClickHouse.
async fn burst(sides: &Sides, mirror: &mut Mirror, min: u64) -> anyhow::Result<(u64, Duration)> {
    let client = sides.shop().await?;
    let begin = Instant::now();
    let mut rows = 0;
    loop {
        let changed = generator::burst(&client).await?;
        rows += changed;
        if rows >= min || changed == 0 {
            break;
        }
    }
    let sql = "select pg_logical_emit_message(true, 'millrace-demo', 'end')::text";
    let end: String = client.query_one(sql, &[]).await?.get(0);
    let end: Lsn = end.parse()?;
    mirror.catch_up(end).await?;
    Ok((rows, begin.elapsed()))
}

/// Rows compared, and rows that differ; these are printed.
async fn compare_all(sides: &Sides, display: &Display) -> anyhow::Result<(u64, u64)> {
    let source = sides.shop().await?;
    let destination = sides.clickhouse();
    let (mut rows, mut differences) = (0, 0);
    for table in &TABLES {
        let outcome = compare::compare(&source, &destination, table).await?;
        let verdict = if outcome.differences == 0 { "equal" } else { "DIFFERENT" };
        display.say(&format!("{:12} {:>9} rows {verdict}", table.name, outcome.rows));
        for line in &outcome.shown {
            print(line)?;
        }
        let more = outcome.differences - outcome.shown.len() as u64;
        if more > 0 {
            print(&format!("{}: {more} more differ", table.name))?;
        }
        rows += outcome.rows;
        differences += outcome.differences;
    }
    Ok((rows, differences))
}

fn print_addresses(endpoints: &Endpoints) -> std::io::Result<()> {
    for (what, url) in [
        ("API (gRPC)", &endpoints.grpc),
        ("Health", &endpoints.http),
        ("Temporal UI", &endpoints.temporal_ui),
        ("PostgreSQL", &endpoints.source),
        ("ClickHouse", &endpoints.clickhouse),
    ] {
        print(&format!("{what:>14}  {url}"))?;
    }
    Ok(())
}

fn print_report(report: &Report, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return Ok(print(&serde_json::to_string(report)?)?);
    }
    let Report { rows, snapshot_rows, stream_rows, latency_ms, .. } = report;
    let verdict = if report.equal { "equal on both sides" } else { "NOT equal" };
    print(&format!("{rows} rows are {verdict}"))?;
    print(&format!("copied {snapshot_rows} rows at {} rows/s", report.snapshot_rows_per_s))?;
    print(&format!("streamed {stream_rows} changes, the burst at {} rows/s", report.stream_rows_per_s))?;
    let Latency { p50, p95, p99 } = latency_ms;
    Ok(print(&format!("commit to visible: {p50} ms (p95 {p95} ms, p99 {p99} ms)"))?)
}

fn print(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}
