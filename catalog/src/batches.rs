//! Batches: what a stream did, one row for 10 s.

use millrace_terms::{Lsn, Result};

use crate::connection::Catalog;
use crate::sql;

/// What a stream did since the last time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewBatch {
    /// Rows inserted.
    pub inserts: u64,
    /// Rows updated.
    pub updates: u64,
    /// Rows deleted.
    pub deletes: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// INSERTs sent.
    pub flushes: u64,
    /// Time that these INSERTs took, in milliseconds; those side by side add up.
    pub took_ms: u64,
    /// The position reached.
    pub position: Option<Lsn>,
}

impl Catalog {
    /// Adds to the figures of a stream's current 10 s. Two writers of the same 10 s add up.
    pub async fn add_batch(&self, mirror: &str, stream: u32, batch: &NewBatch) -> Result<()> {
        sql::execute(
            &self.client().await?,
            "insert into batches as b (mirror, stream, at, inserts, updates, deletes, bytes, flushes, took_ms, position)
             values ($1, $2, date_bin('10 s', now(), 'epoch'), $3, $4, $5, $6, $7, $8, $9)
             on conflict (mirror, stream, at) do update set
                inserts = b.inserts + excluded.inserts, updates = b.updates + excluded.updates,
                deletes = b.deletes + excluded.deletes, bytes = b.bytes + excluded.bytes,
                flushes = b.flushes + excluded.flushes, took_ms = b.took_ms + excluded.took_ms,
                position = greatest(b.position, excluded.position)",
            &[
                &mirror,
                &sql::integer(stream),
                &sql::bigint(batch.inserts),
                &sql::bigint(batch.updates),
                &sql::bigint(batch.deletes),
                &sql::bigint(batch.bytes),
                &sql::bigint(batch.flushes),
                &sql::bigint(batch.took_ms),
                &batch.position.map(sql::pg_lsn),
            ],
        )
        .await
        .map(drop)
    }
}
