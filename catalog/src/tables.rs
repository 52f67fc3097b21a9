//! Tables of mirrors: their states, errors and figures. Their copies are in [`crate::copies`].

use std::collections::BTreeMap;

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use millrace_terms::{Code, Error, Lsn, Result, TableName};
use serde_json::Value;
use tokio_postgres::Row;

use crate::connection::Catalog;
use crate::copies::CopyProgress;
use crate::edits::TableEdit;
use crate::errors;
use crate::events::{self, NewEvent, Severity};
use crate::failure::Failure;
use crate::sql::{self, Columns, Numeric};
use crate::state::TableState;
use crate::streams;

/// A table of a mirror, without its plan, which may be large: see [`Catalog::table_plan`].
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Its number, for ever.
    pub id: i64,
    /// The mirror.
    pub mirror: String,
    /// The stream that it belongs to.
    pub stream: u32,
    /// Its name on the source.
    pub source: TableName,
    /// Its OID on the source.
    pub oid: u32,
    /// Its name in the destination's database.
    pub destination: String,
    /// Whether the table there was made by the mirror; what was found there may be somebody else's.
    pub made: bool,
    /// Where it stands.
    pub state: TableState,
    /// Since when.
    pub state_since: Timestamp,
    /// Why it is in ERROR.
    pub error: Option<Failure>,
    /// Number of its last copy; 0 before the first.
    pub copy_no: u32,
    /// Whether that copy is to be done now.
    pub copying: bool,
    /// Whether a user stopped its copy: it is begun, or goes on, when [`Catalog::continue_copy`] says so.
    pub copy_cancelled: bool,
    /// The position that separates that copy from the stream.
    pub epoch: Option<Lsn>,
    /// The end of the last read of that copy; set when all of it was read.
    pub read_end: Option<Lsn>,
    /// When that copy was begun.
    pub copy_started_at: Option<Timestamp>,
    /// When it was finished.
    pub copy_finished_at: Option<Timestamp>,
    /// Rows below this version were physically deleted.
    pub floor: u128,
    /// Rows on the source, estimated when it was planned.
    pub rows_estimated: u64,
    /// Heap bytes on the source when it was planned.
    pub bytes_total: u64,
    /// Rows inserted by the stream.
    pub inserts: u64,
    /// Rows updated by the stream.
    pub updates: u64,
    /// Rows deleted by the stream.
    pub deletes: u64,
    /// TRUNCATEs that the stream carried out.
    pub truncates: u64,
    /// Bytes that the stream sent.
    pub bytes_streamed: u64,
    /// The session or prepared transaction that the copy waits for, in words.
    pub blocked_by: Option<String>,
    /// How far that copy is, or was when it ended.
    pub copy: CopyProgress,
    /// Rows per second of a copy that runs, over the last minute; none in its first second.
    pub copy_rows_per_s: Option<f64>,
    /// What is left to do for it since it was added or removed.
    pub edit: Option<TableEdit>,
    /// Values that became NULL because ClickHouse cannot hold them, by the names of columns on the source.
    pub nulled: BTreeMap<String, u64>,
}

/// A table planned anew, for a resync.
#[derive(Debug, Clone, PartialEq)]
pub struct NewPlan {
    /// Its OID on the source now.
    pub oid: u32,
    /// The plan: JSON that the data plane understands.
    pub plan: Value,
    /// Changes of versions below are left out by the stream: the copy covers them.
    pub floor: u128,
    /// Rows on the source, estimated.
    pub rows_estimated: u64,
    /// Heap bytes on the source.
    pub bytes_total: u64,
}

/// Changes that the stream wrote to a table since the last time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableChanges {
    /// The table.
    pub table_id: i64,
    /// Rows inserted.
    pub inserts: u64,
    /// Rows updated.
    pub updates: u64,
    /// Rows deleted.
    pub deletes: u64,
    /// TRUNCATEs carried out.
    pub truncates: u64,
    /// Bytes sent.
    pub bytes: u64,
}

