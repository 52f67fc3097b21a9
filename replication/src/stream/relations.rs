//! From the relations that the server tells of to the tables of the stream. Pure.

use std::collections::BTreeSet;

use millrace_terms::{Code, Error, Lsn, Result};

use crate::pgoutput::Relation;
use crate::table::TablePlan;
use crate::types::Conversion;

/// Where the values of a relation's tuples go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// Index of the table.
    pub table: usize,
    /// For each column of the relation its place in the plan, if it is replicated.
    pub columns: Vec<Option<usize>>,
    /// Number of the plan's columns.
    pub plan_columns: usize,
    /// Columns of the plan that the relation does not tell: generated ones that are not published.
    pub untold: Vec<usize>,
    /// The plan's key.
    pub key: Vec<usize>,
    /// From this commit on the relation is not a part of the table.
    pub until: Option<Lsn>,
}

impl Layout {
    /// Compares a relation with the plan of its table.
    ///
    /// # Errors
    /// `TABLE_SCHEMA_CHANGED` naming the first difference that the destination cannot follow.
    pub(super) fn new(table: usize, plan: &TablePlan, relation: &Relation) -> Result<Self> {
        let changed = |what: String| {
            Err(Error::new(Code::TableSchemaChanged, format!("{} {what}", plan.source))
                .with("table", plan.source.to_string()))
        };
        let mut untold = Vec::new();
        for (at, column) in plan.columns.iter().enumerate() {
            let Some(now) = relation.columns.iter().find(|now| now.name == column.name) else {
                if column.generated {
                    untold.push(at);
                    continue;
                }
                return changed(format!("has no column {} any more", column.name));
            };
            if now.type_oid != column.type_oid {
                return changed(format!("has another type for column {}", column.name));
            }
            if now.typmod != column.typmod && is_bounded(&column.conversion) {
                return changed(format!("has another precision for column {}", column.name));
            }
        }
        let known = |name: &str| {
            plan.excluded.iter().any(|excluded| excluded == name)
                || plan.columns.iter().any(|c| c.name == name)
        };
        if let Some(new) = relation.columns.iter().find(|column| !known(&column.name)) {
            return changed(format!("has a new column {}", new.name));
        }
        if let Some(difference) = identity_difference(plan, relation) {
            return changed(difference);
        }
        let place = |name: &str| plan.columns.iter().position(|column| column.name == name);
        Ok(Self {
            table,
            columns: relation.columns.iter().map(|column| place(&column.name)).collect(),
            plan_columns: plan.columns.len(),
            untold,
            key: plan.key.clone(),
            until: None,
        })
    }
}

impl Layout {
    /// Whether the relation was no part of the table any more as of a commit.
    pub(super) fn is_over(&self, commit: Lsn) -> bool {
        self.until.is_some_and(|until| commit >= until)
    }
}

/// Whether the modifier of the type decides what the destination can hold.
fn is_bounded(conversion: &Conversion) -> bool {
    matches!(conversion.innermost(), Conversion::Decimal { .. })
}

/// The server flags the columns of the replica identity: they must be the key, or old rows would be
/// told by other columns than those that rows are found by. FULL flags every column, and tells all;
/// whether the key is still one, the source must be asked (`Engine::doubt`).
fn identity_difference(plan: &TablePlan, relation: &Relation) -> Option<String> {
    if relation.identity == b'f' || plan.append_only {
        return None;
    }
    let flagged: BTreeSet<&str> =
        relation.columns.iter().filter(|column| column.identity).map(|column| column.name.as_str()).collect();
    let name = |at: &usize| plan.columns.get(*at).map(|column| column.name.as_str());
    let key: BTreeSet<&str> = plan.key.iter().filter_map(name).collect();
    let order_by: BTreeSet<&str> = plan.order_by.iter().filter_map(name).collect();
    if flagged.is_empty() {
        return Some("has no primary key or replica identity any more".into());
    }
    if flagged != key || order_by != key {
        return Some("has another primary key or replica identity".into());
    }
    None
}

#[cfg(test)]
mod tests {
    use millrace_terms::TableName;

    use super::*;
    use crate::pgoutput::Column;
    use crate::table::{Identity, OwnColumns};
    use crate::types::{SourceColumn, TypeCatalog};

    fn plan() -> TablePlan {
        let column = |attnum: i16, name: &str, type_oid, typmod| {
            let source = SourceColumn {
                name: name.into(),
                attnum,
                type_oid,
                typmod,
                dimensions: 0,
                nullable: attnum > 1,
            };
            TypeCatalog::default().plan_column(source)
        };
        TablePlan {
            source: TableName::new("public", "t"),
            oid: 16,
            destination: "t".into(),
            columns: vec![
                column(1, "id", 20, -1),
                column(2, "price", 1700, 655_366),
                column(3, "note", 1043, 14),
            ],
            excluded: vec!["excluded".into()],
            key: vec![0],
            identity: Identity::Default,
            order_by: vec![0],
            partition_by: String::new(),
            append_only: false,
            own: OwnColumns {
                version: "_version".into(),
                is_deleted: "_is_deleted".into(),
                synced_at: "_synced_at".into(),
            },
        }
    }

    fn relation(columns: &[(&str, u32, i32, bool)], identity: u8) -> Relation {
        let column = |(name, type_oid, typmod, identity): &(&str, u32, i32, bool)| Column {
            identity: *identity,
            name: (*name).into(),
            type_oid: *type_oid,
            typmod: *typmod,
        };
        let columns = columns.iter().map(column).collect();
        Relation { oid: 16, schema: "public".into(), name: "t".into(), identity, columns }
    }

    const ID: (&str, u32, i32, bool) = ("id", 20, -1, true);
    const PRICE: (&str, u32, i32, bool) = ("price", 1700, 655_366, false);
    const NOTE: (&str, u32, i32, bool) = ("note", 1043, 14, false);

    #[test]
    fn columns_are_found_by_name_in_any_order() {
        let extra = ("excluded", 25, -1, false);
        let layout = Layout::new(7, &plan(), &relation(&[NOTE, extra, ID, PRICE], b'd')).unwrap();
        assert_eq!(layout.columns, [Some(2), None, Some(0), Some(1)]);
        assert_eq!(layout.table, 7);
    }

    #[test]
    fn what_the_destination_cannot_follow_is_named() {
        let refused = |columns: &[(&str, u32, i32, bool)], identity| {
            let error = Layout::new(0, &plan(), &relation(columns, identity)).unwrap_err();
            assert_eq!(error.code(), Code::TableSchemaChanged);
            error.message().to_owned()
        };
        assert!(refused(&[ID, PRICE, NOTE, ("added", 25, -1, false)], b'd').contains("a new column added"));
        assert!(refused(&[ID, PRICE], b'd').contains("no column note"));
        assert!(
            refused(&[ID, PRICE, ("note", 17, -1, false)], b'd').contains("another type for column note")
        );
        assert!(refused(&[ID, ("price", 1700, 7, false), NOTE], b'd').contains("another precision"));
        assert!(refused(&[("id", 20, -1, false), PRICE, NOTE], b'd').contains("no primary key"));
        let note = ("note", 1043, 14, true);
        assert!(refused(&[ID, PRICE, note], b'i').contains("another primary key"));
        // A wider varchar is the same String.
        assert!(Layout::new(0, &plan(), &relation(&[ID, PRICE, ("note", 1043, 104, false)], b'd')).is_ok());
        assert!(Layout::new(0, &plan(), &relation(&[ID, PRICE, note], b'f')).is_ok(), "FULL flags all");
    }
}
