//! Partitions of a copy: the queue that copiers on all workers share. A partition that is done stays
//! done, whatever dies; one whose lease ran out is given to the next who asks.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use millrace_terms::{Lsn, Result, TableName};
use tokio_postgres::Row;

use crate::connection::Catalog;
use crate::errors;
use crate::sql::{self, Columns};
use crate::{copies, mirrors, tables};

/// A range of blocks of one leaf, to be read in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPartition {
    /// The leaf: the table itself if it is not partitioned.
    pub leaf: TableName,
    /// Its OID.
    pub leaf_oid: u32,
    /// `pg_relation_filenode` of the leaf when planned.
    pub filenode: u32,
    /// First block of the range.
    pub first_block: u64,
    /// Block after the range; none for the last range of the leaf, which has no bound.
    pub end_block: Option<u64>,
    /// Heap bytes of the range when planned: for progress.
    pub bytes: u64,
}

/// A partition leased to a copier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The table.
    pub table_id: i64,
    /// Number of the copy.
    pub copy_no: u32,
    /// Number of the partition within the copy; never used again.
    pub no: u32,
    /// Who holds the lease: an attempt of an activity.
    pub owner: String,
    /// What is to be read.
    pub range: NewPartition,
}

/// Answer to a copier that asks for work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Copy this one.
    Partition(Partition),
    /// Nothing now: as many are being copied as the mirror allows, or the rest is leased to others,
    /// who may yet die. Ask again.
    Wait,
    /// Every partition is done.
    Done,
}

/// What a copy was cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// Number of partitions.
    pub partitions: u64,
    /// Their heap bytes.
    pub bytes: u64,
}