impl Catalog {
    /// A table by its number.
    ///
    /// # Errors
    /// TABLE_NOT_FOUND.
    pub async fn get_table(&self, table_id: i64) -> Result<Table> {
        let sql = format!("{SELECT} where t.id = $1");
        let row = sql::row(&self.client().await?, &sql, &[&table_id]).await?;
        read(&row.ok_or_else(|| not_found(table_id))?)
    }

    /// A table of a mirror by its name on the source.
    ///
    /// # Errors
    /// TABLE_NOT_FOUND.
    pub async fn find_table(&self, mirror: &str, source: &TableName) -> Result<Table> {
        let sql = format!(
            "{SELECT} where t.mirror = $1 and t.source_schema = $2 and t.source_name = $3 and t.state <> 'DROPPED'"
        );
        let row = sql::row(&self.client().await?, &sql, &[&mirror, &source.schema, &source.name]).await?;
        read(&row.ok_or_else(|| not_found(source).with("mirror", mirror))?)
    }

    /// The tables of a mirror that are not dropped, in the order of the mirror.
    pub async fn list_tables(&self, mirror: &str) -> Result<Vec<Table>> {
        of_mirrors(&self.client().await?, &[mirror.to_owned()]).await
    }

    /// The frozen plan of a table: JSON that the data plane understands.
    ///
    /// # Errors
    /// TABLE_NOT_FOUND.
    pub async fn table_plan(&self, table_id: i64) -> Result<Value> {
        let row =
            sql::row(&self.client().await?, "select plan from mirror_tables where id = $1", &[&table_id])
                .await;
        Columns(&row?.ok_or_else(|| not_found(table_id))?).get("plan")
    }

    /// The plans of a stream's tables that are not dropped, with the tables' numbers.
    pub async fn stream_plans(&self, mirror: &str, stream: u32) -> Result<Vec<(i64, Value)>> {
        let rows = sql::rows(
            &self.client().await?,
            "select id, plan from mirror_tables
             where mirror = $1 and stream = $2 and state <> 'DROPPED' order by id",
            &[&mirror, &sql::integer(stream)],
        )
        .await?;
        rows.iter().map(Columns).map(|columns| Ok((columns.get("id")?, columns.get("plan")?))).collect()
    }

    /// Brings a table into a state: for pausing, resuming (`Resyncing`), resyncing and dropping. A
    /// copy that runs is over by it, and none is begun until [`Catalog::claim_copies`]. A table of
    /// the state already stays as it is, but for a resync, which begins anew.
    ///
    /// # Errors
    /// TABLE_NOT_FOUND, MIRROR_STATE if the state that the table has does not lead there.
    pub async fn set_table_state(&self, table_id: i64, state: TableState) -> Result<()> {
        enter(&self.client().await?, table_id, state, None, None).await
    }

