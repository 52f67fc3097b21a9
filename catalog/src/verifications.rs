//! Comparisons of a mirror's tables with their sources: what is asked for, how far it is, what was found.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use millrace_terms::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::connection::Catalog;
use crate::failure::Failure;
use crate::sql::{self, Columns};
use crate::state::words;
use crate::{errors, mirrors};

words! {
    /// The state of a comparison.
    VerificationState {
        /// It is under way.
        Running = "RUNNING",
        /// It is over.
        Completed = "COMPLETED",
        /// It could not go on.
        Failed = "FAILED",
        /// Somebody ended it.
        Cancelled = "CANCELLED",
    }
}

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerificationSpec {
    /// Numbers of the tables; empty for all.
    pub tables: Vec<i64>,
    /// The part of the ranges that is compared, above 0 and up to 1.
    pub sample: f64,
    /// Whether rows that differ are mended.
    pub repair: bool,
    /// Whether the values of rows that differ are kept, and not only their keys.
    pub with_values: bool,
    /// Rows per second at most; 0 for no limit.
    pub rows_per_second: u64,
}

/// A comparison to be begun.
#[derive(Debug, Clone, PartialEq)]
pub struct NewVerification {
    /// Its id.
    pub id: Uuid,
    /// The mirror.
    pub mirror: String,
    /// What is asked for.
    pub spec: VerificationSpec,
    /// Names the request, so that it can be repeated; empty for none.
    pub request_id: String,
}

/// A comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Verification {
    /// Its id.
    pub id: Uuid,
    /// The mirror.
    pub mirror: String,
    /// What was asked for.
    pub spec: VerificationSpec,
    /// Where it stands.
    pub state: VerificationState,
    /// Why it failed.
    pub error: Option<Failure>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
    /// Its tables, as far as they were cut.
    pub tables: Vec<VerifiedTable>,
}

/// One table of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifiedTable {
    /// Its number.
    pub table_id: i64,
    /// Its name on the source.
    pub source: String,
    /// Its name in the destination's database.
    pub destination: String,
    /// Why it is not compared, or not to its end.
    pub skipped: Option<String>,
    /// Columns that cannot be compared, each with the reason.
    pub incomparable: Vec<(String, String)>,
    /// Whether it has no key, and only its rows are counted.
    pub append_only: bool,
    /// Ranges that it was cut into.
    pub cut: u64,
    /// Its rows, estimated.
    pub rows_estimated: u64,
    /// What was found so far.
    pub counts: Counts,
}

/// What was found in the ranges of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ranges to be compared.
    pub ranges: u64,
    /// Those that were.
    pub done: u64,
    /// Rows of the source in them.
    pub source_rows: u64,
    /// Rows of the destination in them.
    pub destination_rows: u64,
    /// Rows that the destination lacks.
    pub missing: u64,
    /// Rows that only the destination has.
    pub extra: u64,
    /// Rows that are not the same.
    pub different: u64,
    /// How many of these were mended.
    pub mended: u64,
    /// Rows of which nothing is certain.
    pub unsettled: u64,
    /// Who kept differences from being certain, in words.
    pub held_by: Option<String>,
}

impl Counts {
    /// Rows that differ, mended or not.
    pub fn differences(&self) -> u64 {
        self.missing + self.extra + self.different
    }
}

/// A row that differs, as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDifference {
    /// The table's name on the source.
    pub source: String,
    /// What is told of it: JSON of the data plane's.
    pub told: Value,
    /// Whether it was mended.
    pub mended: bool,
    /// Where it stands among the others.
    pub place: DifferencePlace,
}

/// Where a difference stands: by table, range and number in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DifferencePlace(pub i64, pub u32, pub u32);

