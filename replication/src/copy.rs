//! The copy of one partition: a range of a leaf's pages, read by COPY and inserted as it comes. I/O.
//!
//! ```text
//! source ──COPY BINARY──▶ reader ──fields──▶ block ──Native──▶ channel (1) ──▶ INSERT ──▶ ClickHouse
//! ```
//! Reading and inserting overlap: while one encoded block is being sent, the next is filled. All rows
//! of a partition bear one version, that of the copy's epoch, so an interrupted copy is simply
//! repeated (see `version`).
//!
//! Why a partition is read the way it is: rows that a transaction moves to other pages are changes,
//! and the stream delivers them. A *rewrite* (`VACUUM FULL`, `CLUSTER`, a rewriting `ALTER TABLE`)
//! moves rows with no change at all. Therefore each read first locks the leaf against rewrites, and
//! then compares its file with the one that the partition was planned for. It does so in READ
//! COMMITTED: a REPEATABLE READ transaction that waited for the rewrite would see an empty table.
//!
//! Under the same lock it looks up what the table's columns are called now; see `shape` for what a copy
//! reads of a table whose columns change meanwhile.

mod lock;
mod progress;
mod reader;
mod shape;
mod sql;
pub mod whole;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::{StreamExt, pin_mut};
use millrace_terms::{Code, Error, Lsn, Result};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::progress::CopyProgress;
pub use self::reader::{Reader, Row};
pub use self::shape::covers;
pub(crate) use self::sql::{expression as column_expression, text as text_expression};
use crate::block::{Block, Nulled, Operation, Stamp};
use crate::clickhouse::{Clickhouse, Insert, InsertId};
use crate::postgres::partition::Partition;
use crate::postgres::{Session, from_sql};
use crate::table::TablePlan;
use crate::types::Field;
use crate::version::Version;

/// Encoded blocks that wait for the insert. One is enough for reading and sending to overlap; each
/// costs up to [`CopyLimits::block_bytes`] of memory.
const BLOCKS_WAITING: usize = 1;

/// How much is gathered. A copy holds at most three blocks: one being filled, one waiting, one being
/// sent. One row above the limits makes a block of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyLimits {
    /// Rows of a block.
    pub block_rows: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Rows of an INSERT, which is many blocks: few large inserts cost ClickHouse least.
    pub insert_rows: u64,
    /// Bytes of an INSERT: what the server gathers in memory before it writes a part.
    pub insert_bytes: u64,
}

impl Default for CopyLimits {
    fn default() -> Self {
        Self { block_rows: 65_536, block_bytes: 4 << 20, insert_rows: 1 << 20, insert_bytes: 256 << 20 }
    }
}

/// One partition to copy.
#[derive(Debug)]
pub struct CopyJob<'a> {
    /// A session on the source with no transaction open. After an error it must be closed.
    pub session: &'a Session,
    /// The destination.
    pub sink: &'a Clickhouse,
    /// The table.
    pub plan: &'a Arc<TablePlan>,
    /// The range of pages.
    pub partition: &'a Partition,
    /// The version of all its rows: that of the copy's epoch.
    pub version: Version,
    /// Whose inserts they are.
    pub id: InsertId,
    /// How much is gathered.
    pub limits: CopyLimits,
    /// Counted while it runs.
    pub progress: &'a CopyProgress,
    /// Ends the copy early, with `CANCELLED`.
    pub cancel: &'a CancellationToken,
}

/// How the copy of a partition ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyOutcome {
    /// All its rows are in the destination.
    Done {
        /// Rows copied.
        rows: u64,
        /// Bytes read from the source.
        bytes: u64,
        /// A position of the log not below any change that the read has seen.
        read_end: Lsn,
        /// Values that became NULL.
        nulled: Nulled,
    },
    /// The leaf was rewritten since the partition was planned: nothing was copied, the leaf is to be
    /// planned and read again, for the same epoch. Or it is there no more.
    Rewritten,
    /// The columns of the table are others than the plan can hold, and why: nothing was copied, the table
    /// is to be planned and copied anew.
    Reshaped(Error),
}

/// Copies one partition. `gate` says whether the caller still holds its lease: it is asked before the
/// last chunk of every INSERT.
///
/// # Errors
/// `CANCELLED`, `LEASE_LOST`, `VALUE_UNREPRESENTABLE` naming table and column, and those of the source
/// and the destination. Rows may then have been inserted already; the repeat writes them again.
pub async fn run(job: CopyJob<'_>, gate: impl Fn() -> bool) -> Result<CopyOutcome> {
    let cancelled = || Error::new(Code::Cancelled, format!("the copy of {} was cancelled", job.plan.source));
    tokio::select! {
        biased;
        () = job.cancel.cancelled() => Err(cancelled()),
        outcome = copy(&job, gate) => {
            outcome.map_err(|error| error.context(format_args!("copying {}", job.partition.leaf)))
        }
    }
}

async fn copy(job: &CopyJob<'_>, gate: impl Fn() -> bool) -> Result<CopyOutcome> {
    let Some(locked) = lock::lock(job.session, job.partition, job.plan.oid).await? else {
        return Ok(CopyOutcome::Rewritten);
    };
    let carried = match shape::carried(job.plan, &locked.columns) {
        Ok(carried) => carried,
        Err(why) => return reshaped(job.session, why).await,
    };
    let sql = sql::copy(&carried, &locked.leaf, job.partition);
    let Transferred { rows, bytes, nulled } = transfer(job, &carried.plan, &sql, gate).await?;
    let read_end = lock::end(job.session).await?;
    Ok(CopyOutcome::Done { rows, bytes, read_end, nulled })
}