    /// Begins a resync of a table by another plan, and fences its stream: the attempt that runs does not
    /// know the plan. Both in one transaction, so every attempt that can write a position afterwards
    /// has read the new plan, and an epoch that is taken afterwards lies above every position that was
    /// written by one that had not.
    ///
    /// # Errors
    /// TABLE_NOT_FOUND, MIRROR_STATE if the table is dropped.
    pub async fn replan_table(&self, table_id: i64, new: &NewPlan) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        enter(&transaction, table_id, TableState::Resyncing, None, None).await?;
        store_plan(&transaction, table_id, new).await?;
        transaction.commit().await.map_err(errors::database)
    }

    /// Puts a table into ERROR. The others go on.
    ///
    /// # Errors
    /// TABLE_NOT_FOUND, MIRROR_STATE if it is dropped.
    pub async fn set_table_error(&self, table_id: i64, error: &Error) -> Result<()> {
        let failure = Some(Failure::new(error));
        enter(&self.client().await?, table_id, TableState::Error, failure, None).await
    }

    /// Puts a table into ERROR for the holder of its stream's lease. One that lost it has another plan
    /// of the table, and knows nothing of how it is now.
    ///
    /// # Errors
    /// LEASE_LOST, TABLE_NOT_FOUND, MIRROR_STATE if it is dropped.
    pub async fn set_streamed_table_error(&self, table_id: i64, lease: i64, error: &Error) -> Result<()> {
        let failure = Some(Failure::new(error));
        enter(&self.client().await?, table_id, TableState::Error, failure, Some(lease)).await
    }

    /// Notes that a table must be copied again, and why, with an event: the mirror's workflow begins the
    /// resync. Noted once, until it has begun; a table that is paused or dropped needs none. With a
    /// lease, only for its holder. Gives whether it was noted now.
    ///
    /// # Errors
    /// LEASE_LOST, TABLE_NOT_FOUND.
    pub async fn ask_resync(&self, table_id: i64, lease: Option<i64>, reason: &Error) -> Result<bool> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        let sql = "
            select t.mirror, t.source_schema, t.source_name, t.state, s.lease,
                t.resync_wanted is not null as is_noted
            from mirror_tables t join streams s on s.mirror = t.mirror and s.n = t.stream
            where t.id = $1 for update";
        let row = sql::row(&transaction, sql, &[&table_id]).await?.ok_or_else(|| not_found(table_id))?;
        let columns = Columns(&row);
        let table = source(columns)?;
        if lease.is_some_and(|lease| columns.get::<i64>("lease").ok() != Some(lease)) {
            return Err(errors::lease_lost(format_args!("the stream of table {table}")));
        }
        let state: TableState = columns.word("state")?;
        if columns.get("is_noted")? || matches!(state, TableState::Paused | TableState::Dropped) {
            return Ok(false);
        }
        let wanted = Failure::new(reason);
        let sql = "update mirror_tables set resync_wanted = $2 where id = $1";
        sql::execute(&transaction, sql, &[&table_id, &sql::json(&wanted)]).await?;
        let event = NewEvent::of_error(&columns.text("mirror")?, Severity::Warning, reason).on_table(&table);
        events::add(&transaction, &event).await?;
        transaction.commit().await.map_err(errors::database)?;
        Ok(true)
    }

    /// The tables of a mirror of which [`Catalog::ask_resync`] noted that they must be copied again.
    pub async fn wanted_resyncs(&self, mirror: &str) -> Result<Vec<i64>> {
        let sql = "select id from mirror_tables where mirror = $1 and resync_wanted is not null order by id";
        let rows = sql::rows(&self.client().await?, sql, &[&mirror]).await?;
        rows.iter().map(|row| Columns(row).get("id")).collect()
    }

    /// Lets the tables that wait for a first copy stream without one, for a mirror that copies
    /// nothing. Gives their number.
    pub async fn stream_without_copy(&self, mirror: &str) -> Result<u64> {
        sql::execute(
            &self.client().await?,
            // Of an append-only table nothing was copied, so nothing is left out.
            "update mirror_tables set state = 'STREAMING', state_since = now(), copy_cancelled = false, append_run = 1,
                append_snapshot = '3:3:', append_seen_below = '0/0'
             where mirror = $1 and state = 'PENDING' and edit is null",
            &[&mirror],
        )
        .await
    }

    /// Notes that the destination table is going to be made: there is none of its name.
    pub async fn mark_made(&self, table_id: i64) -> Result<()> {
        let sql = "update mirror_tables set made = true where id = $1";
        sql::execute(&self.client().await?, sql, &[&table_id]).await.map(drop)
    }

    /// Adds to the figures of several tables, in one statement.
    pub async fn add_changes(&self, changes: &[TableChanges]) -> Result<()> {
        let column =
            |of: fn(&TableChanges) -> u64| changes.iter().map(|c| sql::bigint(of(c))).collect::<Vec<_>>();
        let ids: Vec<i64> = changes.iter().map(|change| change.table_id).collect();
        sql::execute(
            &self.client().await?,
            "update mirror_tables t set inserts = t.inserts + c.inserts, updates = t.updates + c.updates,
                deletes = t.deletes + c.deletes, truncates = t.truncates + c.truncates,
                bytes_streamed = t.bytes_streamed + c.bytes
             from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
                as c (id, inserts, updates, deletes, truncates, bytes)
             where t.id = c.id",
            &[
                &ids,
                &column(|c| c.inserts),
                &column(|c| c.updates),
                &column(|c| c.deletes),
                &column(|c| c.truncates),
                &column(|c| c.bytes),
            ],
        )
        .await
        .map(drop)
    }
}

