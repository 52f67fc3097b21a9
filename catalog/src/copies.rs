//! Copies of tables. A table is copied first when its mirror begins, and again by a resync; the
//! copies of a table are numbered. What one copy writes is refused when a newer one was begun.

use deadpool_postgres::GenericClient;
use millrace_terms::{Code, Error, Lsn, Result, TableName};
use tokio_postgres::Row;

use crate::connection::Catalog;
use crate::sql::{self, Columns};
use crate::state::{Desired, TableState};
use crate::tables::Table;
use crate::{errors, mirrors, streams, tables};

/// A copy that is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// The table.
    pub table_id: i64,
    /// Its name on the source.
    pub source: TableName,
    /// Number of the copy, from 1.
    pub copy_no: u32,
    /// Rows on the source, estimated when the mirror was made.
    pub rows_estimated: u64,
    /// Heap bytes on the source when the mirror was made.
    pub bytes_total: u64,
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Partitions; 0 until it is planned.
    pub partitions: u64,
    /// Those that are read and written.
    pub done: u64,
    /// Those that are being read.
    pub leased: u64,
    /// Rows written.
    pub rows: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Heap bytes of all partitions.
    pub bytes_planned: u64,
    /// Heap bytes of those done.
    pub bytes_planned_done: u64,
}

/// Where a copy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyState {
    /// The position that separates it from the stream.
    pub epoch: Option<Lsn>,
    /// Whether it is only of leaves that came later: nothing is swept at its end.
    pub partial: bool,
    /// What is added to that position in versions. Of the same moment: a stream that begins anew raises it
    /// and ends the copy.
    pub base: u64,
    /// Whether it is cut into partitions.
    pub planned: bool,
    /// How far it is.
    pub progress: CopyProgress,
    /// The end of the last read so far; none if nothing was read.
    pub read_end: Option<Lsn>,
}

impl CopyState {
    /// Whether every partition is read and written.
    pub fn all_read(&self) -> bool {
        self.planned && self.progress.done == self.progress.partitions
    }
}

impl CopyProgress {
    pub(crate) fn read(columns: Columns<'_>) -> Result<Self> {
        Ok(Self {
            partitions: columns.count("partitions")?,
            done: columns.count("done")?,
            leased: columns.count("leased")?,
            rows: columns.count("rows")?,
            bytes: columns.count("bytes")?,
            bytes_planned: columns.count("planned")?,
            bytes_planned_done: columns.count("planned_done")?,
        })
    }
}

