//! What a copy reads of a table whose columns change. Pure.
//!
//! A copy reads by a plan, and a plan is of the shape that the table had at some moment. The source may
//! alter the table at any later one. What the copy may leave out then is what the stream delivers.
//!
//! **After the epoch, before the first read**, the table is compared with the plan ([`covers`]): every
//! column that it has must be in the plan or left out on purpose, under the same key. If not, the table
//! is planned and copied anew. A column that came between plan and epoch may have been written to below
//! the epoch `E`, and such a change loses against the copied row, or was made before the slot and is not
//! delivered at all: only the copy can hold it.
//!
//! **From then on** each `ALTER TABLE` commits above `E`: one that was open at the epoch was waited for, and
//! one that was over is seen by the comparison. An `ALTER TABLE` excludes every other use of the table
//! until its transaction is over, so whatever is written in its new shape is of a commit above `E`, too,
//! and is delivered by the stream, whole. So of a row as the copy sees it ([`carried`]):
//! - *A column that was added.* A copy that does not read it leaves it to its default in ClickHouse. That
//!   is what the source has for a row that was not written since: NULL, or the constant that PostgreSQL
//!   keeps beside the rows, which the stream makes the column's default. A row that was written since is
//!   delivered. Where the source filled all rows without a change (a volatile default), the stream finds
//!   their files rewritten and has the table copied again.
//! - *A column that was dropped* has no value any more; it is not read. What it holds in ClickHouse is as for later
//!   rows of the stream.
//! - *A column that was renamed* is read under its present name: a column is its number. One that was
//!   dropped and added again is another column.
//! - *A column that lost its NOT NULL.* A row with a NULL there was written since: it is left to the stream.
//! - *Another type.* Values of the types of text are read as they are. Any other change ends the copy: most
//!   rewrite the rows with values that the log does not tell, and the stream has the table copied again
//!   anyway.
//!
//! The names are looked up under the lock under which the partition is read and held until its rows are
//! in ClickHouse, so no column changes on the source while it is being read. ClickHouse's table is altered
//! later still, by the stream, which stores the new plan first: who copies compares the stored plan
//! afterwards, and copies the partition again if a column that it wrote to has become another.
//!
//! None of this holds for an append-only table, whose rows cannot be replaced: it must be exactly as planned
//! in the snapshot of its copy ([`same`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use millrace_terms::{Code, Error, Result};

use crate::postgres::describe::{Generated, TableShape};
use crate::table::{ColumnPlan, Identity, TablePlan};
use crate::types::Conversion;

/// OIDs of `pg_type` of the types of text, which never change: TEXT, BPCHAR, VARCHAR.
const TEXTS: [u32; 3] = [25, 1042, 1043];

/// A column as the source has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    /// `pg_attribute.attnum`.
    pub(super) attnum: i16,
    /// Its name.
    pub(super) name: String,
    /// `pg_attribute.atttypid`.
    pub(super) type_oid: u32,
    /// `pg_attribute.atttypmod`.
    pub(super) typmod: i32,
    /// Whether it may hold NULL.
    pub(super) nullable: bool,
    /// Whether it is computed when it is read.
    pub(super) is_virtual: bool,
}

/// What is read of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Carried {
    /// The plan with the columns that exist, by their present names.
    pub(super) plan: Arc<TablePlan>,
    /// Columns, by their index in that plan, whose rows are left to the stream where they hold NULL.
    pub(super) not_null: Vec<usize>,
}

/// Whether a copy by the plan reads everything that only a copy can tell. To be asked when the copy's epoch
/// is taken, and before it reads.
///
/// # Errors
/// `TABLE_SCHEMA_CHANGED`: the table is to be planned and copied anew.
pub fn covers(plan: &Arc<TablePlan>, shape: &TableShape) -> Result<()> {
    let columns: Vec<Column> = shape
        .columns
        .iter()
        .map(|column| Column {
            attnum: column.plan.attnum,
            name: column.plan.name.clone(),
            type_oid: column.plan.type_oid,
            typmod: column.plan.typmod,
            nullable: column.plan.nullable,
            is_virtual: column.generated == Generated::Virtual,
        })
        .collect();
    all_planned(plan, &columns)?;
    let carried = carried(plan, &columns)?;
    if let Some(at) = carried.not_null.first() {
        let column = &carried.plan.columns[*at].name;
        return Err(changed(plan, format_args!("may hold NULL in column {column} now")));
    }
    if plan.append_only {
        return Ok(());
    }
    let (key, identity) = shape.key()?;
    let now: BTreeSet<i16> = key.iter().map(|at| shape.columns[*at].plan.attnum).collect();
    let planned: BTreeSet<i16> = plan.key.iter().map(|at| plan.columns[*at].attnum).collect();
    let is_whole = |identity| identity == Identity::WholeRow;
    if now != planned || is_whole(identity) != is_whole(plan.identity) {
        return Err(changed(plan, "has another primary key or replica identity"));
    }
    Ok(())
}

/// Whether the table is exactly as planned.
///
/// # Errors
/// As [`covers`].
pub(super) fn same(plan: &Arc<TablePlan>, columns: &[Column]) -> Result<()> {
    all_planned(plan, columns)?;
    let carried = carried(plan, columns)?;
    if carried.plan.columns != plan.columns || !carried.not_null.is_empty() {
        return Err(changed(plan, "had its columns changed"));
    }
    Ok(())
}

