//! Physical deletes in destination tables: the floors that they leave, and their repetition.
//!
//! An insert that was begun before such a delete may arrive after it, and bring back what was deleted,
//! for ever where nothing of a higher version is left. So every delete is repeated once, when no insert
//! that was begun before can be alive any more. What is due is in the catalog: it outlives whoever
//! deleted, and is done for tables that nobody streams.

use std::time::Duration;

use millrace_terms::Result;

use crate::connection::Catalog;
use crate::sql::{self, Columns, Numeric};
use crate::{copies, errors};

/// A physical delete that is to be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    /// The mirror.
    pub mirror: String,
    /// The table.
    pub table_id: i64,
    /// Rows of versions below are to go.
    pub below: u128,
    /// Which delete it is: [`Catalog::finish_purge`] takes it back.
    pub purged_at: jiff::Timestamp,
}

impl Catalog {
    /// Announces a physical delete, for so long; [`Catalog::prolong_purge`] while it lasts. False if the destination table
    /// is being altered: then it must wait. Each excludes the other, because ClickHouse was seen to lose the
    /// values of a column that is renamed while rows are deleted.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn announce_purge(&self, table_id: i64, ttl: Duration) -> Result<bool> {
        let sql = "
            update mirror_tables set purging_until = clock_timestamp() + make_interval(secs => $2)
            where id = $1 and not altering";
        Ok(sql::execute(&self.client().await?, sql, &[&table_id, &ttl.as_secs_f64()]).await? > 0)
    }

    /// Announces a physical delete that goes on for so much longer, whoever waits for it.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn prolong_purge(&self, table_id: i64, ttl: Duration) -> Result<()> {
        let sql = "update mirror_tables set purging_until = clock_timestamp() + make_interval(secs => $2) where id = $1";
        sql::execute(&self.client().await?, sql, &[&table_id, &ttl.as_secs_f64()]).await.map(drop)
    }

    /// Whether the destination table may be altered: no physical delete is announced. To be asked when it is
    /// stored that the table is being altered.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn may_alter(&self, table_id: i64) -> Result<bool> {
        let sql = "select from mirror_tables where id = $1 and purging_until > clock_timestamp()";
        Ok(sql::row(&self.client().await?, sql, &[&table_id]).await?.is_none())
    }

    /// Notes, for the holder of the stream's lease, that rows of a table below a version were physically
    /// deleted. The floor never falls.
    ///
    /// # Errors
    /// LEASE_LOST: the delete was right, but whoever holds the lease finds out about it by itself.
    pub async fn raise_streamed_floor(&self, table_id: i64, lease: i64, version: u128) -> Result<()> {
        let holds =
            "exists (select from streams s where s.mirror = t.mirror and s.n = t.stream and s.lease = $3)";
        match self.raise_floor(table_id, version, holds, &lease).await? {
            0 => Err(errors::lease_lost(format_args!("the stream of table {table_id}"))),
            _ => Ok(()),
        }
    }

    /// Notes that a copy is going to physically delete the rows of a table below a version.
    ///
    /// # Errors
    /// LEASE_LOST if the copy is over.
    pub async fn raise_swept_floor(&self, table_id: i64, copy_no: u32, version: u128) -> Result<()> {
        let number = sql::integer(copy_no);
        match self.raise_floor(table_id, version, "copying and copy_no = $3", &number).await? {
            0 => Err(copies::superseded(table_id, copy_no)),
            _ => Ok(()),
        }
    }

    async fn raise_floor(
        &self,
        table_id: i64,
        version: u128,
        holds: &str,
        holder: &(dyn tokio_postgres::types::ToSql + Sync),
    ) -> Result<u64> {
        // The repetition of a delete that came before is covered by the one of this: it is later, and
        // goes as far.
        let sql = format!(
            "update mirror_tables t set floor = greatest(floor, $2), purged_below = greatest(purged_below, $2),
                purged_at = clock_timestamp()
             where id = $1 and {holds}"
        );
        sql::execute(&self.client().await?, &sql, &[&table_id, &Numeric(version), holder]).await
    }

    /// Physical deletes that were carried out longer than `age` ago and were not repeated since.
    pub async fn due_purges(&self, age: Duration) -> Result<Vec<Purge>> {
        let rows = sql::rows(
            &self.client().await?,
            "select t.mirror, t.id, t.purged_below, t.purged_at
             from mirror_tables t join mirrors m on m.name = t.mirror
             where t.purged_at < clock_timestamp() - make_interval(secs => $1)
                and t.state <> 'DROPPED' and m.desired_state <> 'DROPPING'
             order by t.purged_at",
            &[&age.as_secs_f64()],
        )
        .await?;
        rows.iter()
            .map(Columns)
            .map(|columns| {
                Ok(Purge {
                    mirror: columns.text("mirror")?,
                    table_id: columns.get("id")?,
                    below: columns.version("purged_below")?,
                    purged_at: columns.time("purged_at")?,
                })
            })
            .collect()
    }

    /// Notes that a physical delete was repeated. One that came meanwhile stays due.
    pub async fn finish_purge(&self, purge: &Purge) -> Result<()> {
        let sql = "update mirror_tables set purged_at = null where id = $1 and purged_at = $2";
        sql::execute(&self.client().await?, sql, &[&purge.table_id, &purge.purged_at]).await.map(drop)
    }
}
