//! Batches: what a stream did, one row for 10 s in which it did something.

use std::collections::BTreeSet;

use jiff::Timestamp;
use millrace_terms::{Lsn, Result};
use tokio_postgres::Row;

use crate::connection::Catalog;
use crate::page::{Page, PageRequest};
use crate::sql::{self, Columns};

/// What a stream did since the last time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewBatch {
    /// Rows inserted.
    pub inserts: u64,
    /// Rows updated.
    pub updates: u64,
    /// Rows deleted.
    pub deletes: u64,
    /// TRUNCATEs carried out.
    pub truncates: u64,
    /// Ids of the tables that were written to.
    pub tables: BTreeSet<i64>,
    /// Bytes sent.
    pub bytes: u64,
    /// INSERTs sent.
    pub flushes: u64,
    /// Time that these INSERTs took, in milliseconds; those side by side add up.
    pub took_ms: u64,
    /// The position at its begin.
    pub start_position: Option<Lsn>,
    /// The position reached.
    pub position: Option<Lsn>,
    /// When the transaction at the first position that it reached was committed.
    pub first_commit_at: Option<Timestamp>,
    /// When the transaction at the last one was.
    pub last_commit_at: Option<Timestamp>,
    /// When it began.
    pub started_at: Option<Timestamp>,
}

impl NewBatch {
    /// Whether anything was written.
    pub fn is_empty(&self) -> bool {
        self.flushes + self.truncates == 0
    }
}

/// What a stream did in some 10 s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its number; later ones of a mirror have higher numbers.
    pub id: i64,
    /// The stream.
    pub stream: u32,
    /// Rows inserted.
    pub inserts: u64,
    /// Rows updated.
    pub updates: u64,
    /// Rows deleted.
    pub deletes: u64,
    /// TRUNCATEs carried out.
    pub truncates: u64,
    /// Number of tables that were written to.
    pub tables: u32,
    /// Bytes sent.
    pub bytes: u64,
    /// INSERTs sent.
    pub flushes: u64,
    /// Time that these INSERTs took, in milliseconds; those side by side add up.
    pub took_ms: u64,
    /// The position at its begin.
    pub start_position: Option<Lsn>,
    /// The position reached.
    pub position: Option<Lsn>,
    /// When the transaction at the first position that it reached was committed.
    pub first_commit_at: Option<Timestamp>,
    /// When the transaction at the last one was.
    pub last_commit_at: Option<Timestamp>,
    /// When it began; none if a release before this one wrote it.
    pub started_at: Option<Timestamp>,
    /// When it was over, and written down.
    pub written_at: Timestamp,
}

impl Catalog {
    /// Adds to the figures of a stream's current 10 s. Two writers of the same 10 s add up.
    pub async fn add_batch(&self, mirror: &str, stream: u32, batch: &NewBatch) -> Result<()> {
        sql::execute(
            &self.client().await?,
            "insert into batches as b (mirror, stream, at, inserts, updates, deletes, truncates, tables, bytes,
                flushes, took_ms, start_position, position, first_commit_at, last_commit_at, started_at)
             values ($1, $2, date_bin('10 s', now(), 'epoch'), $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
             on conflict (mirror, stream, at) do update set
                inserts = b.inserts + excluded.inserts, updates = b.updates + excluded.updates,
                deletes = b.deletes + excluded.deletes, truncates = b.truncates + excluded.truncates,
                tables = greatest(b.tables, excluded.tables), bytes = b.bytes + excluded.bytes,
                flushes = b.flushes + excluded.flushes, took_ms = b.took_ms + excluded.took_ms,
                start_position = least(b.start_position, excluded.start_position),
                position = greatest(b.position, excluded.position),
                first_commit_at = least(b.first_commit_at, excluded.first_commit_at),
                last_commit_at = greatest(b.last_commit_at, excluded.last_commit_at),
                started_at = least(b.started_at, excluded.started_at), written_at = now()",
            &[
                &mirror,
                &sql::integer(stream),
                &sql::bigint(batch.inserts),
                &sql::bigint(batch.updates),
                &sql::bigint(batch.deletes),
                &sql::bigint(batch.truncates),
                &sql::integer(u32::try_from(batch.tables.len()).unwrap_or(u32::MAX)),
                &sql::bigint(batch.bytes),
                &sql::bigint(batch.flushes),
                &sql::bigint(batch.took_ms),
                &batch.start_position.map(sql::pg_lsn),
                &batch.position.map(sql::pg_lsn),
                &batch.first_commit_at,
                &batch.last_commit_at,
                &batch.started_at,
            ],
        )
        .await
        .map(drop)
    }

    /// The batches of a mirror's streams, newest first; of one stream if it is named. A mirror that never
    /// was has none.
    pub async fn list_batches(
        &self,
        mirror: &str,
        stream: Option<u32>,
        request: &PageRequest,
    ) -> Result<Page<Batch>> {
        // A token that is not a number is somebody's invention: the list begins anew.
        let before = request.token.parse().unwrap_or(i64::MAX);
        let rows = sql::rows(
            &self.client().await?,
            "select id, stream, inserts, updates, deletes, truncates, tables, bytes, flushes, took_ms, start_position,
                position, first_commit_at, last_commit_at, started_at, written_at
             from batches where mirror = $1 and id < $2 and ($3::integer is null or stream = $3)
             order by id desc limit $4",
            &[&mirror, &before, &stream.map(sql::integer), &i64::from(request.limit() + 1)],
        )
        .await?;
        let batches = rows.iter().map(read).collect::<Result<Vec<_>>>()?;
        Ok(Page::new(batches, request, |batch| batch.id.to_string()))
    }
}

fn read(row: &Row) -> Result<Batch> {
    let columns = Columns(row);
    Ok(Batch {
        id: columns.get("id")?,
        stream: columns.number("stream")?,
        inserts: columns.count("inserts")?,
        updates: columns.count("updates")?,
        deletes: columns.count("deletes")?,
        truncates: columns.count("truncates")?,
        tables: columns.number("tables")?,
        bytes: columns.count("bytes")?,
        flushes: columns.count("flushes")?,
        took_ms: columns.count("took_ms")?,
        start_position: columns.lsn_opt("start_position")?,
        position: columns.lsn_opt("position")?,
        first_commit_at: columns.time_opt("first_commit_at")?,
        last_commit_at: columns.time_opt("last_commit_at")?,
        started_at: columns.time_opt("started_at")?,
        written_at: columns.time("written_at")?,
    })
}
