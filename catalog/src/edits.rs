//! Edits of a mirror while it runs: tables join and leave, settings change, tables pause.
//!
//! What is wanted is written down in one transaction, which also fences the stream where the attempt
//! that runs must not go on as it does. The mirror's workflow then has the rest done (publication,
//! destination) until no table has an edit left; each step may be repeated.

use std::fmt;
use std::str::FromStr;

use deadpool_postgres::GenericClient;
use millrace_terms::{Code, Error, Result, TableName};
use serde::{Deserialize, Serialize};

use crate::connection::Catalog;
use crate::mirrors::NewTable;
use crate::spec::MirrorSpec;
use crate::sql::{self, Columns};
use crate::state::{Desired, TableState, words};
use crate::tables::{self, NewPlan, Table};
use crate::{errors, mirrors, peers};

words! {
    /// What is left to do for a table.
    TableEdit {
        /// To be published, made in the destination, and known to the stream.
        Join = "JOIN",
        /// To be taken out of the publication.
        Leave = "LEAVE",
        /// As `Leave`; then its destination table is dropped.
        Erase = "ERASE",
    }
}

/// A change of a mirror.
#[derive(Debug, Clone, PartialEq)]
pub struct MirrorEdit {
    /// The mirror as it was when the change was decided: if it is another, nothing is changed.
    pub before: MirrorSpec,
    /// The mirror as it is to be.
    pub after: MirrorSpec,
    /// The mirror must still have this etag; empty for any.
    pub etag: String,
    /// Tables that join.
    pub added: Vec<NewTable>,
    /// Ids of the tables that leave.
    pub removed: Vec<i64>,
    /// Whether the destination tables of those that leave are dropped.
    pub drop_destination: bool,
    /// Whether the stream's attempt has to begin anew, to take notice of settings.
    pub restart: bool,
}

/// A stream was fenced: the attempt that runs stops, and the next one reads the catalog anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// Number of the stream.
    pub stream: u32,
    /// The lease's number now. The attempt that has taken notice has a higher one.
    pub lease: i64,
}

/// A table that a mirror copied, and that has left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormerTable {
    /// Its name on the source.
    pub source: TableName,
    /// Its name in the destination's database.
    pub destination: String,
    /// The stream that it belonged to: versions of its rows are of that one's base.
    pub stream: u32,
}

