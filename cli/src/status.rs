//! `millrace status`.
//!
//! I/O rim; what it shows is pure.

use std::collections::BTreeMap;

use clap::Args;
use millrace_proto::v1::{Failure, GetSystemStatusRequest, SystemStatus, TaskQueue};

use crate::client::{Client, ClientArguments, call, figures};

/// Arguments of `millrace status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  millrace status                                        everything on one screen
  millrace status -o json | jq .stalled_streams          for programs")]
pub struct StatusArguments {
    #[command(flatten)]
    client: ClientArguments,
}

/// Runs the command.
///
/// # Errors
/// What the server answers; SERVER_UNREACHABLE if it does not.
pub async fn run(arguments: StatusArguments) -> anyhow::Result<()> {
    let ClientArguments { link, output, .. } = arguments.client;
    let mut client = Client::connect(&link).await?;
    let answer = client.system.get_system_status(call(GetSystemStatusRequest {})).await?.into_inner();
    output.print(&answer, shown)
}

fn shown(status: &SystemStatus) -> String {
    let mut lines = vec![
        format!(
            "millrace {}, installation {}, catalog version {}",
            status.version, status.installation, status.catalog_version
        ),
        format!("workers: {}", list(status.queues.iter().map(workers))),
        format!(
            "mirrors: {}{}",
            counted(status.mirrors, &status.mirrors_by_state),
            match status.mirrors_by_verdict.is_empty() {
                true => String::new(),
                false => format!("; streams: {}", words(&status.mirrors_by_verdict)),
            }
        ),
        format!("tables: {}", counted(status.tables, &status.tables_by_state)),
        format!(
            "rows: {} copied, {} streamed",
            figures::rate(status.copy_rows_per_second),
            figures::rate(status.stream_rows_per_second)
        ),
    ];
    lines.push(match &status.worst_lag {
        None => "lag: none".to_owned(),
        Some(lag) => format!(
            "lag: {}, {} at most (mirror {}, stream {})",
            figures::bytes(lag.bytes),
            figures::duration(lag.seconds),
            lag.mirror,
            lag.stream
        ),
    });
    lines.extend(troubles(status));
    lines.join("\n")
}

/// What somebody should look at, each with its remedy.
fn troubles(status: &SystemStatus) -> Vec<String> {
    let mut lines = Vec::new();
    for stalled in &status.stalled_streams {
        let what = format!("mirror {}, stream {}: STALLED", stalled.mirror, stalled.stream);
        lines.push(trouble(&what, stalled.failure.as_ref()));
    }
    for failed in &status.failed_tables {
        let what = format!("mirror {}, table {}: ERROR", failed.mirror, failed.table);
        lines.push(trouble(&what, failed.failure.as_ref()));
    }
    for risk in &status.slots_at_risk {
        let Some(slot) = &risk.slot else { continue };
        let when = match slot.seconds_to_limit {
            Some(seconds) => format!("is full in {}", figures::duration(seconds)),
            None => format!("is {}", slot.wal_status),
        };
        let retained = figures::bytes(slot.retained_bytes);
        lines.push(format!(
            "\nmirror {}, slot {}: {when}; it holds {retained} of the log",
            risk.mirror, slot.name
        ));
    }
    lines
}

fn trouble(what: &str, failure: Option<&Failure>) -> String {
    let Some(failure) = failure else { return format!("\n{what}") };
    format!(
        "\n{what}: {}\n remedy: {}\n   code: {}, since {}",
        failure.message,
        failure.remedy,
        failure.code,
        figures::time(failure.since.as_ref())
    )
}

fn workers(queue: &TaskQueue) -> String {
    match &queue.failure {
        Some(failure) => format!("{} unknown ({})", queue.kind, failure.code),
        None => format!("{} {}", queue.kind, queue.workers),
    }
}

/// `3 (2 RUNNING, 1 PAUSED)`.
fn counted(number: i32, kinds: &BTreeMap<String, i32>) -> String {
    match kinds.is_empty() {
        true => number.to_string(),
        false => format!("{number} ({})", words(kinds)),
    }
}

fn words(kinds: &BTreeMap<String, i32>) -> String {
    list(kinds.iter().map(|(kind, number)| format!("{number} {kind}")))
}

fn list(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use millrace_proto::v1::{ReplicationSlot, SlotTrouble, StreamLag, StreamTrouble};

    use super::*;

    #[test]
    fn it_fits_on_a_screen_and_troubles_have_remedies() {
        let queue = |kind: &str, workers| TaskQueue { kind: kind.into(), workers, ..Default::default() };
        let numbers =
            |words: &[(&str, i32)]| words.iter().map(|(word, n)| ((*word).to_owned(), *n)).collect();
        let status = SystemStatus {
            version: "0.1.0".into(),
            installation: "a1b2c3".into(),
            catalog_version: 13,
            queues: vec![queue("control", 2), queue("snapshot", 2), queue("stream", 0)],
            mirrors: 3,
            mirrors_by_state: numbers(&[("RUNNING", 2), ("PAUSED", 1)]),
            mirrors_by_verdict: numbers(&[("HEALTHY", 1), ("STALLED", 2)]),
            tables: 12,
            tables_by_state: numbers(&[("STREAMING", 12)]),
            stream_rows_per_second: 1_234.0,
            worst_lag: Some(StreamLag { mirror: "shop".into(), stream: 0, bytes: 2_048, seconds: 0.4 }),
            stalled_streams: vec![StreamTrouble {
                mirror: "shop".into(),
                stream: 0,
                failure: Some(Failure {
                    code: "NO_WORKERS".into(),
                    message: "no worker has streamed since 2026-11-21T03:27:00Z".into(),
                    remedy: "Start a worker.".into(),
                    since: None,
                }),
            }],
            slots_at_risk: vec![SlotTrouble {
                mirror: "shop".into(),
                stream: 0,
                slot: Some(ReplicationSlot {
                    name: "millrace_a1b2c3_shop".into(),
                    retained_bytes: 9 << 30,
                    seconds_to_limit: Some(600.0),
                    ..Default::default()
                }),
            }],
            ..Default::default()
        };
        insta::assert_snapshot!(shown(&status), @r"
        millrace 0.1.0, installation a1b2c3, catalog version 13
        workers: control 2, snapshot 2, stream 0
        mirrors: 3 (1 PAUSED, 2 RUNNING); streams: 1 HEALTHY, 2 STALLED
        tables: 12 (12 STREAMING)
        rows: 0 rows/s copied, 1,234 rows/s streamed
        lag: 2.0 KiB, 0.4 s at most (mirror shop, stream 0)

        mirror shop, stream 0: STALLED: no worker has streamed since 2026-11-21T03:27:00Z
         remedy: Start a worker.
           code: NO_WORKERS, since -

        mirror shop, slot millrace_a1b2c3_shop: is full in 10 min; it holds 9.0 GiB of the log
        ");
    }
}
