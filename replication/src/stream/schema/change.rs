//! What happened to a table on the source, for people and for the catalog. Pure.

use std::fmt;

use millrace_terms::{EventCode, TableName};

/// A change of a table that was followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaChange {
    /// A column was added.
    ColumnAdded {
        /// Its name in ClickHouse.
        column: String,
        /// Its type in ClickHouse.
        kind: String,
    },
    /// A column was dropped.
    ColumnDropped {
        /// Its name in ClickHouse.
        column: String,
        /// Whether it stays there.
        kept: bool,
    },
    /// A column was renamed.
    ColumnRenamed {
        /// Its name before, on the source.
        from: String,
        /// Its name now.
        to: String,
    },
    /// A column has another type.
    ColumnRetyped {
        /// Its name in ClickHouse.
        column: String,
        /// Its type in ClickHouse before.
        from: String,
        /// Its type in ClickHouse now.
        to: String,
    },
    /// A column may hold NULL now.
    ColumnNullable {
        /// Its name in ClickHouse.
        column: String,
    },
    /// A column came that is computed when it is read: it is not replicated.
    ColumnLeftOut {
        /// Its name on the source.
        column: String,
    },
    /// The table has another name.
    TableRenamed {
        /// Its name before.
        from: TableName,
        /// Its name now.
        to: TableName,
    },
    /// The rows were written anew, and stay as they are in ClickHouse.
    RowsKept,
}

/// What the documentation says of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Documented {
    /// What was run on the source.
    pub statement: &'static str,
    /// What happens.
    pub effect: &'static str,
    /// The code of the event; of the table's error, if it is one.
    pub code: &'static str,
}

impl SchemaChange {
    /// The stable code of its event.
    pub fn code(&self) -> EventCode {
        match self {
            SchemaChange::ColumnAdded { .. } => EventCode::ColumnAdded,
            SchemaChange::ColumnDropped { .. } => EventCode::ColumnDropped,
            SchemaChange::ColumnRenamed { .. } => EventCode::ColumnRenamed,
            SchemaChange::ColumnRetyped { .. } => EventCode::ColumnRetyped,
            SchemaChange::ColumnNullable { .. } => EventCode::ColumnNullable,
            SchemaChange::ColumnLeftOut { .. } => EventCode::ColumnLeftOut,
            SchemaChange::TableRenamed { .. } => EventCode::TableRenamed,
            SchemaChange::RowsKept => EventCode::RowsKept,
        }
    }
}

impl fmt::Display for SchemaChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SchemaChange::ColumnAdded { column, kind } => write!(f, "column {column} was added as {kind}"),
            SchemaChange::ColumnDropped { column, kept: true } => {
                write!(
                    f,
                    "column {column} was dropped on the source and stays: later rows have NULL or its type's default in it"
                )
            }
            SchemaChange::ColumnDropped { column, kept: false } => write!(f, "column {column} was dropped"),
            SchemaChange::ColumnRenamed { from, to } => write!(f, "column {from} was renamed to {to}"),
            SchemaChange::ColumnRetyped { column, from, to } => {
                write!(f, "column {column} was changed from {from} to {to}")
            }
            SchemaChange::ColumnNullable { column } => write!(f, "column {column} may hold NULL now"),
            SchemaChange::ColumnLeftOut { column } => {
                write!(f, "the new column {column} is computed when it is read, and not replicated")
            }
            SchemaChange::TableRenamed { from, to } => {
                write!(f, "the table was renamed from {from} to {to}; its name in ClickHouse stays")
            }
            SchemaChange::RowsKept => f.write_str(
                "the source wrote its rows anew, perhaps with other values; they stay as they were",
            ),
        }
    }
}

/// Every statement that changes a table, and what happens then: the documentation's table, in its order.
/// Each line is shown by tests of the same words.
pub fn reference() -> &'static [Documented] {
    REFERENCE
}

const fn line(statement: &'static str, effect: &'static str, code: &'static str) -> Documented {
    Documented { statement, effect, code }
}