/// Stores the plan of a table and fences its stream.
pub(crate) async fn store_plan(client: &impl GenericClient, table_id: i64, new: &NewPlan) -> Result<()> {
    sql::execute(
        client,
        "update mirror_tables set oid = $2, plan = $3, altering = false, floor = greatest(floor, $4), rows_estimated = $5,
            bytes_total = $6
         where id = $1",
        &[
            &table_id,
            &new.oid,
            &new.plan,
            &Numeric(new.floor),
            &sql::bigint(new.rows_estimated),
            &sql::bigint(new.bytes_total),
        ],
    )
    .await?;
    streams::fence(client, table_id).await
}

/// Brings a table into a state; with a lease, only if that is the lease of its stream.
pub(crate) async fn enter(
    client: &impl GenericClient,
    table_id: i64,
    state: TableState,
    failure: Option<Failure>,
    lease: Option<i64>,
) -> Result<()> {
    let from: Vec<&str> = state.predecessors().map(TableState::as_str).collect();
    // An error that is seen again keeps its time. A resync begins anew even if one runs; a copy that a user
    // cancelled stays so, for not every resync is a user's. A table that was to join does so by its resync,
    // if it is not dropped.
    let changed = sql::execute(
        client,
        "update mirror_tables t set state = $2, copying = copying and state = $2 and $2 <> 'RESYNCING',
            state_since = case when state = $2 then state_since else now() end, blocked_by = null,
            edit = null, resync_wanted = null, partial = false,
            copy_cancelled = copy_cancelled and $2 = 'RESYNCING',
            error = case when state = $2 and error->>'code' = $4::jsonb->>'code'
                and error->>'message' = $4::jsonb->>'message' then error else $4 end
         where id = $1 and state = any($3) and ($5::bigint is null or exists (
            select from streams s where s.mirror = t.mirror and s.n = t.stream and s.lease = $5))",
        &[&table_id, &state.as_str(), &from, &failure.as_ref().map(sql::json), &lease],
    )
    .await?;
    if changed > 0 {
        return Ok(());
    }
    let sql = "select mirror, source_schema, source_name, state from mirror_tables where id = $1";
    let row = sql::row(client, sql, &[&table_id]).await?.ok_or_else(|| not_found(table_id))?;
    let columns = Columns(&row);
    let (table, found) = (source(columns)?, columns.text("state")?);
    if lease.is_some() && from.contains(&found.as_str()) {
        return Err(errors::lease_lost(format_args!("the stream of table {table}")));
    }
    let message = format!("table {table} is {found}, which does not lead to {state}");
    Err(Error::new(Code::MirrorState, message)
        .with("mirror", columns.text("mirror")?)
        .with("table", table.to_string())
        .with("state", found))
}

/// The tables of these mirrors that are not dropped, in order of mirror and creation.
pub(crate) async fn of_mirrors(client: &impl GenericClient, mirrors: &[String]) -> Result<Vec<Table>> {
    let sql = format!("{SELECT} where t.mirror = any($1) and t.state <> 'DROPPED' order by t.mirror, t.id");
    sql::rows(client, &sql, &[&mirrors]).await?.iter().map(read).collect()
}

/// The tables of a mirror for which something is left to do, dropped ones included.
pub(crate) async fn edited(client: &impl GenericClient, mirror: &str) -> Result<Vec<Table>> {
    let sql = format!("{SELECT} where t.mirror = $1 and t.edit is not null order by t.id");
    sql::rows(client, &sql, &[&mirror]).await?.iter().map(read).collect()
}

