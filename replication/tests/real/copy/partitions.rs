//! Partitions: together they are the table, and a rewritten one is not read.

use std::sync::atomic::{AtomicU32, Ordering};

use millrace_replication::copy::{self, CopyJob, CopyLimits, CopyOutcome, CopyProgress};
use millrace_terms::{Code, TableName};
use tokio_util::sync::CancellationToken;

use super::work::{copy_one, insert_id, partitions, prepare, version};
use crate::servers::{Source, destination};

const ODD: &str = "it's \"odd\" `t\\ick` ü.☃";

async fn make_odd_table(session: &millrace_replication::postgres::Session, rows: u32) -> TableName {
    let table = TableName::new("public", ODD);
    let sql = table.to_sql();
    session
        .batch_execute(&format!(
            "create table {sql} (\"i`d\\\"\"\" int8 primary key, \"select\" text);
             insert into {sql} select n, repeat('x', 500) from generate_series(1, {rows}) n"
        ))
        .await
        .unwrap();
    table
}

#[tokio::test]
async fn ranges_of_pages_together_are_the_table_whatever_its_names() {
    let source = Source::new().await;
    let (session, sink) = (source.plain_session().await, destination(&source.word).await);
    let table = make_odd_table(&session, 1000).await;
    let plan = prepare(&session, &sink, &table).await;
    let ranges = partitions(&session, &table, 64 << 10).await;
    assert!(ranges.len() > 5, "{}", ranges.len());
    let mut copied = 0;
    for range in ranges.iter().rev().chain(&ranges) {
        match copy_one(&session, &sink, &plan, range).await.unwrap() {
            CopyOutcome::Done { rows, .. } => copied += rows,
            other => panic!("nobody touches the table: {other:?}"),
        }
    }
    assert_eq!(copied, 2000);
    let (rows, sum): (u64, i64) = sink
        .query_one(&format!("select count(), sum(`i``d\\\\\"`) from {}", sink.qualified(ODD)))
        .await
        .unwrap();
    assert_eq!((rows, sum), (1000, 500_500));
}

#[tokio::test]
async fn a_rewritten_leaf_is_not_read() {
    let source = Source::new().await;
    let (session, sink) = (source.plain_session().await, destination(&source.word).await);
    let table = make_odd_table(&session, 10).await;
    let plan = prepare(&session, &sink, &table).await;
    let before = partitions(&session, &table, 64 << 20).await.remove(0);
    session.batch_execute(&format!("vacuum full {}", table.to_sql())).await.unwrap();
    let outcome = copy_one(&session, &sink, &plan, &before).await.unwrap();
    assert_eq!(outcome, CopyOutcome::Rewritten);

    // The same session goes on with a partition planned anew.
    let after = partitions(&session, &table, 64 << 20).await.remove(0);
    let outcome = copy_one(&session, &sink, &plan, &after).await.unwrap();
    assert!(matches!(outcome, CopyOutcome::Done { rows: 10, .. }), "{outcome:?}");

    // Another table of the same name is not the one that was planned, either.
    session
        .batch_execute(&format!("drop table {0}; create table {0} (id int8)", table.to_sql()))
        .await
        .unwrap();
    let outcome = copy_one(&session, &sink, &plan, &after).await.unwrap();
    assert_eq!(outcome, CopyOutcome::Rewritten);
}

#[tokio::test]
async fn an_empty_table_is_copied_without_an_insert() {
    let source = Source::new().await;
    let (session, sink) = (source.plain_session().await, destination(&source.word).await);
    let table = make_odd_table(&session, 0).await;
    let plan = prepare(&session, &sink, &table).await;
    sink.drop_table(&plan.destination, "").await.unwrap();
    let partition = partitions(&session, &table, 64 << 20).await.remove(0);
    let outcome = copy_one(&session, &sink, &plan, &partition).await.unwrap();
    assert!(matches!(outcome, CopyOutcome::Done { rows: 0, .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_copy_that_lost_its_lease_or_is_cancelled_ends_with_an_error() {
    let source = Source::new().await;
    let sink = destination(&source.word).await;
    let session = source.plain_session().await;
    let table = make_odd_table(&session, 100).await;
    let plan = prepare(&session, &sink, &table).await;
    let partition = partitions(&session, &table, 64 << 20).await.remove(0);
    let (progress, cancel) = (CopyProgress::default(), CancellationToken::new());
    let job = |session, cancel| CopyJob {
        session,
        sink: &sink,
        plan: &plan,
        partition: &partition,
        version: version(),
        id: insert_id("t"),
        limits: CopyLimits { insert_rows: 60, block_rows: 30, ..CopyLimits::default() },
        progress: &progress,
        cancel,
    };
    // The gate is asked once for each insert: the second is the one that is refused.
    let asked = AtomicU32::new(0);
    let error =
        copy::run(job(&session, &cancel), || asked.fetch_add(1, Ordering::Relaxed) == 0).await.unwrap_err();
    assert_eq!(error.code(), Code::LeaseLost);
    assert_eq!((asked.into_inner(), progress.rows_written()), (2, 60));

    let session = source.plain_session().await;
    cancel.cancel();
    let error = copy::run(job(&session, &cancel), || true).await.unwrap_err();
    assert_eq!(error.code(), Code::Cancelled);
    let rows: u64 = sink.query_one(&format!("select count() from {}", sink.qualified(ODD))).await.unwrap();
    assert_eq!(rows, 60);
}
