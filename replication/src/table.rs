//! What is known of one replicated table: the shape it had on the source when the mirror was
//! prepared, and what it is called and made of in ClickHouse. Frozen in the catalog.
//!
//! Pure: no I/O.

use millrace_terms::TableName;
use serde::{Deserialize, Serialize};

use crate::clickhouse::Alter;
use crate::types::Conversion;

/// One replicated table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablePlan {
    /// The table on the source.
    pub source: TableName,
    /// Its OID; a table of the same name with another OID is another table.
    pub oid: u32,
    /// Name of the table in the destination's database.
    pub destination: String,
    /// The replicated columns, in source order.
    pub columns: Vec<ColumnPlan>,
    /// Names of columns that the source had and that are left out: any further one is new.
    #[serde(default)]
    pub excluded: Vec<String>,
    /// Indexes into `columns` of the key, in the order of the source's index. The stream's Relation
    /// message flags exactly these; ORDER BY is a permutation of them.
    pub key: Vec<usize>,
    /// Whether the whole old row is in the stream.
    pub identity: Identity,
    /// Indexes into `columns` of ORDER BY.
    pub order_by: Vec<usize>,
    /// PARTITION BY expression; empty for none.
    pub partition_by: String,
    /// Whether rows are only ever inserted, and each arrives exactly once. Such a table needs no key.
    #[serde(default)]
    pub append_only: bool,
    /// Names of our own columns, which follow the table's.
    pub own: OwnColumns,
    /// What was seen of the source besides its shape, to tell what became of it later.
    #[serde(default)]
    pub seen: Seen,
}

impl TablePlan {
    /// Takes over from the plan before what stays true of a destination table that is not made anew.
    pub fn succeed(&mut self, before: &TablePlan) {
        self.seen.dropped.clone_from(&before.seen.dropped);
        for (at, column) in self.columns.iter_mut().enumerate() {
            let same = |old: &&ColumnPlan| old.attnum == column.attnum && old.conversion == column.conversion;
            let Some(old) = before.columns.iter().find(same) else { continue };
            column.past.names.clone_from(&old.past.names);
            // What was Nullable once stays so: it holds every value.
            if old.nullable && !column.nullable && !self.order_by.contains(&at) {
                column.nullable = true;
                column.clickhouse_type.clone_from(&old.clickhouse_type);
            }
        }
    }

    /// Whether rows are replicated alike by both plans: they differ at most in what was seen.
    pub fn is_like(&self, other: &TablePlan) -> bool {
        let bare = |plan: &TablePlan| {
            let mut plan = TablePlan { seen: Seen::default(), excluded: Vec::new(), ..plan.clone() };
            plan.columns.iter_mut().for_each(|column| column.past = Past::default());
            plan
        };
        bare(self) == bare(other)
    }
}

/// What was seen of a source table when its plan was made or last followed it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seen {
    /// The relations that hold rows, and the file of each (`pg_relation_filenode`): another file says
    /// that the rows were written anew, perhaps with other values, which the log does not tell.
    pub files: Vec<(u32, u32)>,
    /// The columns that are left out: `pg_attribute.attnum` and name.
    pub omitted: Vec<(i16, String)>,
    /// Columns that were dropped: the log may still tell of them when it is read again.
    pub dropped: Vec<DroppedColumn>,
    /// What is to be done in ClickHouse, in order, before rows go there by this plan.
    pub pending: Vec<Alter>,
}

/// A column that the source does not have any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedColumn {
    /// `pg_attribute.attnum`.
    pub attnum: i16,
    /// Its last name on the source.
    pub name: String,
    /// Its type.
    pub type_oid: u32,
    /// Its name in ClickHouse, if the column was kept there.
    pub kept: Option<String>,
}

/// What became of a column since its table was planned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Past {
    /// It was added: rows that the log tells without it are filled.
    pub added: Option<Filling>,
    /// Names that it had on the source before.
    pub names: Vec<String>,
    /// `xmin` of its row of `pg_attribute`: another one says that the column was altered.
    pub row: u32,
    /// Whether rows that are older than the column have no value of it, but a default beside them
    /// (`pg_attribute.atthasmissing`).
    pub defaulted: bool,
}

