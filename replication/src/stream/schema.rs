//! What becomes of a table whose columns change while it streams. Pure.
//!
//! PostgreSQL describes a relation before its next change, whenever its catalog entry was touched. The
//! description lacks attribute numbers, nullability and defaults, so these are looked up; what is looked
//! up is the present, which may be later than the message. Therefore the *message* leads: a column is
//! added, renamed or dropped here when the log says so, and the present says what it is. A later change
//! has its own message. Where the two cannot be brought together the table is copied again.
//!
//! [`decide`] returns what happened as [`SchemaChange`]s, the plan by which the table goes on, and what
//! has to be done in ClickHouse; the stream's engine carries it out as a barrier of that table alone.

mod change;
mod following;
mod matching;
mod widening;

use std::collections::BTreeSet;
use std::sync::Arc;

use millrace_terms::{Code, Error};

pub use self::change::{Documented, SchemaChange, reference};
use self::following::Following;
use self::matching::{Match, filling, matches};
pub(super) use self::widening::{Widening, widening};
use super::relations::Layout;
use crate::clickhouse::Alter;
use crate::pgoutput::Relation;
use crate::postgres::plan::Options;
use crate::postgres::present::Present;
use crate::table::{Filling, Identity, TablePlan};
use crate::types::TimeRange;

/// What happens to the rows of a table that the source has written anew, perhaps with other values:
/// the log does not tell them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnRewrite {
    /// The table is copied again by itself.
    #[default]
    Resync,
    /// The table goes to ERROR, which says that it needs a resync.
    Error,
    /// The rows stay as they are.
    Keep,
}

/// What happens to a column that the source drops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnColumnDropped {
    /// It stays; later rows have its type's default in it.
    #[default]
    Keep,
    /// It is dropped.
    Drop,
}

/// How a table follows its source.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What the mirror asks for of the table.
    pub options: Options,
    /// What happens to rows that the source has written anew.
    pub on_rewrite: OnRewrite,
    /// What happens to a column that the source drops.
    pub on_column_dropped: OnColumnDropped,
}

/// The table at hand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub table: usize,
    pub plan: &'a TablePlan,
    pub rules: &'a Rules,
    pub range: TimeRange,
}

/// What is to be done about a relation.
#[derive(Debug)]
pub(super) enum Decision {
    /// Its changes are applied by the plan as it is.
    Fits(Layout),
    /// The table follows.
    Follow(Box<Follow>),
    /// The table cannot go on.
    Misfits(Misfit),
}

/// How a table follows a change.
#[derive(Debug)]
pub(super) struct Follow {
    pub changes: Vec<SchemaChange>,
    /// The plan by which it goes on.
    pub plan: Arc<TablePlan>,
    pub layout: Layout,
    /// To be done in ClickHouse, in order; may be nothing.
    pub alters: Vec<Alter>,
    /// Rows from before may be others on the source now.
    pub stale: Option<Error>,
}

/// Why a table cannot go on as it is.
#[derive(Debug, Clone)]
pub(super) struct Misfit {
    pub error: Error,
    /// Whether it is copied again by itself, if the mirror's rules allow.
    pub resync: bool,
}

impl Misfit {
    pub(super) fn new(plan: &TablePlan, what: impl std::fmt::Display) -> Self {
        let error = Error::new(Code::TableSchemaChanged, format!("{} {what}", plan.source))
            .with("table", plan.source.to_string());
        Self { error, resync: false }
    }

    /// One that a copy into a rebuilt table mends.
    pub(super) fn to_rebuild(plan: &TablePlan, what: impl std::fmt::Display) -> Self {
        Self { resync: true, ..Self::new(plan, what) }
    }
}

/// Compares a relation with the plan of its table. `present` is the table on the source, if it exists.
pub(super) fn decide(subject: Subject<'_>, relation: &Relation, present: Option<&Present>) -> Decision {
    match decided(subject, relation, present) {
        Ok(decision) => decision,
        Err(misfit) => Decision::Misfits(misfit),
    }
}

