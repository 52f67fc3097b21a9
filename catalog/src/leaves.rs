//! The relations that hold the rows of a table, as far as they are known: the table itself, its
//! partitions, tables that inherit from it. Each is covered by a copy whose epoch was taken when it
//! was a part of the table already: by that of the whole table, or by one of its own.

use deadpool_postgres::GenericClient;
use millrace_terms::{Lsn, Result, TableName};
use tokio_postgres::Row;

use crate::connection::Catalog;
use crate::sql::{self, Columns};
use crate::{copies, errors, tables};

/// A relation that holds rows of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Its OID.
    pub oid: u32,
    /// Its name.
    pub name: TableName,
    /// When it became a part of the table, in a form that is only compared.
    pub attachment: String,
}

/// What is known of a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownLeaf {
    /// The table.
    pub table_id: i64,
    /// The leaf.
    pub leaf: Leaf,
    /// The copy that covers it; none while it waits for one.
    pub copy_no: Option<u32>,
    /// An end of the log by which it was a part of the table no more.
    pub removed_at: Option<Lsn>,
}

/// What became of the leaves of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeafChanges {
    /// Those that wait for a copy from now on, new or not.
    pub waiting: Vec<Leaf>,
    /// Those that are called otherwise.
    pub renamed: Vec<Leaf>,
    /// Those that are no part of the table any more, by their OIDs.
    pub removed: Vec<u32>,
    /// An end of the log by which it was so.
    pub seen: Lsn,
}

impl Catalog {
    /// The leaves of a stream's tables that are not dropped, in order of table and OID.
    pub async fn stream_leaves(&self, mirror: &str, stream: u32) -> Result<Vec<KnownLeaf>> {
        let sql = format!(
            "{SELECT} join mirror_tables t on t.id = l.table_id
             where t.mirror = $1 and t.stream = $2 and t.state <> 'DROPPED' order by l.table_id, l.oid"
        );
        let rows = sql::rows(&self.client().await?, &sql, &[&mirror, &sql::integer(stream)]).await?;
        rows.iter().map(read).collect()
    }