const REFERENCE: &[Documented] = &[
    line(
        "ADD COLUMN, no default",
        "Added with the next change of the table; rows from before hold NULL.",
        "COLUMN_ADDED",
    ),
    line(
        "ADD COLUMN ... DEFAULT with a constant, NOT NULL or not",
        "Added with that value as its DEFAULT in ClickHouse: rows from before read as on the source. The value is the one that PostgreSQL stored, also where the default is an expression such as `now()`.",
        "COLUMN_ADDED",
    ),
    line(
        "ADD COLUMN ... DEFAULT with a volatile expression, SERIAL, IDENTITY",
        "Added; the source wrote every row anew without telling the values: `on_rewrite`.",
        "COLUMN_ADDED, TABLE_SCHEMA_CHANGED",
    ),
    line(
        "ADD COLUMN ... GENERATED ALWAYS AS (...) STORED",
        "The table is copied again into a rebuilt table, by `on_rewrite: resync`; else it goes to ERROR.",
        "TABLE_SCHEMA_CHANGED",
    ),
    line("ADD COLUMN ... GENERATED ALWAYS AS (...) VIRTUAL", "Left out.", "COLUMN_LEFT_OUT"),
    line(
        "DROP COLUMN",
        "`on_column_dropped: keep`: the column stays, later rows hold NULL or the type's default in it, until a column of its name is added. `drop`: dropped.",
        "COLUMN_DROPPED",
    ),
    line(
        "DROP COLUMN and ADD COLUMN of the same name",
        "Two columns: the old one's values are gone. Where the log does not tell them apart (same type), the table is copied again.",
        "COLUMN_DROPPED, COLUMN_ADDED",
    ),
    line(
        "RENAME COLUMN, outside the key",
        "Renamed, unless the mirror gives the column a name of its own.",
        "COLUMN_RENAMED",
    ),
    line(
        "RENAME COLUMN, in the key",
        "ClickHouse cannot: copied again into a rebuilt table, by `on_rewrite: resync`; else ERROR.",
        "TABLE_SCHEMA_CHANGED",
    ),
    line("RENAME TO, SET SCHEMA", "Followed; the destination table keeps its name.", "TABLE_RENAMED"),
    line(
        "ALTER COLUMN TYPE: smallint to integer to bigint, real to double precision, more digits of numeric",
        "Widened in place, outside the key. Where the source wrote its rows anew (a USING may have changed values): `on_rewrite`.",
        "COLUMN_RETYPED",
    ),
    line(
        "ALTER COLUMN TYPE between types that ClickHouse holds alike: lengths of varchar, varchar and text, enums",
        "Nothing changes in ClickHouse. Where the source wrote its rows anew: `on_rewrite`.",
        "",
    ),
    line(
        "ALTER COLUMN TYPE, any other, and any of the key that changes its ClickHouse type",
        "Copied again into a rebuilt table, by `on_rewrite: resync`; else ERROR.",
        "TABLE_SCHEMA_CHANGED",
    ),
    line(
        "ALTER COLUMN TYPE ... USING, of the same type",
        "The source wrote its rows anew: `on_rewrite`.",
        "TABLE_SCHEMA_CHANGED",
    ),
    line(
        "ALTER TYPE ... ADD VALUE, RENAME VALUE",
        "New values arrive as they are; a renamed one is another text for later rows only: resync the table.",
        "",
    ),
    line("DROP NOT NULL", "The column becomes Nullable.", "COLUMN_NULLABLE"),
    line(
        "SET NOT NULL, SET DEFAULT, DROP DEFAULT, checks, foreign keys, indexes outside the key",
        "Nothing changes in ClickHouse.",
        "",
    ),
    line(
        "ADD CONSTRAINT ... NOT NULL ... NOT VALID (PostgreSQL 18)",
        "Nothing changes in ClickHouse; in a table that is planned then, the column is Nullable, because old rows may hold NULL.",
        "",
    ),
    line(
        "Primary key or replica identity changed or dropped",
        "ERROR; a resync rebuilds the table by the new key.",
        "TABLE_SCHEMA_CHANGED",
    ),
    line("VACUUM FULL, CLUSTER, SET TABLESPACE", "Nothing: the values are the same.", ""),
    line(
        "Any change of the columns of a table without a key",
        "All its columns are its sorting key: copied again into a rebuilt table, by `on_rewrite: resync`; else ERROR.",
        "TABLE_SCHEMA_CHANGED",
    ),
];
