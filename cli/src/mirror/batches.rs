//! `millrace mirror batches`: what the streams of a mirror did, oldest first.
//!
//! I/O rim; a line is pure.

use clap::Args;
use millrace_proto::v1::{Batch, ListBatchesRequest, ListBatchesResponse};

use crate::client::output::{Column, Output, grid};
use crate::client::{Client, call, figures};

/// Batches per call.
const PAGE_SIZE: usize = 1_000;

/// Arguments of `millrace mirror batches`.
#[derive(Debug, Args)]
pub(super) struct BatchesArguments {
    /// Name of the mirror
    name: String,
    /// Batches at most, the newest ones
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 30)]
    limit: usize,
    /// Only those of the stream with this number
    #[arg(long, value_name = "NUMBER")]
    stream: Option<u16>,
}

pub(super) async fn run(
    client: &mut Client,
    arguments: BatchesArguments,
    output: Output,
) -> anyhow::Result<()> {
    let BatchesArguments { name, limit, stream } = arguments;
    let mut batches: Vec<Batch> = Vec::new();
    let mut page_token = String::new();
    while batches.len() < limit {
        let page_size = i32::try_from((limit - batches.len()).min(PAGE_SIZE))?;
        let stream = stream.map(i32::from);
        let request = ListBatchesRequest { name: name.clone(), page_size, page_token, stream };
        let page = client.mirrors.list_batches(call(request)).await?.into_inner();
        batches.extend(page.batches);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    batches.reverse();
    let answer = ListBatchesResponse { batches, next_page_token: String::new() };
    output.print(&answer, |answer| table(&answer.batches))
}

fn table(batches: &[Batch]) -> String {
    let columns = [
        Column::Text("WRITTEN"),
        Column::Number("STREAM"),
        Column::Number("INSERTS"),
        Column::Number("UPDATES"),
        Column::Number("DELETES"),
        Column::Number("TRUNCATES"),
        Column::Number("TABLES"),
        Column::Number("SIZE"),
        Column::Number("STATEMENTS"),
        Column::Number("EACH"),
        Column::Text("LAST COMMIT"),
        Column::Text("POSITION"),
    ];
    grid(&columns, batches.iter().map(row))
}

fn row(batch: &Batch) -> Vec<String> {
    let each = match batch.flushes {
        0 => "-".to_owned(),
        flushes => format!("{:.0} ms", batch.flush_seconds * 1e3 / flushes as f64),
    };
    vec![
        figures::time(batch.write_time.as_ref()),
        batch.stream.to_string(),
        figures::count(batch.inserts),
        figures::count(batch.updates),
        figures::count(batch.deletes),
        figures::count(batch.truncates),
        batch.tables.to_string(),
        figures::bytes(batch.bytes),
        figures::count(batch.flushes),
        each,
        figures::time(batch.last_commit_time.as_ref()),
        format!("{} to {}", batch.start_position, batch.end_position),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_a_line() {
        let at = |seconds| Some(millrace_proto::Timestamp { seconds, nanos: 0 });
        let batch = Batch {
            write_time: at(1_800_000_010),
            last_commit_time: at(1_800_000_009),
            inserts: 12_000,
            updates: 3,
            tables: 2,
            bytes: 3 << 20,
            flushes: 40,
            flush_seconds: 0.8,
            start_position: "0/1A2B00".into(),
            end_position: "0/1A2B3C".into(),
            ..Default::default()
        };
        insta::assert_snapshot!(table(&[batch]), @r"
        WRITTEN               STREAM  INSERTS  UPDATES  DELETES  TRUNCATES  TABLES     SIZE  STATEMENTS   EACH  LAST COMMIT           POSITION
        2027-01-15T08:00:10Z       0   12,000        3        0          0       2  3.0 MiB          40  20 ms  2027-01-15T08:00:09Z  0/1A2B00 to 0/1A2B3C
        ");
    }
}