impl Catalog {
    /// Stores the partitions of a copy. A copy that is cut stays cut: a second plan is ignored. What
    /// older copies of the table left is deleted. Gives the plan that counts.
    ///
    /// # Errors
    /// LEASE_LOST if the copy is over.
    pub async fn plan_partitions(
        &self,
        table_id: i64,
        copy_no: u32,
        plan: &[NewPartition],
    ) -> Result<Planned> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        if !copies::lock(&transaction, table_id, copy_no).await? {
            sql::execute(&transaction, "delete from partitions where table_id = $1", &[&table_id]).await?;
            insert(&transaction, table_id, copy_no, 0, plan).await?;
            let sql = "update mirror_tables set planned = true, bytes_total = $2 where id = $1";
            let bytes: u64 = plan.iter().map(|partition| partition.bytes).sum();
            sql::execute(&transaction, sql, &[&table_id, &sql::bigint(bytes)]).await?;
        }
        let row = sql::one(
            &transaction,
            "select count(*) as partitions, coalesce(sum(bytes_planned), 0)::bigint as bytes
             from partitions where table_id = $1 and copy_no = $2",
            &[&table_id, &sql::integer(copy_no)],
        )
        .await?;
        let planned =
            Planned { partitions: Columns(&row).count("partitions")?, bytes: Columns(&row).count("bytes")? };
        transaction.commit().await.map_err(errors::database)?;
        Ok(planned)
    }

    /// Replaces all partitions of a leaf, those done too: the leaf was rewritten, and its rows moved.
    /// The first of several copiers that see it plans anew; the others, whose `filenode` nothing is
    /// planned for any more, change nothing. Who copies a replaced partition is told LEASE_LOST.
    ///
    /// # Errors
    /// LEASE_LOST if the copy is over.
    pub async fn replan_leaf(
        &self,
        table_id: i64,
        copy_no: u32,
        leaf_oid: u32,
        filenode: u32,
        plan: &[NewPartition],
    ) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        copies::lock(&transaction, table_id, copy_no).await?;
        let sql =
            "select coalesce(max(no) + 1, 0) as next from partitions where table_id = $1 and copy_no = $2";
        let row = sql::one(&transaction, sql, &[&table_id, &sql::integer(copy_no)]).await?;
        let next = Columns(&row).number("next")?;
        let replaced = sql::execute(
            &transaction,
            "delete from partitions where table_id = $1 and copy_no = $2 and leaf_oid = $3 and filenode = $4",
            &[&table_id, &sql::integer(copy_no), &leaf_oid, &filenode],
        )
        .await?;
        if replaced > 0 {
            insert(&transaction, table_id, copy_no, next, plan).await?;
        }
        transaction.commit().await.map_err(errors::database)
    }

    /// Leases the next partition of a copy to `owner` for `ttl`, if fewer than `parallel_partitions`
    /// of all the mirror's tables are leased.
    ///
    /// # Errors
    /// LEASE_LOST if the copy is over, TABLE_NOT_FOUND.
    pub async fn claim_partition(
        &self,
        table_id: i64,
        copy_no: u32,
        owner: &str,
        ttl: Duration,
        parallel_partitions: u32,
    ) -> Result<Claim> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        // Claims of one mirror take turns: they count each other's leases.
        let row =
            sql::row(&transaction, "select mirror from mirror_tables where id = $1", &[&table_id]).await?;
        let mirror = Columns(&row.ok_or_else(|| tables::not_found(table_id))?).text("mirror")?;
        mirrors::lock(&transaction, &mirror).await?;
        let planned = copies::lock(&transaction, table_id, copy_no).await?;
        let row = sql::one(&transaction, STANDING, &[&table_id, &sql::integer(copy_no), &mirror]).await?;
        let (undone, leased): (bool, u64) = (Columns(&row).get("undone")?, Columns(&row).count("leased")?);
        if planned && !undone {
            return Ok(Claim::Done);
        }
        if leased >= u64::from(parallel_partitions) {
            return Ok(Claim::Wait);
        }
        let row =
            sql::row(&transaction, CLAIM, &[&table_id, &sql::integer(copy_no), &owner, &ttl.as_secs_f64()])
                .await;
        let claim = match row? {
            Some(row) => Claim::Partition(read(&row, table_id, copy_no, owner)?),
            None => Claim::Wait,
        };
        transaction.commit().await.map_err(errors::database)?;
        Ok(claim)
    }

    /// Renews the lease of a partition, and says how many rows and bytes of it are written so far.
    ///
    /// # Errors
    /// LEASE_LOST if it was given to another or replaced, or is done.
    pub async fn renew_partition(
        &self,
        partition: &Partition,
        ttl: Duration,
        rows: u64,
        bytes: u64,
    ) -> Result<()> {
        let set = "lease_until = clock_timestamp() + make_interval(secs => $5), rows = $6, bytes = $7";
        self.change_partition(
            partition,
            LEASED,
            set,
            &[&ttl.as_secs_f64(), &sql::bigint(rows), &sql::bigint(bytes)],
        )
        .await
    }

    /// Marks a partition as done: its rows are in the destination. `read_end` is the end of the log
    /// after it was read.
    ///
    /// # Errors
    /// LEASE_LOST if it was given to another or replaced; its rows are harmless.
    pub async fn finish_partition(
        &self,
        partition: &Partition,
        rows: u64,
        bytes: u64,
        read_end: Lsn,
    ) -> Result<()> {
        let set = "state = 'DONE', lease_until = null, finished_at = clock_timestamp(),
            rows = $5, bytes = $6, read_end = $7";
        // Also if it is done: an answer that was lost is asked for again.
        self.change_partition(
            partition,
            LEASED_OR_DONE,
            set,
            &[&sql::bigint(rows), &sql::bigint(bytes), &sql::pg_lsn(read_end)],
        )
        .await
    }

    /// Gives a partition back unfinished, so that the next who asks gets it at once.
    ///
    /// # Errors
    /// LEASE_LOST if it was given to another or replaced, or is done: done stays done.
    pub async fn release_partition(&self, partition: &Partition) -> Result<()> {
        let set = "state = 'PENDING', lease_owner = null, lease_until = null, rows = 0, bytes = 0";
        self.change_partition(partition, LEASED, set, &[]).await
    }

    /// Changes a partition that is in one of `states` if its lease is still the owner's and the copy is not
    /// over. A lease that ran out but was given to nobody else counts: what was written is written.
    async fn change_partition(
        &self,
        partition: &Partition,
        states: &str,
        set: &str,
        values: sql::Params<'_>,
    ) -> Result<()> {
        let Partition { table_id, copy_no, no, owner, .. } = partition;
        let sql = format!(
            "update partitions p set {set} from mirror_tables t
             where p.table_id = $1 and p.copy_no = $2 and p.no = $3 and p.lease_owner = $4
                and {states}
                and t.id = p.table_id and t.copy_no = p.copy_no and t.copying"
        );
        let (copy, number) = (sql::integer(*copy_no), sql::integer(*no));
        let mut parameters: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
            vec![table_id, &copy, &number, owner];
        parameters.extend(values);
        match sql::execute(&self.client().await?, &sql, &parameters).await? {
            0 => {
                Err(errors::lease_lost(format_args!("partition {no} of copy {copy_no} of table {table_id}")))
            }
            _ => Ok(()),
        }
    }
}