/// What a row that is older than a column holds in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filling {
    /// NULL, or the default of the ClickHouse type where there is none.
    Nothing,
    /// This value, in its text form.
    Value(String),
}

impl TablePlan {
    /// Our own columns that the table has in ClickHouse, with their types, in their order.
    pub fn own_columns(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = &self.own;
        let is_deleted = (!self.append_only).then_some((own.is_deleted.as_str(), "UInt8"));
        [(own.version.as_str(), "UInt128")]
            .into_iter()
            .chain(is_deleted)
            .chain([(own.synced_at.as_str(), "DateTime64(6)")])
    }
}

/// One replicated column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnPlan {
    /// Name on the source.
    pub name: String,
    /// `pg_attribute.attnum`.
    pub attnum: i16,
    /// `pg_attribute.atttypid`.
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`, -1 for none.
    pub typmod: i32,
    /// Whether the source allows NULL.
    pub nullable: bool,
    /// Whether the source computes the value and stores it. The log holds it only if the publication
    /// says so; else it is read from the source.
    #[serde(default)]
    pub generated: bool,
    /// Name in ClickHouse.
    pub destination: String,
    /// Type in ClickHouse, as DDL writes it, `Nullable(...)` included.
    pub clickhouse_type: String,
    /// How a value's wire bytes become the column's.
    pub conversion: Conversion,
    /// What became of the column since.
    #[serde(default)]
    pub past: Past,
}

/// What the stream tells of the old row (PostgreSQL documentation, ALTER TABLE, REPLICA IDENTITY).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// The primary key, when it changed.
    Default,
    /// The columns of an index, when they changed.
    Index,
    /// Every column, always.
    Full,
    /// Every column, always, of a table without a key: a row is its own key.
    WholeRow,
}

/// Names of our own columns in a destination table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnColumns {
    /// The version of a row, `UInt128`.
    pub version: String,
    /// Whether a row is a tombstone, `UInt8`.
    pub is_deleted: String,
    /// When a row was written, `DateTime64(6)`.
    pub synced_at: String,
}

#[cfg(test)]
pub(crate) mod fixtures {
    //! Plans for tests.

    use std::sync::Arc;

    use millrace_terms::TableName;

    use super::{ColumnPlan, Identity, OwnColumns, Past, Seen, TablePlan};
    use crate::types::Conversion;

    /// A column whose ClickHouse type is what is sent.
    pub(crate) fn column(name: &str, nullable: bool, conversion: Conversion) -> ColumnPlan {
        let wire_type = conversion.wire_type();
        ColumnPlan {
            name: name.to_owned(),
            attnum: 1,
            type_oid: 0,
            typmod: -1,
            nullable,
            generated: false,
            destination: name.to_owned(),
            clickhouse_type: if nullable { format!("Nullable({wire_type})") } else { wire_type },
            conversion,
            past: Past::default(),
        }
    }

    /// A table of these columns, whose key is its first column.
    pub(crate) fn plan_of(columns: Vec<ColumnPlan>) -> Arc<TablePlan> {
        Arc::new(TablePlan {
            source: TableName::new("public", "t"),
            oid: 1,
            destination: "t".to_owned(),
            columns,
            excluded: Vec::new(),
            key: vec![0],
            identity: Identity::Default,
            order_by: vec![0],
            partition_by: String::new(),
            append_only: false,
            own: OwnColumns {
                version: "_version".to_owned(),
                is_deleted: "_is_deleted".to_owned(),
                synced_at: "_synced_at".to_owned(),
            },
            seen: Seen::default(),
        })
    }

    /// A table by the names, ClickHouse types and nullability of its columns; all are text.
    pub(crate) fn plan(destination: &str, columns: &[(&str, &str, bool)], key: &[usize]) -> Arc<TablePlan> {
        let columns = columns
            .iter()
            .map(|(name, kind, nullable)| ColumnPlan {
                clickhouse_type: (*kind).to_owned(),
                ..column(name, *nullable, Conversion::Text)
            })
            .collect();
        let plan = Arc::unwrap_or_clone(plan_of(columns));
        Arc::new(TablePlan {
            destination: destination.to_owned(),
            key: key.to_vec(),
            order_by: key.to_vec(),
            ..plan
        })
    }
}