fn decided(subject: Subject<'_>, relation: &Relation, present: Option<&Present>) -> Result<Decision, Misfit> {
    let plan = subject.plan;
    let Some(present) = present else {
        // It was dropped. What the log still tells of it was told in the shape that is known.
        return match known_layout(subject.table, plan, relation) {
            Some(layout) => Ok(Decision::Fits(layout)),
            None => Err(Misfit::new(plan, "was dropped")),
        };
    };
    let Some(matches) = matches(plan, relation, present) else {
        return Err(Misfit::to_rebuild(plan, "had columns changed in ways that the log does not tell apart"));
    };
    same_identity(plan, relation, &matches)?;
    generated_column(plan, present)?;
    let following = Following::of(subject, relation, present, &matches)?;
    if plan.identity == Identity::WholeRow && following.changes_columns() {
        return Err(Misfit::to_rebuild(plan, "has no key but its columns, and these were changed"));
    }
    if plan.append_only && following.changes_columns() {
        // Where its batches were cut is stored, and a repeat by another plan would be cut elsewhere.
        return Err(Misfit::to_rebuild(plan, "is append_only, and its columns were changed"));
    }
    following.decide(relation, present)
}

/// By the names of the plan alone.
fn known_layout(table: usize, plan: &TablePlan, relation: &Relation) -> Option<Layout> {
    let place = |name: &String| plan.columns.iter().position(|column| column.name == *name);
    let columns: Vec<_> = relation.columns.iter().map(|column| place(&column.name)).collect();
    Layout::new(table, plan, relation, columns).ok()
}

/// The server flags the columns of the replica identity: they must be the key, or old rows would be
/// told by other columns than those that rows are found by. FULL flags every column, and tells all;
/// whether the key is still one, the source must be asked (`Engine::doubt`).
fn same_identity(plan: &TablePlan, relation: &Relation, matches: &[Match]) -> Result<(), Misfit> {
    if relation.identity == b'f' || plan.append_only {
        return Ok(());
    }
    let flagged: Vec<Match> = relation
        .columns
        .iter()
        .zip(matches)
        .filter(|(column, _)| column.identity)
        .map(|(_, found)| *found)
        .collect();
    if flagged.is_empty() {
        return Err(Misfit::new(plan, "has no primary key or replica identity any more"));
    }
    let planned = |found: &Match| match found {
        Match::Planned(at) => Some(*at),
        _ => None,
    };
    let flagged: Option<BTreeSet<usize>> = flagged.iter().map(planned).collect();
    let set = |columns: &[usize]| Some(columns.iter().copied().collect::<BTreeSet<usize>>());
    if flagged != set(&plan.key) || flagged != set(&plan.order_by) {
        return Err(Misfit::new(plan, "has another primary key or replica identity"));
    }
    Ok(())
}

/// A new column that the source computes: the values of all rows came to be at once, without a change.
fn generated_column(plan: &TablePlan, present: &Present) -> Result<(), Misfit> {
    let is_new = |attnum: i16| {
        !plan.columns.iter().any(|column| column.attnum == attnum)
            && !plan.seen.omitted.iter().any(|(omitted, _)| *omitted == attnum)
    };
    let new =
        present.columns.iter().map(|column| &column.plan).find(|column| {
            column.generated && is_new(column.attnum) && !plan.excluded.contains(&column.name)
        });
    match new {
        Some(column) => {
            Err(Misfit::to_rebuild(plan, format_args!("has a new generated column {}", column.name)))
        }
        None => Ok(()),
    }
}

/// What a row that is older than a column of the plan has in it, if that is known.
pub(super) fn filled(column: &crate::table::ColumnPlan) -> Option<super::toast::Value> {
    match filling(column)? {
        Filling::Value(text) => Some(super::toast::Value::Text(text.clone().into())),
        Filling::Nothing if column.nullable => Some(super::toast::Value::Null),
        // It became NOT NULL later: the source is asked.
        Filling::Nothing => None,
    }
}

#[cfg(test)]
pub(super) mod tests;