impl Catalog {
    /// Begins copies of tables that wait for one, until `parallel_tables` are to be done at once,
    /// and gives **all** that are to be done now: those begun before too. So a caller that lost the
    /// answer asks again and gets it. Nothing is begun while the mirror is paused or dropped, and no copy
    /// that a user cancelled is among them.
    ///
    /// # Errors
    /// MIRROR_NOT_FOUND.
    pub async fn claim_copies(&self, mirror: &str, parallel_tables: u32) -> Result<Vec<Copy>> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        let desired = mirrors::lock(&transaction, mirror).await?;
        if desired == Desired::Running {
            sql::execute(
                &transaction,
                "update mirror_tables set copying = true, copy_no = copy_no + 1, planned = false, epoch = null,
                    read_end = null, blocked_by = null, copy_started_at = now(), copy_finished_at = null,
                    rows_copied = 0, state_since = case state when 'PENDING' then now() else state_since end,
                    state = case state when 'PENDING' then 'COPYING' else state end
                 where id in (
                    select id from mirror_tables
                    where mirror = $1 and not copying and not copy_cancelled and edit is null
                        and state in ('PENDING', 'COPYING', 'RESYNCING')
                    order by id
                    limit greatest(0, $2 - (select count(*) from mirror_tables
                        where mirror = $1 and copying and not copy_cancelled)))
                 and not copying and state in ('PENDING', 'COPYING', 'RESYNCING') -- paused since",
                &[&mirror, &i64::from(parallel_tables)],
            )
            .await?;
        }
        let rows = sql::rows(
            &transaction,
            "select id, source_schema, source_name, copy_no, rows_estimated, bytes_total from mirror_tables
             where mirror = $1 and copying and not copy_cancelled order by id",
            &[&mirror],
        )
        .await?;
        let copies = rows.iter().map(read).collect::<Result<Vec<_>>>()?;
        transaction.commit().await.map_err(errors::database)?;
        Ok(copies)
    }

    /// Cancels the copy of a table: it is not begun, or not gone on with, until
    /// [`Catalog::continue_copy`]. Its partitions that are done stay done, and the table is streamed as before.
    /// Gives whether it was cancelled now.
    ///
    /// # Errors
    /// TABLE_NOT_FOUND; MIRROR_STATE if there is nothing to copy.
    pub async fn cancel_copy(&self, table: &Table) -> Result<bool> {
        self.set_cancelled(table, true).await
    }

    /// Lets a copy go on that was cancelled. Gives whether it was.
    ///
    /// # Errors
    /// TABLE_NOT_FOUND; MIRROR_STATE if there is nothing to copy.
    pub async fn continue_copy(&self, table: &Table) -> Result<bool> {
        self.set_cancelled(table, false).await
    }

    async fn set_cancelled(&self, table: &Table, is_cancelled: bool) -> Result<bool> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        // Copies are claimed under the same lock.
        mirrors::lock(&transaction, &table.mirror).await?;
        let sql = "select state, copy_cancelled from mirror_tables where id = $1 for no key update";
        let row = sql::row(&transaction, sql, &[&table.id]).await?;
        let row = row.ok_or_else(|| tables::not_found(&table.source))?;
        let state: TableState = Columns(&row).word("state")?;
        if !state.wants_copy() {
            let message =
                format!("table {} is {state}: there is no copy of it to cancel or to continue", table.source);
            return Err(Error::new(Code::MirrorState, message)
                .with("mirror", &table.mirror)
                .with("table", table.source.to_string())
                .with("state", state.to_string()));
        }
        if Columns(&row).get::<bool>("copy_cancelled")? == is_cancelled {
            return Ok(false);
        }
        let sql = "update mirror_tables set copy_cancelled = $2, blocked_by = null where id = $1";
        sql::execute(&transaction, sql, &[&table.id, &is_cancelled]).await?;
        transaction.commit().await.map_err(errors::database)?;
        Ok(true)
    }

    /// Records the epoch of a copy, and with it that rows of that position are going to be written. A copy
    /// that has one keeps it: rows may have been written with it. Gives the epoch that counts.
    ///
    /// # Errors
    /// LEASE_LOST if the copy is over.
    pub async fn record_epoch(&self, table_id: i64, copy_no: u32, epoch: Lsn) -> Result<Lsn> {
        let row = sql::row(
            &self.client().await?,
            "with copy as (
                update mirror_tables set epoch = coalesce(epoch, $3), blocked_by = null
                where id = $1 and copy_no = $2 and copying returning mirror, stream, epoch
             ), announced as (
                update streams s set written_below = greatest(s.written_below, copy.epoch + 1)
                from copy where s.mirror = copy.mirror and s.n = copy.stream
             )
             select epoch from copy",
            &[&table_id, &sql::integer(copy_no), &sql::pg_lsn(epoch)],
        )
        .await?;
        Columns(&row.ok_or_else(|| superseded(table_id, copy_no))?).lsn("epoch")
    }

    /// Says which session or prepared transaction a copy waits for, in words; none when it waits no more.
    ///
    /// # Errors
    /// LEASE_LOST if the copy is over.
    pub async fn set_blocked_by(&self, table_id: i64, copy_no: u32, whom: Option<&str>) -> Result<()> {
        let sql = "update mirror_tables set blocked_by = $3 where id = $1 and copy_no = $2 and copying";
        let parameters: sql::Params<'_> = &[&table_id, &sql::integer(copy_no), &whom];
        match sql::execute(&self.client().await?, sql, parameters).await? {
            0 => Err(superseded(table_id, copy_no)),
            _ => Ok(()),
        }
    }

    /// Where a copy stands.
    ///
    /// # Errors
    /// LEASE_LOST if the copy is over.
    pub async fn copy_state(&self, table_id: i64, copy_no: u32) -> Result<CopyState> {
        state(&self.client().await?, table_id, copy_no).await
    }

    /// Ends a copy: the table streams, and the copy's figures are written down. Gives the rows copied.
    /// The second call for the same copy finds it done.
    ///
    /// # Errors
    /// LEASE_LOST if a newer copy was begun or the table was stopped meanwhile; INTERNAL if a
    /// partition is not done.
    pub async fn finish_copy(&self, table_id: i64, copy_no: u32) -> Result<u64> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        let row = sql::row(
            &transaction,
            "select copying, copy_no, state, rows_copied from mirror_tables where id = $1 for update",
            &[&table_id],
        )
        .await?;
        let row = row.ok_or_else(|| tables::not_found(table_id))?;
        let columns = Columns(&row);
        let finished = !columns.get::<bool>("copying")? && columns.text("state")? == "STREAMING";
        if finished && columns.number("copy_no")? == copy_no {
            return columns.count("rows_copied");
        }
        let state = state(&transaction, table_id, copy_no).await?;
        if !state.all_read() {
            let CopyProgress { done, partitions, .. } = state.progress;
            return Err(Error::new(
                Code::Internal,
                format!("copy {copy_no} of table {table_id} ends with {done} of {partitions} partitions"),
            ));
        }
        let read_end = state.read_end.map(sql::pg_lsn);
        sql::execute(
            &transaction,
            "update mirror_tables set state = 'STREAMING', state_since = now(), copying = false, copy_cancelled = false, partial = false, error = null,
                blocked_by = null, copy_finished_at = now(), rows_copied = $2, bytes_copied = $3,
                partitions_copied = $4, read_end = $5
             where id = $1",
            &[
                &table_id,
                &sql::bigint(state.progress.rows),
                &sql::bigint(state.progress.bytes),
                &sql::integer(u32::try_from(state.progress.partitions).unwrap_or(u32::MAX)),
                &read_end,
            ],
        )
        .await?;
        transaction.commit().await.map_err(errors::database)?;
        Ok(state.progress.rows)
    }
}