impl Catalog {
    /// Stores a comparison that is to be begun. One that was asked for by the same request is given
    /// instead.
    ///
    /// # Errors
    /// MIRROR_NOT_FOUND.
    pub async fn create_verification(&self, new: &NewVerification) -> Result<Verification> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        // Requests of one mirror take turns.
        mirrors::lock(&transaction, &new.mirror).await?;
        let known = "select id from verifications where mirror = $1 and request_id = $2 and request_id <> ''";
        let known = sql::row(&transaction, known, &[&new.mirror, &new.request_id]).await?;
        let id = match known {
            Some(row) => Columns(&row).get("id")?,
            None => {
                let sql =
                    "insert into verifications (id, mirror, request, request_id) values ($1, $2, $3, $4)";
                let request = sql::json(&new.spec);
                sql::execute(&transaction, sql, &[&new.id, &new.mirror, &request, &new.request_id]).await?;
                new.id
            }
        };
        transaction.commit().await.map_err(errors::database)?;
        self.get_verification(&new.mirror, id).await
    }

    /// A comparison, with what was found so far.
    ///
    /// # Errors
    /// VERIFICATION_NOT_FOUND.
    pub async fn get_verification(&self, mirror: &str, id: Uuid) -> Result<Verification> {
        let client = self.client().await?;
        let row = sql::row(
            &client,
            "select id, mirror, request, state, error, created_at, finished_at from verifications
             where id = $1 and mirror = $2",
            &[&id, &mirror],
        )
        .await?;
        let row = row.ok_or_else(|| not_found(mirror, id))?;
        let columns = Columns(&row);
        let tables = sql::rows(&client, TABLES, &[&id]).await?;
        Ok(Verification {
            id,
            mirror: columns.text("mirror")?,
            spec: columns.json("request")?,
            state: columns.word("state")?,
            error: columns.json_opt("error")?,
            created_at: columns.time("created_at")?,
            finished_at: columns.time_opt("finished_at")?,
            tables: tables.iter().map(table).collect::<Result<_>>()?,
        })
    }

    /// Ends a comparison. One that is over stays as it is.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn end_verification(
        &self,
        id: Uuid,
        state: VerificationState,
        error: Option<&Error>,
    ) -> Result<()> {
        let failure = error.map(Failure::new);
        let failure = failure.as_ref().map(sql::json);
        sql::execute(
            &self.client().await?,
            "update verifications set state = $2, error = $3, finished_at = now() where id = $1 and state = 'RUNNING'",
            &[&id, &state.as_str(), &failure],
        )
        .await
        .map(drop)
    }

    /// Rows that differ, behind a place, in order.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn list_differences(
        &self,
        id: Uuid,
        after: DifferencePlace,
        limit: u32,
    ) -> Result<Vec<StoredDifference>> {
        let rows = sql::rows(
            &self.client().await?,
            "select t.source, d.table_id, d.range_no, d.n, d.told, d.mended from verification_differences d
                join verification_tables t on t.verification = d.verification and t.table_id = d.table_id
             where d.verification = $1 and (d.table_id, d.range_no, d.n) > ($2, $3, $4)
             order by d.table_id, d.range_no, d.n limit $5",
            &[&id, &after.0, &sql::integer(after.1), &sql::integer(after.2), &i64::from(limit)],
        )
        .await?;
        let read = |row: &Row| {
            let columns = Columns(row);
            Ok(StoredDifference {
                source: columns.text("source")?,
                told: columns.json("told")?,
                mended: columns.get("mended")?,
                place: DifferencePlace(
                    columns.get("table_id")?,
                    columns.number("range_no")?,
                    columns.number("n")?,
                ),
            })
        };
        rows.iter().map(read).collect()
    }
}

const TABLES: &str = "
    select t.table_id, t.source, t.destination, t.skipped, t.incomparable, t.append_only, t.cut::bigint as cut,
        t.rows_estimated, count(r.no) as ranges, count(*) filter (where r.state = 'DONE') as done,
        coalesce(sum(r.source_rows), 0)::bigint as source_rows,
        coalesce(sum(r.destination_rows), 0)::bigint as destination_rows,
        coalesce(sum(r.missing), 0)::bigint as missing, coalesce(sum(r.extra), 0)::bigint as extra,
        coalesce(sum(r.different), 0)::bigint as different, coalesce(sum(r.mended), 0)::bigint as mended,
        coalesce(sum(r.unsettled), 0)::bigint as unsettled, max(r.held_by) as held_by
    from verification_tables t
        left join verification_ranges r on r.verification = t.verification and r.table_id = t.table_id
    where t.verification = $1
    group by t.verification, t.table_id order by t.table_id";

fn table(row: &Row) -> Result<VerifiedTable> {
    let columns = Columns(row);
    Ok(VerifiedTable {
        table_id: columns.get("table_id")?,
        source: columns.text("source")?,
        destination: columns.text("destination")?,
        skipped: columns.get("skipped")?,
        incomparable: columns.json("incomparable")?,
        append_only: columns.get("append_only")?,
        cut: columns.count("cut")?,
        rows_estimated: columns.count("rows_estimated")?,
        counts: Counts {
            ranges: columns.count("ranges")?,
            done: columns.count("done")?,
            source_rows: columns.count("source_rows")?,
            destination_rows: columns.count("destination_rows")?,
            missing: columns.count("missing")?,
            extra: columns.count("extra")?,
            different: columns.count("different")?,
            mended: columns.count("mended")?,
            unsettled: columns.count("unsettled")?,
            held_by: columns.get("held_by")?,
        },
    })
}

pub(crate) fn not_found(mirror: &str, id: Uuid) -> Error {
    Error::new(Code::VerificationNotFound, format!("mirror {mirror} has no verification {id}"))
        .with("mirror", mirror)
}
