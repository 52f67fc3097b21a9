//! One INSERT: its data streamed as it comes, with the server's back-pressure. I/O.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::clickhouse::insert_formatted::InsertFormatted;
use bytes::Bytes;
use millrace_terms::{Code, Error, Result};

use super::{ANSWER_GRACE, Clickhouse, ddl, error};
use crate::table::TablePlan;

/// How long the server lets an INSERT live, in seconds. A late insert of a fenced attempt may bring
/// back rows that were deleted physically, so every such delete is repeated until this time is over
/// (design: fencing). The copy of a partition is the longest.
pub const INSERT_SECONDS_MAX: u64 = 600;

/// How long the server may leave our data unread.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// Most of a chunk that is handed to the connection at once: also the unit of compression.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Whose INSERT it is. The query id is made of it, so that the queries of a fenced attempt can be
/// found by prefix: `mirror/attempt/table/position/n`.
#[derive(Debug, Clone)]
pub struct InsertId {
    /// Name of the mirror.
    pub mirror: String,
    /// The attempt, such as `0.17` for lease 17 of stream 0.
    pub attempt: String,
    /// Name of the destination table.
    pub table: String,
    /// What is inserted: a log position, or the number of a partition.
    pub position: String,
}

impl InsertId {
    /// What the query ids of all attempts of a mirror begin with.
    pub fn mirror_prefix(mirror: &str) -> String {
        format!("{mirror}/")
    }

    /// What the query ids of one attempt begin with.
    pub fn attempt_prefix(mirror: &str, attempt: &str) -> String {
        format!("{mirror}/{attempt}/")
    }
}

impl fmt::Display for InsertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.mirror, self.attempt, self.table, self.position)
    }
}

/// Two queries with one id cannot run at once: a retry may overlap what it repeats.
static SEQUENCE: AtomicU64 = AtomicU64::new(0);

/// An INSERT under way. Dropped without [`Insert::end`] it is aborted; blocks that the server has
/// gathered may then be in the table, which is harmless, as they are in any repeat.
pub struct Insert {
    inner: InsertFormatted,
    /// The last chunk is kept back until [`Insert::end`], which looks at the gate first.
    kept: Bytes,
}

impl fmt::Debug for Insert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Insert").field("kept", &self.kept.len()).finish_non_exhaustive()
    }
}

impl Clickhouse {
    /// Begins an INSERT of blocks of `plan` (`Block::encode_native`).
    pub fn begin_insert(&self, plan: &TablePlan, id: &InsertId) -> Insert {
        let sql = ddl::insert(&self.server.database, plan);
        let query_id = format!("{id}/{:x}-{}", std::process::id(), SEQUENCE.fetch_add(1, Ordering::Relaxed));
        let end_timeout = Duration::from_secs(INSERT_SECONDS_MAX) + ANSWER_GRACE;
        let inner = self
            .client
            .insert_formatted_with(sql)
            .with_setting("query_id", query_id)
            .with_setting("max_execution_time", INSERT_SECONDS_MAX.to_string())
            .with_timeouts(Some(SEND_TIMEOUT), Some(end_timeout));
        Insert { inner, kept: Bytes::new() }
    }

    /// One whole INSERT. `gate` says whether the caller still holds its lease; it is asked before the
    /// last chunk.
    ///
    /// # Errors
    /// As [`Insert::end`].
    pub async fn insert(
        &self,
        plan: &TablePlan,
        body: Bytes,
        id: &InsertId,
        gate: impl Fn() -> bool,
    ) -> Result<()> {
        let mut insert = self.begin_insert(plan, id);
        insert.send(body).await?;
        insert.end(gate).await
    }

    /// As [`Clickhouse::insert`], of one block into an append-only table. What the table has under the
    /// same token already is not inserted again.
    ///
    /// # Errors
    /// As [`Insert::end`].
    pub async fn insert_once(
        &self,
        plan: &TablePlan,
        body: Bytes,
        id: &InsertId,
        token: &str,
        gate: impl Fn() -> bool,
    ) -> Result<()> {
        let mut insert = self.begin_insert(plan, id);
        insert.inner = insert.inner.with_setting("insert_deduplication_token", token);
        insert.send(body).await?;
        insert.end(gate).await
    }
}

impl Insert {
    /// Sends more data, and waits while the server takes no more.
    ///
    /// # Errors
    /// By the server's code; `DESTINATION_UNREACHABLE` if the connection breaks or stands still.
    pub async fn send(&mut self, mut data: Bytes) -> Result<()> {
        while !data.is_empty() {
            if !self.kept.is_empty() {
                let chunk = std::mem::take(&mut self.kept);
                self.inner.send(chunk).await.map_err(|error| error::classify(&error))?;
            }
            self.kept = data.split_to(data.len().min(CHUNK_BYTES_MAX));
        }
        Ok(())
    }

    /// Sends what is left if `gate` still allows it, and waits for the server to acknowledge all.
    ///
    /// # Errors
    /// `LEASE_LOST` if the gate is closed, and nothing more is sent; else by the server's code.
    pub async fn end(mut self, gate: impl Fn() -> bool) -> Result<()> {
        if !gate() {
            // Dropping the insert breaks the connection before the end of the data.
            return Err(Error::new(Code::LeaseLost, "the lease ended while an insert was being sent"));
        }
        let chunk = std::mem::take(&mut self.kept);
        self.inner.send(chunk).await.map_err(|error| error::classify(&error))?;
        self.inner.end().await.map_err(|error| error::classify(&error))
    }
}