/// The progress of a copy is summed up only where one runs: its partitions are found by the primary key. Its
/// rate is that of the last minute: of each partition so many rows as fall into it, if they came evenly.
const SELECT: &str = "
    select t.id, t.mirror, t.stream, t.source_schema, t.source_name, t.oid, t.destination, t.made, t.state, t.state_since,
        t.error, t.copy_no, t.copying, t.copy_cancelled, t.epoch, t.read_end, t.copy_started_at, t.copy_finished_at, t.floor,
        t.rows_copied, t.bytes_copied, t.partitions_copied, t.rows_estimated, t.bytes_total, t.inserts, t.updates, t.deletes, t.truncates,
        t.bytes_streamed,
        t.blocked_by, t.edit, t.nulled, p.partitions, p.done, p.leased, p.rows, p.bytes, p.planned, p.planned_done,
        p.rows_per_s
    from mirror_tables t left join lateral (
        select count(*) as partitions, count(*) filter (where state = 'DONE') as done,
            count(*) filter (where state = 'LEASED' and lease_until >= now()) as leased,
            coalesce(sum(rows), 0)::bigint as rows, coalesce(sum(bytes), 0)::bigint as bytes,
            coalesce(sum(bytes_planned), 0)::bigint as planned,
            coalesce(sum(bytes_planned) filter (where state = 'DONE'), 0)::bigint as planned_done,
            case when min(claimed_at) < now() - interval '1 s' then
                sum(rows * greatest(0, extract(epoch from
                        coalesce(finished_at, now()) - greatest(claimed_at, now() - interval '1 min')))
                    / greatest(0.001, extract(epoch from coalesce(finished_at, now()) - claimed_at)))
                / least(60, extract(epoch from now() - min(claimed_at))) end::double precision as rows_per_s
        from partitions where table_id = t.id and copy_no = t.copy_no
    ) p on t.copying";

/// The figures of the last copy that ended.
fn ended_copy(columns: Columns<'_>) -> Result<CopyProgress> {
    let partitions = u64::from(columns.number("partitions_copied")?);
    let (rows, bytes) = (columns.count("rows_copied")?, columns.count("bytes_copied")?);
    Ok(CopyProgress { partitions, done: partitions, rows, bytes, ..CopyProgress::default() })
}

fn read(row: &Row) -> Result<Table> {
    let columns = Columns(row);
    let copying: bool = columns.get("copying")?;
    let copy = if copying { CopyProgress::read(columns)? } else { ended_copy(columns)? };
    Ok(Table {
        id: columns.get("id")?,
        mirror: columns.text("mirror")?,
        stream: columns.number("stream")?,
        source: source(columns)?,
        oid: columns.get("oid")?,
        destination: columns.text("destination")?,
        made: columns.get("made")?,
        state: columns.word("state")?,
        state_since: columns.time("state_since")?,
        error: columns.json_opt("error")?,
        copy_no: columns.number("copy_no")?,
        copying,
        copy_cancelled: columns.get("copy_cancelled")?,
        epoch: columns.lsn_opt("epoch")?,
        read_end: columns.lsn_opt("read_end")?,
        copy_started_at: columns.time_opt("copy_started_at")?,
        copy_finished_at: columns.time_opt("copy_finished_at")?,
        floor: columns.version("floor")?,
        rows_estimated: columns.count("rows_estimated")?,
        bytes_total: columns.count("bytes_total")?,
        inserts: columns.count("inserts")?,
        updates: columns.count("updates")?,
        deletes: columns.count("deletes")?,
        truncates: columns.count("truncates")?,
        bytes_streamed: columns.count("bytes_streamed")?,
        blocked_by: columns.get("blocked_by")?,
        copy,
        copy_rows_per_s: if copying { columns.get("rows_per_s")? } else { None },
        edit: columns.word_opt("edit")?,
        nulled: columns.json("nulled")?,
    })
}

/// The name on the source.
pub(crate) fn source(columns: Columns<'_>) -> Result<TableName> {
    Ok(TableName::new(columns.text("source_schema")?, columns.text("source_name")?))
}

pub(crate) fn not_found(table: impl std::fmt::Display) -> Error {
    let table = table.to_string();
    Error::new(Code::TableNotFound, format!("no table {table} is in the mirror")).with("table", table)
}
