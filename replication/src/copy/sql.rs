//! The statements of a copy, as text. Pure.

use millrace_terms::{TableName, quote_ident};

use super::shape::Carried;
use crate::postgres::describe::NOT_NULL;
use crate::postgres::partition::Partition;
use crate::table::ColumnPlan;

/// Asks for the position after everything was read, and ends the transaction.
pub(super) const END: &str = "select pg_catalog.pg_current_wal_insert_lsn(); commit";

/// Begins the transaction, keeps the leaf from being rewritten or altered, and tells what it is now: its
/// OID, which another table of the same name would not have, and its file; then the columns of `table`,
/// which it is a part of and which cannot be altered without it.
///
/// A SELECT holds the lock like any other statement, and may be run by whom LOCK TABLE is refused: a role
/// that may read some columns only. READ COMMITTED, so that what follows sees the leaf as it is once the lock is there.
pub(super) fn lock(leaf: &TableName, table: u32) -> String {
    let leaf = leaf.to_sql();
    format!(
        "begin isolation level read committed read only; select from only {leaf} limit 0; \
         select oid, coalesce(pg_catalog.pg_relation_filenode(oid), 0) from pg_catalog.pg_class where oid = '{}'::pg_catalog.regclass; \
         {}",
        leaf.replace('\'', "''"),
        columns(table),
    )
}

/// The columns of a table.
pub(super) fn columns(table: u32) -> String {
    format!(
        "select attnum, attname, atttypid, atttypmod, not {NOT_NULL}, attgenerated = 'v' from pg_catalog.pg_attribute a \
         where attrelid = {table} and attnum > 0 and not attisdropped order by attnum"
    )
}

/// Reads the range of a leaf.
pub(super) fn copy(carried: &Carried, leaf: &TableName, partition: &Partition) -> String {
    let mut conditions = Vec::new();
    // Who may read some columns only may not name `ctid`.
    if partition.first_block > 0 || partition.end_block.is_some() {
        conditions.push(format!("ctid >= '({},0)'::pg_catalog.tid", partition.first_block));
    }
    if let Some(end) = partition.end_block {
        conditions.push(format!("ctid < '({end},0)'::pg_catalog.tid"));
    }
    let columns = &carried.plan.columns;
    conditions.extend(carried.not_null.iter().map(|at| is_there(&quote_ident(&columns[*at].name))));
    let range =
        if conditions.is_empty() { String::new() } else { format!(" where {}", conditions.join(" and ")) };
    format!(
        "copy (select {} from only {}{range}) to stdout (format binary)",
        expressions(columns),
        leaf.to_sql()
    )
}

/// Begins the one transaction of a whole table's copy, and tells what it sees and the columns of the
/// table. The lock comes before the snapshot, so that nothing is rewritten between them: rows would seem
/// to be gone.
pub(super) fn begin_whole(relation: &str, table: u32) -> String {
    format!(
        "begin isolation level repeatable read read only; lock table {relation} in access share mode; \
         select pg_catalog.pg_current_snapshot(), pg_catalog.pg_current_wal_insert_lsn(); {}",
        columns(table)
    )
}

/// Reads a whole table, its partitions included.
pub(super) fn copy_whole(columns: &[ColumnPlan], relation: &str) -> String {
    format!("copy (select {} from {relation}) to stdout (format binary)", expressions(columns))
}

fn expressions(columns: &[ColumnPlan]) -> String {
    columns.iter().map(expression).collect::<Vec<_>>().join(", ")
}

/// IS NULL also holds for a composite whose fields are all NULL; `num_nulls` looks at the value.
fn is_there(name: &str) -> String {
    format!("pg_catalog.num_nulls({name}) = 0")
}

/// A column in the form that we understand: its own binary one, or its text.
///
/// The text is that of the type's output function, which is what the stream sends. A cast to text is
/// not the same: `inet` gains its netmask, `bpchar` loses its blanks, `bool` becomes a word.
pub(crate) fn expression(column: &ColumnPlan) -> String {
    match column.conversion.binary_known() {
        true => quote_ident(&column.name),
        false => text(column),
    }
}

/// A column's text.
pub(crate) fn text(column: &ColumnPlan) -> String {
    let name = quote_ident(&column.name);
    format!("case when {} then pg_catalog.format('%s', {name}) end", is_there(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::fixtures::{column, plan_of};
    use crate::types::Conversion;

    fn read(
        columns: Vec<ColumnPlan>,
        not_null: Vec<usize>,
        first_block: u32,
        end_block: Option<u32>,
    ) -> String {
        let leaf = TableName::new("s", "it's \"odd\"");
        let partition = Partition { leaf: leaf.clone(), leaf_oid: 7, filenode: 8, first_block, end_block };
        copy(&Carried { plan: plan_of(columns), not_null }, &leaf, &partition)
    }

    #[test]
    fn a_range_is_read_in_the_forms_that_are_known() {
        let times = Conversion::Array(Box::new(Conversion::TextForm));
        let columns = vec![column("id", false, Conversion::Int32), column("t", true, times)];
        assert_eq!(
            read(columns.clone(), vec![0], 8, Some(16)),
            "copy (select \"id\", case when pg_catalog.num_nulls(\"t\") = 0 then pg_catalog.format('%s', \"t\") end \
             from only \"s\".\"it's \"\"odd\"\"\" \
             where ctid >= '(8,0)'::pg_catalog.tid and ctid < '(16,0)'::pg_catalog.tid and pg_catalog.num_nulls(\"id\") = 0) \
             to stdout (format binary)"
        );
        assert!(
            read(columns, vec![], 0, None)
                .ends_with("from only \"s\".\"it's \"\"odd\"\"\") to stdout (format binary)")
        );
    }

    #[test]
    fn the_leaf_is_quoted_as_a_name_and_as_a_text() {
        let sql = lock(&TableName::new("s", "it's \"odd\""), 7);
        assert!(sql.contains("select from only \"s\".\"it's \"\"odd\"\"\" limit 0"), "{sql}");
        assert!(sql.contains("'\"s\".\"it''s \"\"odd\"\"\"'::pg_catalog.regclass"), "{sql}");
    }
}
