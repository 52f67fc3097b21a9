//! Ranges of tables that are compared: the queue that workers share. A range that is done stays done,
//! whatever dies; one whose lease ran out is given to the next who asks.

use std::time::Duration;

use millrace_terms::{Code, Error, Lsn, Result};
use serde_json::Value;
use uuid::Uuid;

use crate::connection::Catalog;
use crate::errors;
use crate::sql::{self, Columns};
use crate::streams;
use crate::verifications::{Counts, VerifiedTable};

/// Rows of a table that are told by key, give or take those of one range: who has more wants the table copied
/// again, and not a list.
const TOLD_MAX: i64 = 10_000;

/// A range leased to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRange {
    /// The comparison.
    pub verification: Uuid,
    /// The table.
    pub table_id: i64,
    /// Number of the range in the table's cut.
    pub no: i32,
    /// The table's rows, estimated.
    pub rows_estimated: u64,
    /// Its bounds: JSON of the data plane's.
    pub bounds: Value,
    /// Who holds the lease.
    pub owner: String,
}

/// Answer to a worker that asks for work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RangeClaim {
    /// Compare this one.
    Range(VerifiedRange),
    /// The rest is leased to others, who may yet die. Ask again.
    Wait,
    /// Every range is done, or the comparison is over.
    Done,
}

impl Catalog {
    /// Stores a table with the ranges that are compared, by their numbers in its cut. One that is stored
    /// stays so.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn plan_verified_table(
        &self,
        verification: Uuid,
        table: &VerifiedTable,
        ranges: &[(i32, Value)],
    ) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        let incomparable = sql::json(&table.incomparable);
        let cut = sql::integer(u32::try_from(table.cut).unwrap_or(u32::MAX));
        let added = sql::execute(
            &transaction,
            "insert into verification_tables
                (verification, table_id, source, destination, skipped, incomparable, append_only, cut, rows_estimated)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict do nothing",
            &[
                &verification,
                &table.table_id,
                &table.source,
                &table.destination,
                &table.skipped,
                &incomparable,
                &table.append_only,
                &cut,
                &sql::bigint(table.rows_estimated),
            ],
        )
        .await?;
        if added > 0 {
            let numbers: Vec<i32> = ranges.iter().map(|(no, _)| *no).collect();
            let bounds: Vec<&Value> = ranges.iter().map(|(_, bounds)| bounds).collect();
            sql::execute(
                &transaction,
                "insert into verification_ranges (verification, table_id, no, bounds)
                 select $1, $2, r.no, r.bounds from unnest($3::integer[], $4::jsonb[]) as r (no, bounds)",
                &[&verification, &table.table_id, &numbers, &bounds],
            )
            .await?;
        }
        transaction.commit().await.map_err(errors::database)
    }

    /// Leases the next range to `owner` for `ttl`.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn claim_range(&self, verification: Uuid, owner: &str, ttl: Duration) -> Result<RangeClaim> {
        let client = self.client().await?;
        let row = sql::row(&client, CLAIM, &[&verification, &owner, &ttl.as_secs_f64()]).await?;
        if let Some(row) = row {
            let columns = Columns(&row);
            return Ok(RangeClaim::Range(VerifiedRange {
                verification,
                table_id: columns.get("table_id")?,
                no: columns.get("no")?,
                rows_estimated: columns.count("rows_estimated")?,
                bounds: columns.json("bounds")?,
                owner: owner.to_owned(),
            }));
        }
        let row = sql::one(&client, UNDONE, &[&verification]).await?;
        Ok(if Columns(&row).get("undone")? { RangeClaim::Wait } else { RangeClaim::Done })
    }

    /// Renews the lease of a range.
    ///
    /// # Errors
    /// LEASE_LOST if it was given to another, or the comparison is over.
    pub async fn renew_range(&self, range: &VerifiedRange, ttl: Duration) -> Result<()> {
        let set = "lease_until = clock_timestamp() + make_interval(secs => $5)";
        let sql = format!("{} and v.state = 'RUNNING'", change(set));
        let seconds = ttl.as_secs_f64();
        changed(range, sql::execute(&self.client().await?, &sql, &of(range, &[&seconds])).await?)
    }

    /// Gives a range back, so that the next who asks gets it at once.
    ///
    /// # Errors
    /// LEASE_LOST if it was given to another.
    pub async fn release_range(&self, range: &VerifiedRange) -> Result<()> {
        let sql = change("state = 'PENDING', lease_owner = null, lease_until = null");
        changed(range, sql::execute(&self.client().await?, &sql, &of(range, &[])).await?)
    }

    /// Stores what was found in a range, and of which rows more is told: each with the word whether it was
    /// mended.
    ///
    /// # Errors
    /// LEASE_LOST if it was given to another.
    pub async fn finish_range(
        &self,
        range: &VerifiedRange,
        counts: &Counts,
        told: &[(Value, bool)],
    ) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        let set = "state = 'DONE', lease_until = null, finished_at = now(), source_rows = $5, destination_rows = $6,
            missing = $7, extra = $8, different = $9, mended = $10, unsettled = $11, held_by = $12";
        let numbers = [
            counts.source_rows,
            counts.destination_rows,
            counts.missing,
            counts.extra,
            counts.different,
            counts.mended,
            counts.unsettled,
        ]
        .map(sql::bigint);
        let [a, b, c, d, e, f, g] = &numbers;
        let parameters = of(range, &[a, b, c, d, e, f, g, &counts.held_by]);
        changed(range, sql::execute(&transaction, &change(set), &parameters).await?)?;
        let (values, mended): (Vec<&Value>, Vec<bool>) =
            told.iter().map(|(told, mended)| (told, *mended)).unzip();
        sql::execute(
            &transaction,
            "insert into verification_differences (verification, table_id, range_no, n, told, mended)
             select $1, $2, $3, d.n::integer, d.told, d.mended
             from unnest($4::jsonb[], $5::boolean[]) with ordinality as d (told, mended, n)
             where $6 > (select count(*) from verification_differences where verification = $1 and table_id = $2)
             on conflict do nothing",
            &[&range.verification, &range.table_id, &range.no, &values, &mended, &TOLD_MAX],
        )
        .await?;
        transaction.commit().await.map_err(errors::database)
    }

    /// Says why a table is not compared any further; what is left of its ranges is done.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn skip_verified_table(&self, verification: Uuid, table_id: i64, why: &str) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        let sql = "update verification_tables set skipped = coalesce(skipped, $3) where verification = $1 and table_id = $2";
        sql::execute(&transaction, sql, &[&verification, &table_id, &why]).await?;
        let sql =
            "delete from verification_ranges where verification = $1 and table_id = $2 and state <> 'DONE'";
        sql::execute(&transaction, sql, &[&verification, &table_id]).await?;
        transaction.commit().await.map_err(errors::database)
    }

    /// Says that rows of a position are going to be written to a table beside its stream, which streams.
    /// Gives what is added to the position in versions.
    ///
    /// # Errors
    /// MIRROR_STATE if the table does not stream.
    pub async fn announce_mending(&self, table_id: i64, epoch: Lsn) -> Result<u64> {
        let row = sql::row(
            &self.client().await?,
            "update streams s set written_below = greatest(s.written_below, $2::pg_lsn + 1)
             from mirror_tables t
             where t.id = $1 and t.state = 'STREAMING' and not t.copying and s.mirror = t.mirror and s.n = t.stream
             returning s.base",
            &[&table_id, &sql::pg_lsn(epoch)],
        )
        .await?;
        let stopped = || Error::new(Code::MirrorState, "the table does not stream any more");
        streams::base(Columns(&row.ok_or_else(stopped)?))
    }
}