impl Catalog {
    /// Writes a change down, all or nothing. Gives the streams that were fenced.
    ///
    /// # Errors
    /// MIRROR_NOT_FOUND; MIRROR_STATE if it is being dropped; EDIT_CONFLICT if it was changed since;
    /// DESTINATION_TABLE_EXISTS if another mirror writes into a destination.
    pub async fn edit_mirror(&self, edit: &MirrorEdit) -> Result<Vec<Fence>> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        let name = edit.after.name.as_str();
        // As for a new mirror: those of one destination take turns.
        let peer = "select 1 from peers where name = $1 for no key update";
        let row = sql::row(&transaction, peer, &[&edit.after.destination]).await?;
        row.ok_or_else(|| peers::not_found(&edit.after.destination))?;
        if mirrors::lock(&transaction, name).await? == Desired::Dropping {
            let message = format!("mirror {name} is being dropped");
            return Err(Error::new(Code::MirrorState, message).with("mirror", name));
        }
        require_unchanged(&transaction, edit).await?;
        sql::execute(
            &transaction,
            "update mirrors set spec = $2, updated_at = now(), etag = gen_random_uuid()::text where name = $1",
            &[&name, &sql::json(&edit.after)],
        )
        .await?;
        let leave = if edit.drop_destination { TableEdit::Erase } else { TableEdit::Leave };
        for table in &edit.removed {
            tables::enter(&transaction, *table, TableState::Dropped, None, None).await?;
            let sql = "update mirror_tables set edit = $2 where id = $1";
            sql::execute(&transaction, sql, &[table, &leave.as_str()]).await?;
        }
        let added: Vec<&str> = edit.added.iter().map(|table| table.destination.as_str()).collect();
        mirrors::refuse_taken_destinations(&transaction, &edit.after, &added).await?;
        mirrors::insert_tables(&transaction, name, &edit.added, Some(TableEdit::Join)).await?;
        // Settings are read by every stream; who writes to a table that leaves is its own stream.
        let fences = match edit.restart {
            true => fence(&transaction, name, None).await?,
            false => fence(&transaction, name, Some(&edit.removed)).await?,
        };
        transaction.commit().await.map_err(errors::database)?;
        Ok(fences)
    }

    /// Pauses a table: nothing of it is copied or streamed from the next attempt of its stream on, and
    /// the one that runs is fenced. Gives that fence; none if the table is paused already.
    ///
    /// # Errors
    /// TABLE_NOT_FOUND, MIRROR_STATE if it is dropped.
    pub async fn pause_table(&self, table: &Table) -> Result<Vec<Fence>> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        mirrors::lock(&transaction, &table.mirror).await?;
        let sql = "select state from mirror_tables where id = $1 for no key update";
        let row = sql::row(&transaction, sql, &[&table.id]).await?;
        let found = Columns(&row.ok_or_else(|| tables::not_found(table.id))?).text("state")?;
        if found == TableState::Paused.as_str() {
            return Ok(Vec::new());
        }
        tables::enter(&transaction, table.id, TableState::Paused, None, None).await?;
        let fences = fence(&transaction, &table.mirror, Some(&[table.id])).await?;
        transaction.commit().await.map_err(errors::database)?;
        Ok(fences)
    }

    /// The tables of a mirror for which something is left to do, dropped ones included, in the order in
    /// which they were added.
    pub async fn list_edits(&self, mirror: &str) -> Result<Vec<Table>> {
        tables::edited(&self.client().await?, mirror).await
    }

    /// Names of the mirrors that have tables for which something is left to do.
    pub async fn list_edited_mirrors(&self) -> Result<Vec<String>> {
        let sql = "select distinct mirror from mirror_tables where edit is not null order by mirror";
        let rows = sql::rows(&self.client().await?, sql, &[]).await?;
        rows.iter().map(|row| Columns(row).text("mirror")).collect()
    }

    /// Lets a table join that is published and made: its plan is stored, it may be copied, and its
    /// stream is fenced, so that every attempt that can write a position afterwards has read the plan
    /// (see [`Catalog::replan_table`]). Says whether the table was still to join.
    pub async fn join_table(&self, table_id: i64, plan: &NewPlan) -> Result<bool> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        let joined = sql::execute(
            &transaction,
            "update mirror_tables set edit = null where id = $1 and edit = 'JOIN' and state = 'PENDING'",
            &[&table_id],
        )
        .await?;
        if joined > 0 {
            tables::store_plan(&transaction, table_id, plan).await?;
        }
        transaction.commit().await.map_err(errors::database)?;
        Ok(joined > 0)
    }

    /// Notes that nothing is left to do for a table that left.
    pub async fn finish_leaving(&self, table_id: i64) -> Result<()> {
        let sql = "update mirror_tables set edit = null where id = $1 and state = 'DROPPED'";
        sql::execute(&self.client().await?, sql, &[&table_id]).await.map(drop)
    }

    /// What a mirror wrote before: the tables that it copied and that have left it. Rows in their
    /// destinations are its own, so such a table may be added again.
    pub async fn list_former_tables(&self, mirror: &str) -> Result<Vec<FormerTable>> {
        let rows = sql::rows(
            &self.client().await?,
            "select distinct source_schema, source_name, destination, stream from mirror_tables
             where mirror = $1 and state = 'DROPPED' and copy_no > 0",
            &[&mirror],
        )
        .await?;
        rows.iter()
            .map(Columns)
            .map(|columns| {
                Ok(FormerTable {
                    source: tables::source(columns)?,
                    destination: columns.text("destination")?,
                    stream: columns.number("stream")?,
                })
            })
            .collect()
    }
}

/// Refuses a change that was decided about another state of the mirror.
async fn require_unchanged(client: &impl GenericClient, edit: &MirrorEdit) -> Result<()> {
    let name = edit.after.name.as_str();
    let row = sql::row(client, "select spec, etag from mirrors where name = $1", &[&name]).await?;
    let row = row.ok_or_else(|| mirrors::not_found(name))?;
    let columns = Columns(&row);
    let is_same = columns.json::<MirrorSpec>("spec")? == edit.before
        && (edit.etag.is_empty() || edit.etag == columns.text("etag")?);
    if is_same {
        return Ok(());
    }
    Err(Error::new(Code::EditConflict, format!("mirror {name} was changed meanwhile")).with("mirror", name))
}

/// Fences the streams of a mirror, or of these tables of it. Gives those whose attempt has to take notice:
/// the others have none.
pub(crate) async fn fence(
    client: &impl GenericClient,
    mirror: &str,
    tables: Option<&[i64]>,
) -> Result<Vec<Fence>> {
    let rows = sql::rows(
        client,
        "update streams set lease = lease + 1
         where mirror = $1 and ($2::bigint[] is null or n in (
            select stream from mirror_tables where mirror = $1 and id = any ($2)))
         returning n, lease, lease_until is not null as held",
        &[&mirror, &tables],
    )
    .await?;
    let mut fences = Vec::new();
    for columns in rows.iter().map(Columns) {
        if columns.get("held")? {
            fences.push(Fence { stream: columns.number("n")?, lease: columns.get("lease")? });
        }
    }
    Ok(fences)
}
