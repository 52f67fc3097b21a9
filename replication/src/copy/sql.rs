//! The statements of a copy, as text. Pure.

use millrace_terms::quote_ident;

use crate::postgres::partition::Partition;
use crate::table::{ColumnPlan, TablePlan};

/// Asks for the position after everything was read, and ends the transaction.
pub(super) const END: &str = "select pg_catalog.pg_current_wal_insert_lsn(); commit";

/// Begins the transaction, keeps the leaf from being rewritten, and tells what it is now: its OID,
/// which another table of the same name would not have, and its file.
///
/// A SELECT holds the lock like any other statement, and may be run by whom LOCK TABLE is refused: a role
/// that may read some columns only. READ COMMITTED, so that what follows sees the leaf as it is once the lock is there.
pub(super) fn lock(partition: &Partition) -> String {
    let leaf = partition.leaf.to_sql();
    format!(
        "begin isolation level read committed read only; select from only {leaf} limit 0; \
         select oid, pg_catalog.pg_relation_filenode(oid) from pg_catalog.pg_class where oid = '{}'::pg_catalog.regclass",
        leaf.replace('\'', "''"),
    )
}

/// Reads the range.
pub(super) fn copy(plan: &TablePlan, partition: &Partition) -> String {
    let columns: Vec<_> = plan.columns.iter().map(expression).collect();
    let range = match (partition.first_block, partition.end_block) {
        // Who may read some columns only may not name `ctid`.
        (0, None) => String::new(),
        (first, None) => format!(" where ctid >= '({first},0)'::pg_catalog.tid"),
        (first, Some(end)) => {
            format!(" where ctid >= '({first},0)'::pg_catalog.tid and ctid < '({end},0)'::pg_catalog.tid")
        }
    };
    let leaf = partition.leaf.to_sql();
    format!("copy (select {} from only {leaf}{range}) to stdout (format binary)", columns.join(", "))
}

/// Begins the one transaction of a whole table's copy, and tells what it sees. The lock comes before the
/// snapshot, so that nothing is rewritten between them: rows would seem to be gone.
pub(super) fn begin_whole(table: &str) -> String {
    format!(
        "begin isolation level repeatable read read only; lock table {table} in access share mode; \
         select pg_catalog.pg_current_snapshot(), pg_catalog.pg_current_wal_insert_lsn()"
    )
}

/// Reads a whole table, its partitions included.
pub(super) fn copy_whole(plan: &TablePlan, table: &str) -> String {
    let columns: Vec<_> = plan.columns.iter().map(expression).collect();
    format!("copy (select {} from {table}) to stdout (format binary)", columns.join(", "))
}

/// A column in the form that we understand: its own binary one, or its text.
///
/// The text is that of the type's output function, which is what the stream sends. A cast to text is
/// not the same: `inet` gains its netmask, `bpchar` loses its blanks, `bool` becomes a word.
fn expression(column: &ColumnPlan) -> String {
    let name = quote_ident(&column.name);
    if column.conversion.binary_known() {
        return name;
    }
    // IS NULL also holds for a composite whose fields are all NULL; num_nulls looks at the value.
    format!("case when pg_catalog.num_nulls({name}) = 0 then pg_catalog.format('%s', {name}) end")
}

#[cfg(test)]
mod tests {
    use millrace_terms::TableName;

    use super::*;
    use crate::table::fixtures::{column, plan_of};
    use crate::types::Conversion;

    fn partition(first_block: u32, end_block: Option<u32>) -> Partition {
        Partition {
            leaf: TableName::new("s", "it's \"odd\""),
            leaf_oid: 7,
            filenode: 8,
            first_block,
            end_block,
        }
    }

    #[test]
    fn a_range_is_read_in_the_forms_that_are_known() {
        let times = Conversion::Array(Box::new(Conversion::TextForm));
        let plan = plan_of(vec![column("id", false, Conversion::Int32), column("t", true, times)]);
        assert_eq!(
            copy(&plan, &partition(8, Some(16))),
            "copy (select \"id\", case when pg_catalog.num_nulls(\"t\") = 0 then pg_catalog.format('%s', \"t\") end \
             from only \"s\".\"it's \"\"odd\"\"\" \
             where ctid >= '(8,0)'::pg_catalog.tid and ctid < '(16,0)'::pg_catalog.tid) to stdout (format binary)"
        );
        assert!(
            copy(&plan, &partition(0, None))
                .ends_with("from only \"s\".\"it's \"\"odd\"\"\") to stdout (format binary)")
        );
    }

    #[test]
    fn the_leaf_is_quoted_as_a_name_and_as_a_text() {
        let sql = lock(&partition(0, None));
        assert!(sql.contains("select from only \"s\".\"it's \"\"odd\"\"\" limit 0"), "{sql}");
        assert!(sql.contains("'\"s\".\"it''s \"\"odd\"\"\"'::pg_catalog.regclass"), "{sql}");
    }
}
