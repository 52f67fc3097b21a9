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
    /// Whether rows of the tables that inherit from it are its rows, too.
    #[serde(default)]
    pub merges_heirs: bool,
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

    /// Whether rows written by this plan are what rows written by a later one of the table are, for every
    /// column that both have.
    pub fn goes_into(&self, later: &TablePlan) -> bool {
        self.columns.iter().all(|column| {
            let now = later.columns.iter().find(|now| now.attnum == column.attnum);
            now.is_none_or(|now| {
                now.destination == column.destination && now.clickhouse_type == column.clickhouse_type
            })
        })
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
        let source = own.source.as_ref().map(|source| (source.name.as_str(), "LowCardinality(String)"));
        let is_deleted = (!self.append_only).then_some((own.is_deleted.as_str(), "UInt8"));
        let audit = own.audit.iter().flat_map(|_| audit::COLUMNS);
        source
            .into_iter()
            .chain([(own.version.as_str(), "UInt128")])
            .chain(is_deleted)
            .chain([(own.synced_at.as_str(), "DateTime64(6)")])
            .chain(audit)
    }

    /// Names in ClickHouse of the columns of ORDER BY, in its order.
    pub fn sorting_key(&self) -> impl Iterator<Item = &str> {
        let source = self.own.source.iter().map(|source| source.name.as_str());
        let key = self.order_by.iter().filter_map(|&at| self.columns.get(at));
        source.chain(key.map(|column| column.destination.as_str()))
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
    /// What tells the rows of several source tables apart that are in one destination table. It is first
    /// in ORDER BY: keys of two tables are two keys.
    #[serde(default)]
    pub source: Option<Origin>,
    /// What the audit columns tell of the source; none if the table does not have them.
    #[serde(default)]
    pub audit: Option<Audit>,
}

impl OwnColumns {
    /// The names that no column of the source may have.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let source = self.source.iter().map(|source| source.name.as_str());
        let audit = self.audit.iter().flat_map(|_| audit::COLUMNS).map(|(name, _)| name);
        [&self.version, &self.is_deleted, &self.synced_at]
            .into_iter()
            .map(String::as_str)
            .chain(source)
            .chain(audit)
    }
}

/// The column that says which source table a row is of, `LowCardinality(String)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Its name.
    pub name: String,
    /// What it holds in every row of this table: mirror and table, as they were called at first.
    pub value: String,
}

/// What the audit columns tell of the source beside the table's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// The source's database.
    pub database: String,
}

/// The audit columns, whose names are the same in every table.
pub mod audit {
    /// What made the row: see [`crate::block::Operation`].
    pub const OPERATION: &str = "cdc_operation";
    /// When the change was committed, or the row of a copy was read.
    pub const TIMESTAMP: &str = "cdc_timestamp";
    /// The source's database.
    pub const SOURCE_DB: &str = "cdc_source_db";
    /// The source's table, with its schema.
    pub const SOURCE_TABLE: &str = "cdc_source_table";

    /// Names and types, in their order.
    pub(super) const COLUMNS: [(&str, &str); 4] = [
        (OPERATION, "LowCardinality(String)"),
        (TIMESTAMP, "DateTime64(6)"),
        (SOURCE_DB, "LowCardinality(String)"),
        (SOURCE_TABLE, "LowCardinality(String)"),
    ];
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
            merges_heirs: false,
            own: OwnColumns {
                version: "_version".to_owned(),
                is_deleted: "_is_deleted".to_owned(),
                synced_at: "_synced_at".to_owned(),
                source: None,
                audit: None,
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
