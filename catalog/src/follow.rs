//! Tables that follow a change on the source: another plan, another name.

use deadpool_postgres::GenericClient;
use millrace_terms::{EventCode, Result, TableName};
use serde_json::Value;

use crate::connection::Catalog;
use crate::errors;
use crate::events::{self, NewEvent};
use crate::spec::MirrorSpec;
use crate::sql::{self, Columns};
use crate::tables::{not_found, source};

/// How a table goes on.
#[derive(Debug, Clone)]
pub struct Followed {
    /// Its name on the source now.
    pub source: TableName,
    /// The plan from now on: JSON that the data plane understands.
    pub plan: Value,
    /// Whether the destination table is altered by it: until the next plan, no physical delete is begun.
    pub altering: bool,
    /// What happened, of that table: stable codes and words.
    pub changes: Vec<(EventCode, String)>,
}

impl Catalog {
    /// Stores that a table follows a change, with an event for each, for the holder of its stream's lease:
    /// one that lost it knows nothing of how the table is now. All in one transaction.
    ///
    /// # Errors
    /// LEASE_LOST, TABLE_NOT_FOUND.
    pub async fn follow_table(&self, table_id: i64, lease: i64, followed: &Followed) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        let sql = "
            update mirror_tables t set plan = $3, altering = $4 from streams s
            where t.id = $1 and s.mirror = t.mirror and s.n = t.stream and s.lease = $2
            returning t.mirror, t.source_schema, t.source_name";
        let Some(row) =
            sql::row(&transaction, sql, &[&table_id, &lease, &followed.plan, &followed.altering]).await?
        else {
            return Err(errors::lease_lost(format_args!("the stream of table {table_id}")));
        };
        let columns = Columns(&row);
        let (mirror, before) = (columns.text("mirror")?, source(columns)?);
        if before != followed.source {
            rename(&transaction, table_id, &followed.source).await?;
        }
        for (code, message) in &followed.changes {
            let event = NewEvent::info(&mirror, *code, message).on_table(&followed.source);
            events::add(&transaction, &event).await?;
        }
        transaction.commit().await.map_err(errors::database)
    }

    /// Stores another name of a table on the source, in the mirror's specification too.
    ///
    /// # Errors
    /// TABLE_NOT_FOUND.
    pub async fn rename_table(&self, table_id: i64, name: &TableName) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        rename(&transaction, table_id, name).await?;
        transaction.commit().await.map_err(errors::database)
    }
}

async fn rename(client: &impl GenericClient, table_id: i64, name: &TableName) -> Result<()> {
    let sql = "
        select t.mirror, t.source_schema, t.source_name, m.spec
        from mirror_tables t join mirrors m on m.name = t.mirror where t.id = $1 for update";
    let row = sql::row(client, sql, &[&table_id]).await?.ok_or_else(|| not_found(table_id))?;
    let columns = Columns(&row);
    let (mirror, before) = (columns.text("mirror")?, source(columns)?.to_string());
    let mut spec: MirrorSpec = columns.json("spec")?;
    for table in spec.tables.iter_mut().filter(|table| table.source == before) {
        table.source = name.to_string();
    }
    let sql = "update mirror_tables set source_schema = $2, source_name = $3 where id = $1";
    sql::execute(client, sql, &[&table_id, &name.schema, &name.name]).await?;
    let sql = "update mirrors set spec = $2, updated_at = now() where name = $1";
    sql::execute(client, sql, &[&mirror, &sql::json(&spec)]).await.map(drop)
}