async fn state(client: &impl GenericClient, table_id: i64, copy_no: u32) -> Result<CopyState> {
    let row = sql::row(
        client,
        "select t.epoch, s.base, t.partial, t.planned as is_planned, count(p.no) as partitions,
            count(*) filter (where p.state = 'DONE') as done,
            count(*) filter (where p.state = 'LEASED' and p.lease_until >= now()) as leased,
            coalesce(sum(p.rows), 0)::bigint as rows, coalesce(sum(p.bytes), 0)::bigint as bytes,
            coalesce(sum(p.bytes_planned), 0)::bigint as planned,
            coalesce(sum(p.bytes_planned) filter (where p.state = 'DONE'), 0)::bigint as planned_done,
            max(p.read_end) as last_read_end
         from mirror_tables t join streams s on s.mirror = t.mirror and s.n = t.stream
            left join partitions p on p.table_id = t.id and p.copy_no = t.copy_no
         where t.id = $1 and t.copy_no = $2 and t.copying group by t.id, s.base",
        &[&table_id, &sql::integer(copy_no)],
    )
    .await?;
    let row = row.ok_or_else(|| superseded(table_id, copy_no))?;
    let columns = Columns(&row);
    Ok(CopyState {
        epoch: columns.lsn_opt("epoch")?,
        partial: columns.get("partial")?,
        base: streams::base(columns)?,
        planned: columns.get("is_planned")?,
        progress: CopyProgress::read(columns)?,
        read_end: columns.lsn_opt("last_read_end")?,
    })
}

/// Locks the table of a copy, so that nobody else plans, claims or ends meanwhile; gives whether it is planned.
pub(crate) async fn lock(client: &impl GenericClient, table_id: i64, copy_no: u32) -> Result<bool> {
    let sql =
        "select planned from mirror_tables where id = $1 and copy_no = $2 and copying for no key update";
    let row = sql::row(client, sql, &[&table_id, &sql::integer(copy_no)]).await?;
    Columns(&row.ok_or_else(|| superseded(table_id, copy_no))?).get("planned")
}

pub(crate) fn superseded(table_id: i64, copy_no: u32) -> Error {
    errors::lease_lost(format_args!("copy {copy_no} of table {table_id}, or the table was stopped"))
}

fn read(row: &Row) -> Result<Copy> {
    let columns = Columns(row);
    Ok(Copy {
        table_id: columns.get("id")?,
        source: tables::source(columns)?,
        copy_no: columns.number("copy_no")?,
        rows_estimated: columns.count("rows_estimated")?,
        bytes_total: columns.count("bytes_total")?,
    })
}