/// Who reads it may still change it.
const LEASED: &str = "p.state = 'LEASED'";

/// Who has read it may say so again.
const LEASED_OR_DONE: &str = "p.state in ('LEASED', 'DONE')";

const STANDING: &str = "
    select exists (select from partitions where table_id = $1 and copy_no = $2 and state <> 'DONE') as undone, (
        select count(*) from partitions p join mirror_tables t on t.id = p.table_id and t.copy_no = p.copy_no
        where t.mirror = $3 and t.copying and p.state = 'LEASED' and p.lease_until >= clock_timestamp()
    ) as leased";

const CLAIM: &str = "
    update partitions set state = 'LEASED', lease_owner = $3, rows = 0, bytes = 0, claimed_at = clock_timestamp(),
        lease_until = clock_timestamp() + make_interval(secs => $4)
    where table_id = $1 and copy_no = $2 and no = (
        select no from partitions where table_id = $1 and copy_no = $2 and state <> 'DONE'
            and (state = 'PENDING' or state = 'LEASED' and lease_until < clock_timestamp())
        order by no limit 1 for update skip locked)
    returning no, leaf_schema, leaf_name, leaf_oid, filenode, first_block, end_block, bytes_planned";

fn read(row: &Row, table_id: i64, copy_no: u32, owner: &str) -> Result<Partition> {
    let columns = Columns(row);
    let range = NewPartition {
        leaf: TableName::new(columns.text("leaf_schema")?, columns.text("leaf_name")?),
        leaf_oid: columns.get("leaf_oid")?,
        filenode: columns.get("filenode")?,
        first_block: columns.count("first_block")?,
        end_block: columns.count_opt("end_block")?,
        bytes: columns.count("bytes_planned")?,
    };
    Ok(Partition { table_id, copy_no, no: columns.number("no")?, owner: owner.to_owned(), range })
}

/// Inserts partitions, numbered from `first_no`, in one statement.
async fn insert(
    client: &impl GenericClient,
    table_id: i64,
    copy_no: u32,
    first_no: u32,
    plan: &[NewPartition],
) -> Result<()> {
    let schemas: Vec<&str> = plan.iter().map(|p| p.leaf.schema.as_str()).collect();
    let names: Vec<&str> = plan.iter().map(|p| p.leaf.name.as_str()).collect();
    let oids: Vec<u32> = plan.iter().map(|p| p.leaf_oid).collect();
    let filenodes: Vec<u32> = plan.iter().map(|p| p.filenode).collect();
    let first_blocks: Vec<i64> = plan.iter().map(|p| sql::bigint(p.first_block)).collect();
    let end_blocks: Vec<Option<i64>> = plan.iter().map(|p| p.end_block.map(sql::bigint)).collect();
    let bytes: Vec<i64> = plan.iter().map(|p| sql::bigint(p.bytes)).collect();
    sql::execute(
        client,
        "insert into partitions
            (table_id, copy_no, no, leaf_schema, leaf_name, leaf_oid, filenode, first_block, end_block, bytes_planned)
         select $1, $2, $3 + p.no::integer - 1, p.leaf_schema, p.leaf_name, p.leaf_oid, p.filenode, p.first_block,
            p.end_block, p.bytes
         from unnest($4::text[], $5::text[], $6::oid[], $7::oid[], $8::bigint[], $9::bigint[], $10::bigint[])
            with ordinality as p (leaf_schema, leaf_name, leaf_oid, filenode, first_block, end_block, bytes, no)",
        &[
            &table_id,
            &sql::integer(copy_no),
            &sql::integer(first_no),
            &schemas,
            &names,
            &oids,
            &filenodes,
            &first_blocks,
            &end_blocks,
            &bytes,
        ],
    )
    .await
    .map(drop)
}
