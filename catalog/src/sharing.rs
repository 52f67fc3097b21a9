//! Destination tables into which several source tables write.

use millrace_terms::{Result, TableName};

use crate::connection::Catalog;
use crate::sql::{self, Columns};
use crate::tables::source;

/// A table that writes into the destination table of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sharer {
    /// Its number.
    pub id: i64,
    /// Its mirror.
    pub mirror: String,
    /// Its name on the source.
    pub source: TableName,
}

impl Catalog {
    /// The other tables, of any mirror, that write into a table's destination; dropped ones do not.
    pub async fn list_sharers(&self, table_id: i64) -> Result<Vec<Sharer>> {
        let rows = sql::rows(
            &self.client().await?,
            "select o.id, o.mirror, o.source_schema, o.source_name
             from mirror_tables t join mirrors m on m.name = t.mirror
             join mirrors om on om.destination = m.destination
             join mirror_tables o on o.mirror = om.name and o.destination = t.destination
             where t.id = $1 and o.id <> t.id and o.state <> 'DROPPED'
             order by o.mirror, o.id",
            &[&table_id],
        )
        .await?;
        rows.iter()
            .map(Columns)
            .map(|columns| {
                Ok(Sharer {
                    id: columns.get("id")?,
                    mirror: columns.text("mirror")?,
                    source: source(columns)?,
                })
            })
            .collect()
    }
}