/// What is read of a table that has these columns.
///
/// # Errors
/// `TABLE_SCHEMA_CHANGED` if the plan's columns cannot hold what the table's have.
pub(super) fn carried(plan: &Arc<TablePlan>, columns: &[Column]) -> Result<Carried> {
    let mut places = Vec::with_capacity(plan.columns.len());
    let (mut kept, mut not_null) = (Vec::with_capacity(plan.columns.len()), Vec::new());
    for (at, planned) in plan.columns.iter().enumerate() {
        let Some(now) = columns.iter().find(|now| now.attnum == planned.attnum) else {
            if plan.order_by.contains(&at) {
                return Err(changed(
                    plan,
                    format_args!("lost column {}, which sorts its rows", planned.name),
                ));
            }
            places.push(None);
            continue;
        };
        if !is_held(planned, now) {
            return Err(changed(plan, format_args!("had the type of column {} changed", planned.name)));
        }
        if now.nullable && !planned.nullable {
            not_null.push(kept.len());
        }
        places.push(Some(kept.len()));
        kept.push(ColumnPlan { name: now.name.clone(), ..planned.clone() });
    }
    if kept == plan.columns {
        return Ok(Carried { plan: plan.clone(), not_null });
    }
    let moved = |columns: &[usize]| columns.iter().filter_map(|at| places[*at]).collect();
    let (key, order_by) = (moved(&plan.key), moved(&plan.order_by));
    let plan = Arc::new(TablePlan { columns: kept, key, order_by, ..(**plan).clone() });
    Ok(Carried { plan, not_null })
}

/// Whether every column of the table is in the plan, or left out on purpose.
fn all_planned(plan: &TablePlan, columns: &[Column]) -> Result<()> {
    let is_known = |column: &&Column| {
        column.is_virtual
            || plan.columns.iter().any(|planned| planned.attnum == column.attnum)
            || plan.seen.omitted.iter().any(|(omitted, _)| *omitted == column.attnum)
    };
    match columns.iter().find(|column| !is_known(column)) {
        Some(column) => Err(changed(plan, format_args!("has a new column {}", column.name))),
        None => Ok(()),
    }
}

/// Whether the column as it was planned holds every value that it may have now.
fn is_held(planned: &ColumnPlan, now: &Column) -> bool {
    let is_text = TEXTS.contains(&planned.type_oid)
        && TEXTS.contains(&now.type_oid)
        && planned.conversion == Conversion::Text;
    is_text || (planned.type_oid, planned.typmod) == (now.type_oid, now.typmod)
}

fn changed(plan: &TablePlan, what: impl std::fmt::Display) -> Error {
    Error::new(Code::TableSchemaChanged, format!("{} {what}", plan.source))
        .with("table", plan.source.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::fixtures::{column, plan_of};

    const INT4: u32 = 23;

    fn planned(number: i16, name: &str, nullable: bool, type_oid: u32) -> ColumnPlan {
        let conversion = if type_oid == INT4 { Conversion::Int32 } else { Conversion::Text };
        ColumnPlan { attnum: number, type_oid, ..column(name, nullable, conversion) }
    }

    fn now(attnum: i16, name: &str, nullable: bool, type_oid: u32) -> Column {
        Column { attnum, name: name.to_owned(), type_oid, typmod: -1, nullable, is_virtual: false }
    }

    fn plan() -> Arc<TablePlan> {
        plan_of(vec![planned(1, "id", false, INT4), planned(2, "a", true, 25), planned(4, "n", false, INT4)])
    }

    #[test]
    fn columns_are_read_by_their_numbers() {
        let plan = plan();
        let same = [now(1, "id", false, INT4), now(2, "a", true, 25), now(4, "n", false, INT4)];
        assert!(Arc::ptr_eq(&carried(&plan, &same).unwrap().plan, &plan));

        // `a` was dropped and added again, `n` renamed to a name that another column had.
        let columns = [now(1, "id", false, INT4), now(4, "a", true, INT4), now(5, "n", true, 25)];
        let carried = carried(&plan, &columns).unwrap();
        let read: Vec<_> =
            carried.plan.columns.iter().map(|c| (c.name.as_str(), c.destination.as_str())).collect();
        assert_eq!(read, [("id", "id"), ("a", "n")]);
        assert_eq!((carried.not_null, &carried.plan.key), (vec![1], &vec![0]));
    }

    #[test]
    fn what_a_copy_cannot_carry_ends_it() {
        let with = |columns: &[Column]| carried(&plan(), columns).map_err(|error| error.code());
        let id = now(1, "id", false, INT4);
        assert!(with(&[id.clone(), now(2, "a", true, 1043)]).is_ok(), "texts are texts");
        assert_eq!(with(&[id, now(4, "n", false, 20)]), Err(Code::TableSchemaChanged));
        assert_eq!(with(&[now(2, "a", true, 25)]), Err(Code::TableSchemaChanged), "no key");
    }

    #[test]
    fn an_append_only_table_must_be_as_it_was_planned() {
        let plan = plan();
        let mut columns = vec![now(1, "id", false, INT4), now(2, "a", true, 25), now(4, "n", false, INT4)];
        assert!(same(&plan, &columns).is_ok());
        columns.push(now(5, "new", true, 25));
        assert!(same(&plan, &columns).is_err());
        columns[3].is_virtual = true;
        assert!(same(&plan, &columns).is_ok());
        columns[1].name = "b".to_owned();
        assert!(same(&plan, &columns).is_err());
        columns.remove(1);
        assert!(same(&plan, &columns).is_err());
    }
}