    /// Says what a copy is to read, before its epoch is taken: of a copy of the whole table `now`, all
    /// its leaves; of a partial one those that wait. May be repeated until the epoch is recorded.
    ///
    /// # Errors
    /// LEASE_LOST if the copy is over.
    pub async fn cover_leaves(&self, table_id: i64, copy_no: u32, now: &[Leaf]) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        copies::lock(&transaction, table_id, copy_no).await?;
        let sql = "select partial from mirror_tables where id = $1";
        let row = sql::one(&transaction, sql, &[&table_id]).await?;
        if Columns(&row).get("partial")? {
            let oids: Vec<u32> = now.iter().map(|leaf| leaf.oid).collect();
            let sql = "update leaves set copy_no = $2
                where table_id = $1 and copy_no is null and removed_at is null and oid = any($3)";
            sql::execute(&transaction, sql, &[&table_id, &sql::integer(copy_no), &oids]).await?;
        } else {
            // The stream may still come to changes of those that were removed.
            let sql = "delete from leaves where table_id = $1 and removed_at is null";
            sql::execute(&transaction, sql, &[&table_id]).await?;
            upsert(&transaction, table_id, Some(copy_no), now).await?;
        }
        transaction.commit().await.map_err(errors::database)
    }

    /// OIDs of the leaves that a copy is to read.
    pub async fn covered_leaves(&self, table_id: i64, copy_no: u32) -> Result<Vec<u32>> {
        let sql = "select oid from leaves where table_id = $1 and copy_no = $2 and removed_at is null";
        let rows = sql::rows(&self.client().await?, sql, &[&table_id, &sql::integer(copy_no)]).await?;
        rows.iter().map(|row| Columns(row).get("oid")).collect()
    }

    /// Changes the leaves of a table, if they are still those that it was decided by: `known`, in the
    /// order of [`Catalog::stream_leaves`]. Gives whether it did. What the stream has passed is
    /// forgotten.
    ///
    /// # Errors
    /// TABLE_NOT_FOUND.
    pub async fn change_leaves(
        &self,
        table_id: i64,
        known: &[KnownLeaf],
        changes: &LeafChanges,
    ) -> Result<bool> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        let sql = "select from mirror_tables where id = $1 for no key update";
        sql::row(&transaction, sql, &[&table_id]).await?.ok_or_else(|| tables::not_found(table_id))?;
        let sql = format!("{SELECT} where l.table_id = $1 order by l.oid");
        let found = sql::rows(&transaction, &sql, &[&table_id]).await?;
        if found.iter().map(read).collect::<Result<Vec<_>>>()? != known {
            return Ok(false);
        }
        upsert(&transaction, table_id, None, &changes.waiting).await?;
        for leaf in &changes.renamed {
            let sql = "update leaves set schema = $3, name = $4 where table_id = $1 and oid = $2";
            let name = &leaf.name;
            sql::execute(&transaction, sql, &[&table_id, &leaf.oid, &name.schema, &name.name]).await?;
        }
        let sql = "update leaves set removed_at = $3
            where table_id = $1 and oid = any($2) and removed_at is null";
        sql::execute(&transaction, sql, &[&table_id, &changes.removed, &sql::pg_lsn(changes.seen)]).await?;
        let sql = "delete from leaves l using mirror_tables t, streams s
            where l.table_id = $1 and t.id = l.table_id and s.mirror = t.mirror and s.n = t.stream
                and l.removed_at < s.position";
        sql::execute(&transaction, sql, &[&table_id]).await?;
        transaction.commit().await.map_err(errors::database)?;
        Ok(true)
    }

    /// Has the leaves of a table copied that wait for it, if it streams: else that is done when it does.
    /// Gives whether a copy is due now.
    pub async fn begin_partial_copy(&self, table_id: i64) -> Result<bool> {
        let sql = "update mirror_tables t set state = 'RESYNCING', state_since = now(), partial = true
            where id = $1 and state = 'STREAMING' and resync_wanted is null
                and exists (select from leaves where table_id = $1 and copy_no is null and removed_at is null)";
        Ok(sql::execute(&self.client().await?, sql, &[&table_id]).await? > 0)
    }
}

const SELECT: &str =
    "select l.table_id, l.oid, l.schema, l.name, l.attachment, l.copy_no, l.removed_at from leaves l";

fn read(row: &Row) -> Result<KnownLeaf> {
    let columns = Columns(row);
    Ok(KnownLeaf {
        table_id: columns.get("table_id")?,
        leaf: Leaf {
            oid: columns.get("oid")?,
            name: TableName::new(columns.text("schema")?, columns.text("name")?),
            attachment: columns.text("attachment")?,
        },
        copy_no: columns.get::<Option<i32>>("copy_no")?.map(i32::unsigned_abs),
        removed_at: columns.lsn_opt("removed_at")?,
    })
}

async fn upsert(
    client: &impl GenericClient,
    table_id: i64,
    copy_no: Option<u32>,
    leaves: &[Leaf],
) -> Result<()> {
    let oids: Vec<u32> = leaves.iter().map(|leaf| leaf.oid).collect();
    let schemas: Vec<&str> = leaves.iter().map(|leaf| leaf.name.schema.as_str()).collect();
    let names: Vec<&str> = leaves.iter().map(|leaf| leaf.name.name.as_str()).collect();
    let attachments: Vec<&str> = leaves.iter().map(|leaf| leaf.attachment.as_str()).collect();
    sql::execute(
        client,
        "insert into leaves (table_id, oid, schema, name, attachment, copy_no)
         select $1, l.oid, l.schema, l.name, l.attachment, $2
         from unnest($3::oid[], $4::text[], $5::text[], $6::text[]) as l (oid, schema, name, attachment)
         on conflict (table_id, oid) do update set schema = excluded.schema, name = excluded.name,
            attachment = excluded.attachment, copy_no = excluded.copy_no, removed_at = null",
        &[&table_id, &copy_no.map(sql::integer), &oids, &schemas, &names, &attachments],
    )
    .await
    .map(drop)
}
