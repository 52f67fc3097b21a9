//! Append-only tables, whose rows arrive exactly once: their copies, and where their batches are cut.

use millrace_terms::{Lsn, Result};

use crate::connection::Catalog;
use crate::sql::{self, Columns, Numeric};
use crate::{errors, streams, tables};

/// How far an append-only table is. There is none while a copy is being begun: it is not streamed then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The table.
    pub table_id: i64,
    /// Number of the copy whose rows it holds.
    pub run: u32,
    /// What the copy saw, as the source writes it.
    pub snapshot: String,
    /// Every transaction that the copy saw is of a commit below.
    pub seen_below: Lsn,
    /// The batch that was sent last.
    pub cut: Option<Cut>,
}

/// Where a batch begins, and its number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Version of the last row before it.
    pub version: u128,
    /// Rows of that version before it.
    pub taken: u32,
    /// Rows of the batch.
    pub rows: u32,
}

/// A copy that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// Its number.
    pub run: u32,
    /// Whether an older one, or the stream, may have written rows.
    pub is_repeat: bool,
}

impl Catalog {
    /// Begins a copy of an append-only table by the owner of its one partition. From here on the table is
    /// not streamed, whatever an attempt knew of it, and the stream's position is held: what is
    /// acknowledged to the source stays where it is until [`Catalog::go_back`].
    ///
    /// # Errors
    /// LEASE_LOST if the partition was given to another.
    pub async fn begin_append(&self, table_id: i64, copy_no: u32, owner: &str) -> Result<Begun> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        // The stream's row first, as everywhere: its position does not move while it is held.
        let row = sql::row(
            &transaction,
            "update streams s set hold = least(s.hold, s.position) from mirror_tables t
             where t.id = $1 and s.mirror = t.mirror and s.n = t.stream returning s.position",
            &[&table_id],
        )
        .await?;
        let position = Columns(&row.ok_or_else(|| tables::not_found(table_id))?).lsn("position")?;
        let row = sql::row(
            &transaction,
            "update mirror_tables t set append_run = t.append_run + 1, append_snapshot = null, append_seen_below = null,
                cut_version = null, cut_taken = null, cut_rows = null, append_hold = $4
             from partitions p
             where t.id = $1 and t.copy_no = $2 and t.copying and p.table_id = t.id and p.copy_no = t.copy_no
                and p.lease_owner = $3
             returning t.append_run",
            &[&table_id, &sql::integer(copy_no), &owner, &sql::pg_lsn(position)],
        )
        .await?;
        let row = row.ok_or_else(|| errors::lease_lost(format_args!("the copy of table {table_id}")))?;
        let run = Columns(&row).number("append_run")?;
        if run > 1 {
            streams::fence(&transaction, table_id).await?;
        }
        transaction.commit().await.map_err(errors::database)?;
        Ok(Begun { run, is_repeat: run > 1 })
    }

    /// Lets the stream go back to the held position, and stream the table from there without what the
    /// copy saw. `epoch` becomes the copy's.
    ///
    /// # Errors
    /// LEASE_LOST if another copy was begun.
    pub async fn go_back(&self, append: &Append, epoch: Lsn) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        let table_id = append.table_id;
        streams::fence(&transaction, table_id).await?;
        let row = sql::row(
            &transaction,
            "with held as (select append_hold from mirror_tables where id = $1)
             update mirror_tables t set append_snapshot = $3, append_seen_below = $4, epoch = $5, append_hold = null,
                blocked_by = null
             from held where t.id = $1 and t.append_run = $2 and t.copying and t.append_snapshot is null
             returning held.append_hold",
            &[
                &table_id,
                &sql::integer(append.run),
                &append.snapshot,
                &sql::pg_lsn(append.seen_below),
                &sql::pg_lsn(epoch),
            ],
        )
        .await?;
        let row = row.ok_or_else(|| errors::lease_lost(format_args!("the copy of table {table_id}")))?;
        let hold = Columns(&row).lsn("append_hold")?;
        sql::execute(
            &transaction,
            "update streams s set position = least(s.position, $2) from mirror_tables t
             where t.id = $1 and s.mirror = t.mirror and s.n = t.stream",
            &[&table_id, &sql::pg_lsn(hold)],
        )
        .await?;
        let (mirror, n): (String, i32) = {
            let sql = "select mirror, stream from mirror_tables where id = $1";
            let row = sql::one(&transaction, sql, &[&table_id]).await?;
            (Columns(&row).get("mirror")?, Columns(&row).get("stream")?)
        };
        sql::execute(&transaction, RELEASE, &[&mirror, &n]).await?;
        transaction.commit().await.map_err(errors::database)
    }

    /// Lets go what is held for copies that are over: of tables that went to ERROR, were paused or
    /// dropped. For housekeeping.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn release_holds(&self, mirror: &str, n: u32) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        // By a statement of its own: the next one must see what was held when the row was locked.
        let lock = "select 1 from streams where mirror = $1 and n = $2 and hold is not null for update";
        if sql::row(&transaction, lock, &[&mirror, &sql::integer(n)]).await?.is_some() {
            sql::execute(&transaction, RELEASE, &[&mirror, &sql::integer(n)]).await?;
        }
        transaction.commit().await.map_err(errors::database)
    }

    /// How far the append-only tables of a stream are, but for those whose copy is being begun.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn appends(&self, mirror: &str, stream: u32) -> Result<Vec<Append>> {
        let rows = sql::rows(
            &self.client().await?,
            "select id, append_run, append_snapshot, append_seen_below, cut_version, cut_taken, cut_rows from mirror_tables
             where mirror = $1 and stream = $2 and append_snapshot is not null",
            &[&mirror, &sql::integer(stream)],
        )
        .await?;
        rows.iter()
            .map(|row| {
                let columns = Columns(row);
                let version: Option<Numeric> = columns.get("cut_version")?;
                let cut = match version {
                    None => None,
                    Some(Numeric(version)) => {
                        let (taken, rows) = (columns.number("cut_taken")?, columns.number("cut_rows")?);
                        Some(Cut { version, taken, rows })
                    }
                };
                Ok(Append {
                    table_id: columns.get("id")?,
                    run: columns.number("append_run")?,
                    snapshot: columns.text("append_snapshot")?,
                    seen_below: columns.lsn("append_seen_below")?,
                    cut,
                })
            })
            .collect()
    }

    /// Writes down where the batch is cut that is to be sent next, for the holder of the stream's lease.
    ///
    /// # Errors
    /// LEASE_LOST.
    pub async fn store_cut(&self, table_id: i64, lease: i64, cut: Cut) -> Result<()> {
        let changed = sql::execute(
            &self.client().await?,
            "update mirror_tables t set cut_version = $3, cut_taken = $4, cut_rows = $5 from streams s
             where t.id = $1 and s.mirror = t.mirror and s.n = t.stream and s.lease = $2",
            &[&table_id, &lease, &Numeric(cut.version), &sql::integer(cut.taken), &sql::integer(cut.rows)],
        )
        .await?;
        match changed {
            0 => Err(errors::lease_lost(format_args!("the stream of table {table_id}"))),
            _ => Ok(()),
        }
    }
}

/// Holds what copies hold that are still being begun, under the lock of the stream's row.
const RELEASE: &str = "
    update streams set hold = (
        select min(append_hold) from mirror_tables where mirror = $1 and stream = $2 and copying)
    where mirror = $1 and n = $2";
