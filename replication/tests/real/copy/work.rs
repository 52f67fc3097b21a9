//! What the tests do again and again.

use std::sync::Arc;

use millrace_replication::clickhouse::{Clickhouse, InsertId};
use millrace_replication::copy::{self, CopyJob, CopyLimits, CopyOutcome, CopyProgress};
use millrace_replication::postgres::partition::{self, Partition};
use millrace_replication::postgres::plan::plan;
use millrace_replication::postgres::{Session, describe};
use millrace_replication::table::TablePlan;
use millrace_replication::version::Version;
use millrace_terms::{Lsn, Result, TableName};
use tokio_util::sync::CancellationToken;

use crate::mirror::options;

pub fn version() -> Version {
    Version::epoch(0, Lsn(0x16_B374_D848))
}

pub fn insert_id(table: &str) -> InsertId {
    InsertId {
        mirror: "test".into(),
        attempt: "copy-1".into(),
        table: table.to_owned(),
        position: "0".into(),
    }
}

/// Plans a source table under its own name and makes its destination.
pub async fn prepare(session: &Session, sink: &Clickhouse, table: &TableName) -> Arc<TablePlan> {
    let shape = describe::describe(session, std::slice::from_ref(table)).await.unwrap().remove(0);
    let plan = plan(&shape, &options(&table.name)).unwrap();
    sink.create_table(&plan, "").await.unwrap();
    Arc::new(plan)
}

/// The partitions of a table, of about `bytes` each.
pub async fn partitions(session: &Session, table: &TableName, bytes: u64) -> Vec<Partition> {
    let shape = describe::describe(session, std::slice::from_ref(table)).await.unwrap().remove(0);
    partition::plan(session, &shape.leaves, bytes).await.unwrap()
}

pub async fn copy_one(
    session: &Session,
    sink: &Clickhouse,
    plan: &Arc<TablePlan>,
    partition: &Partition,
) -> Result<CopyOutcome> {
    let (progress, cancel) = (CopyProgress::default(), CancellationToken::new());
    let job = CopyJob {
        session,
        sink,
        plan,
        partition,
        version: version(),
        id: insert_id(&plan.destination),
        limits: CopyLimits { block_rows: 7, ..CopyLimits::default() },
        progress: &progress,
        cancel: &cancel,
    };
    let outcome = copy::run(job, || true).await?;
    if let CopyOutcome::Done { rows, bytes, .. } = outcome {
        assert_eq!((progress.rows_read(), progress.rows_written()), (rows, rows));
        assert_eq!(progress.bytes_read(), bytes);
    }
    Ok(outcome)
}

/// Copies a whole table; returns its rows.
pub async fn copy_all(session: &Session, sink: &Clickhouse, plan: &Arc<TablePlan>) -> u64 {
    let mut copied = 0;
    for partition in partitions(session, &plan.source, 64 << 20).await {
        match copy_one(session, sink, plan, &partition).await.unwrap() {
            CopyOutcome::Done { rows, read_end, .. } => {
                assert!(read_end > Lsn::ZERO);
                copied += rows;
            }
            other => panic!("nobody touches the table: {other:?}"),
        }
    }
    copied
}