const CLAIM: &str = "
    update verification_ranges r set state = 'LEASED', lease_owner = $2,
        lease_until = clock_timestamp() + make_interval(secs => $3)
    from verification_tables t
    where t.verification = r.verification and t.table_id = r.table_id
        and (r.verification, r.table_id, r.no) = (
            select c.verification, c.table_id, c.no from verification_ranges c
                join verifications v on v.id = c.verification and v.state = 'RUNNING'
            where c.verification = $1 and c.state <> 'DONE'
                and (c.state = 'PENDING' or c.lease_until < clock_timestamp())
            order by c.table_id, c.no limit 1 for update of c skip locked)
    returning r.table_id, r.no, r.bounds, t.rows_estimated";

const UNDONE: &str = "
    select exists (select from verification_ranges r join verifications v on v.id = r.verification
        where v.id = $1 and v.state = 'RUNNING' and r.state <> 'DONE') as undone";

/// Changes a range if the lease is still the owner's.
fn change(set: &str) -> String {
    format!(
        "update verification_ranges r set {set} from verifications v
         where r.verification = $1 and r.table_id = $2 and r.no = $3 and r.lease_owner = $4 and v.id = r.verification"
    )
}

type Parameter<'a> = &'a (dyn tokio_postgres::types::ToSql + Sync);

fn of<'a>(range: &'a VerifiedRange, further: &[Parameter<'a>]) -> Vec<Parameter<'a>> {
    let VerifiedRange { verification, table_id, no, owner, .. } = range;
    let mut parameters: Vec<Parameter<'a>> = vec![verification, table_id, no, owner];
    parameters.extend(further);
    parameters
}

fn changed(range: &VerifiedRange, rows: u64) -> Result<()> {
    match rows {
        0 => Err(errors::lease_lost(format_args!(
            "range {} of table {} of verification {}",
            range.no, range.table_id, range.verification
        ))),
        _ => Ok(()),
    }
}
