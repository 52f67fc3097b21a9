//! A source table as it is at this moment, for a stream that was told that it may have changed. I/O.
//!
//! Only the catalog is read, which takes no lock on the table: whoever alters it is not waited for.

use millrace_terms::{Result, TableName};

use super::describe::{NOT_NULL, types};
use super::{Session, from_sql};
use crate::table::{ColumnPlan, TablePlan};
use crate::types::SourceColumn;

/// A default that was put in place of rewriting the rows (`attmissingval`) is told by the relations that
/// hold rows: $2. A partitioned table itself has none.
fn columns() -> String {
    format!(
        "select n.nspname, c.relname, a.attname, a.attnum, a.atttypid, a.atttypmod, {NOT_NULL},
                a.attgenerated::text, a.attndims::int4, a.xmin::text::int8,
                (select pg_catalog.array_to_string(l.attmissingval, '') from pg_catalog.pg_attribute l
                  where l.attrelid = any ($2::oid[]) and l.attname = a.attname and l.atthasmissing limit 1),
                a.atthasmissing
           from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
           join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
          where c.oid = $1::oid
          order by a.attnum"
    )
}

const FILES: &str = "
select c.oid, coalesce(pg_catalog.pg_relation_filenode(c.oid), 0)
  from pg_catalog.pg_class c where c.oid = any ($1::oid[]) order by c.oid";

/// A source table as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Present {
    /// Its name.
    pub(crate) name: TableName,
    /// Its columns in order, without dropped ones.
    pub(crate) columns: Vec<PresentColumn>,
    /// The relations that were asked for, as far as they exist, and their files.
    pub(crate) files: Vec<(u32, u32)>,
}

/// A column as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PresentColumn {
    /// How it is replicated by default.
    pub(crate) plan: ColumnPlan,
    /// What rows hold that are older than the column, if the server keeps that beside them.
    pub(crate) missing: Option<String>,
    /// Whether it is computed when it is read.
    pub(crate) is_virtual: bool,
}

/// The plan's table, and `relation`, which is the table itself or a part of it. None if the table does
/// not exist any more.
///
/// # Errors
/// Those of [`from_sql`].
pub(crate) async fn look(session: &Session, plan: &TablePlan, relation: u32) -> Result<Option<Present>> {
    let failed = |error: tokio_postgres::Error| from_sql("looking at a table that changed", &error);
    let mut parts: Vec<u32> = plan.seen.files.iter().map(|(oid, _)| *oid).collect();
    if relation != plan.oid || parts.is_empty() {
        parts.push(relation);
    }
    let rows = session.query(&columns(), &[&plan.oid, &parts]).await.map_err(failed)?;
    let files = session.query(FILES, &[&parts]).await.map_err(failed)?;
    let Some(first) = rows.first() else { return Ok(None) };
    let types = types(session, rows.iter().map(|row| row.get(4)).collect()).await?;
    let column = |row: &tokio_postgres::Row| {
        let mut plan = types.plan_column(SourceColumn {
            name: row.get(2),
            attnum: row.get(3),
            type_oid: row.get(4),
            typmod: row.get(5),
            dimensions: row.get(8),
            nullable: !row.get::<_, bool>(6),
        });
        plan.generated = row.get::<_, &str>(7) == "s";
        plan.past.row = u32::try_from(row.get::<_, i64>(9)).unwrap_or(0);
        plan.past.defaulted = row.get(11);
        PresentColumn { plan, missing: row.get(10), is_virtual: row.get::<_, &str>(7) == "v" }
    };
    Ok(Some(Present {
        name: TableName::new(first.get::<_, String>(0), first.get::<_, String>(1)),
        columns: rows.iter().map(column).collect(),
        files: files.iter().map(|row| (row.get(0), row.get(1))).collect(),
    }))
}
