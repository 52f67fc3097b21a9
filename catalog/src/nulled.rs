//! Values that became NULL because ClickHouse cannot hold them (`on_unrepresentable: null`).

use std::collections::BTreeMap;

use millrace_terms::{Code, Error, Result};

use crate::connection::Catalog;
use crate::errors;
use crate::events::{self, NewEvent, Severity};
use crate::sql::{self, Columns};
use crate::tables::{not_found, source};

/// Seconds between two events that tell of them, of one table: figures are for watching, an event says
/// that somebody should look.
const EVENT_SECONDS: f64 = 3_600.0;

impl Catalog {
    /// Adds to the figures of a table, by the names of its columns on the source; now and then an event tells
    /// of them. What is written again after a crash is counted again.
    ///
    /// # Errors
    /// TABLE_NOT_FOUND.
    pub async fn add_nulled(&self, table_id: i64, nulled: &BTreeMap<String, u64>) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        let sql = "
            update mirror_tables t set nulled = t.nulled || (
                select jsonb_object_agg(c.name, coalesce((t.nulled->>c.name)::bigint, 0) + c.values)
                from unnest($2::text[], $3::bigint[]) as c (name, values))
            where id = $1 returning t.mirror, t.source_schema, t.source_name, t.nulled,
                t.nulled_told_at is null or t.nulled_told_at < now() - make_interval(secs => $4) as is_due";
        let names: Vec<&str> = nulled.keys().map(String::as_str).collect();
        let counts: Vec<i64> = nulled.values().map(|count| sql::bigint(*count)).collect();
        let row = sql::row(&transaction, sql, &[&table_id, &names, &counts, &EVENT_SECONDS]).await?;
        let row = row.ok_or_else(|| not_found(table_id))?;
        let columns = Columns(&row);
        if columns.get("is_due")? {
            let sql = "update mirror_tables set nulled_told_at = now() where id = $1";
            sql::execute(&transaction, sql, &[&table_id]).await?;
            let (table, all) = (source(columns)?, columns.json("nulled")?);
            let event = NewEvent::of_error(&columns.text("mirror")?, Severity::Warning, &told(&all));
            events::add(&transaction, &event.on_table(&table)).await?;
        }
        transaction.commit().await.map_err(errors::database)
    }
}

/// What the event says.
fn told(nulled: &BTreeMap<String, u64>) -> Error {
    let columns: Vec<String> = nulled.iter().map(|(column, count)| format!("{column} ({count})")).collect();
    let text = format!("values that ClickHouse cannot hold became NULL, so far in: {}", columns.join(", "));
    Error::new(Code::ValueUnrepresentable, text).with_remedy(
        "Nothing, if that is right; else give the columns a type that holds them, or `on_unrepresentable: string`, and resync the table.",
    )
}