async fn reshaped(session: &Session, why: Error) -> Result<CopyOutcome> {
    session.batch_execute("rollback").await.map_err(|e| from_sql("ending the transaction", &e))?;
    Ok(CopyOutcome::Reshaped(why))
}

/// What went through.
#[derive(Debug, Default)]
struct Transferred {
    rows: u64,
    /// Bytes read.
    bytes: u64,
    nulled: Nulled,
}

/// Reads what a COPY gives, in the columns of `plan`, and inserts it.
async fn transfer(
    job: &CopyJob<'_>,
    plan: &Arc<TablePlan>,
    sql: &str,
    gate: impl Fn() -> bool,
) -> Result<Transferred> {
    let (sender, receiver) = mpsc::channel(BLOCKS_WAITING);
    let (read, written) = tokio::join!(read(job, plan, sql, sender), write(job, plan, receiver, gate));
    // An error of the insert also ends the reading: it is the cause.
    written?;
    read
}

/// Reads all rows of the partition into blocks, and hands them on encoded.
async fn read(
    job: &CopyJob<'_>,
    plan: &Arc<TablePlan>,
    sql: &str,
    sender: mpsc::Sender<Encoded>,
) -> Result<Transferred> {
    let stream = job.session.copy_out(sql).await.map_err(|error| from_sql("starting COPY", &error))?;
    pin_mut!(stream);
    let mut rows = Rows::new(job, plan);
    let mut all = Transferred::default();
    let mut ended = false;
    while !ended {
        match stream.next().await {
            Some(chunk) => rows.take(&chunk.map_err(|error| from_sql("reading COPY", &error))?)?,
            None => {
                rows.reader.finish()?;
                ended = true;
            }
        }
        if !rows.is_full() && (!ended || rows.block.rows() == 0) {
            continue;
        }
        let encoded = rows.encode(&mut all.nulled)?;
        job.progress.add_read(encoded.rows, encoded.read_bytes);
        all.rows += encoded.rows;
        all.bytes += encoded.read_bytes;
        if sender.send(encoded).await.is_err() {
            // The insert has failed, and its error is reported.
            break;
        }
    }
    Ok(all)
}

/// Inserts the blocks as they come.
async fn write(
    job: &CopyJob<'_>,
    plan: &TablePlan,
    mut receiver: mpsc::Receiver<Encoded>,
    gate: impl Fn() -> bool,
) -> Result<()> {
    let mut open: Option<Open> = None;
    while let Some(encoded) = receiver.recv().await {
        let current = open.get_or_insert_with(|| Open {
            insert: job.sink.begin_insert(plan, &job.id),
            rows: 0,
            bytes: 0,
        });
        current.rows += encoded.rows;
        current.bytes += encoded.data.len() as u64;
        current.insert.send(encoded.data).await?;
        if current.rows >= job.limits.insert_rows || current.bytes >= job.limits.insert_bytes {
            finish(job, open.take(), &gate).await?;
        }
    }
    finish(job, open, &gate).await
}

/// An INSERT under way.
struct Open {
    insert: Insert,
    rows: u64,
    bytes: u64,
}

async fn finish(job: &CopyJob<'_>, open: Option<Open>, gate: impl Fn() -> bool) -> Result<()> {
    if let Some(open) = open {
        open.insert.end(gate).await?;
        job.progress.add_written(open.rows);
    }
    Ok(())
}

/// Microseconds since 1970.
pub(crate) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

/// A block as it is sent.
struct Encoded {
    data: Bytes,
    rows: u64,
    /// Bytes that were read for it.
    read_bytes: u64,
}

/// Rows on their way from COPY into a block.
struct Rows<'a> {
    limits: &'a CopyLimits,
    stamp: Stamp,
    reader: Reader,
    block: Block,
    /// For each column whether it is read in binary form.
    binary: Vec<bool>,
    /// Bytes read for the block.
    bytes: u64,
}

impl<'a> Rows<'a> {
    fn new(job: &'a CopyJob<'a>, plan: &Arc<TablePlan>) -> Self {
        let binary: Vec<_> = plan.columns.iter().map(|column| column.conversion.binary_known()).collect();
        Self {
            limits: &job.limits,
            stamp: Stamp { version: job.version.0, operation: Operation::Snapshot, at: now() },
            reader: Reader::new(binary.len()),
            block: Block::new(plan.clone(), job.sink.time_range()),
            binary,
            bytes: 0,
        }
    }

    #[inline]
    fn take(&mut self, chunk: &[u8]) -> Result<()> {
        self.bytes += chunk.len() as u64;
        let (block, binary, stamp) = (&mut self.block, &self.binary, self.stamp);
        self.reader.feed(chunk, |row| {
            for (column, (value, binary)) in row.fields().zip(binary).enumerate() {
                let field = match value {
                    None => Field::Null,
                    Some(bytes) if *binary => Field::Binary(bytes),
                    Some(bytes) => Field::Text(bytes),
                };
                block.push_field(column, field)?;
            }
            block.finish_row(stamp)
        })
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.block.rows() >= self.limits.block_rows || self.block.bytes() >= self.limits.block_bytes
    }

    /// Encodes the block and empties it.
    fn encode(&mut self, nulled: &mut Nulled) -> Result<Encoded> {
        let mut data = Vec::new();
        self.block.encode_native(now(), &mut data)?;
        let rows = self.block.rows() as u64;
        self.block.count_nulled(nulled);
        self.block.clear();
        Ok(Encoded { data: data.into(), rows, read_bytes: std::mem::take(&mut self.bytes) })
    }
}
