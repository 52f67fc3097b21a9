//! Where the values of a relation's tuples go. Pure; see `schema` for what becomes of a table whose
//! columns changed.

use millrace_terms::Lsn;

use super::schema::{Widening, filled, widening};
use super::toast::Value;
use crate::pgoutput::Relation;
use crate::table::TablePlan;

/// Where the values of a relation's tuples go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// Index of the table.
    pub table: usize,
    /// For each column of the relation its place in the plan, if it is replicated.
    pub columns: Vec<Option<usize>>,
    /// Columns of the relation whose type is narrower than the plan's.
    pub widened: Vec<(usize, Widening)>,
    /// Number of the plan's columns.
    pub plan_columns: usize,
    /// Columns of the plan that came after the relation was described, and what its rows have in them.
    pub filled: Vec<(usize, Value)>,
    /// Columns of the plan that the relation does not tell: generated ones that are not published.
    pub untold: Vec<usize>,
    /// The plan's key.
    pub key: Vec<usize>,
    /// From this commit on the relation is not a part of the table.
    pub until: Option<Lsn>,
}

impl Layout {
    /// By the places of the relation's columns in the plan.
    ///
    /// # Errors
    /// Why values of the relation cannot be those of the plan's columns.
    pub(super) fn new(
        table: usize,
        plan: &TablePlan,
        relation: &Relation,
        columns: Vec<Option<usize>>,
    ) -> Result<Self, String> {
        let mut widened = Vec::new();
        for (nth, (told, place)) in relation.columns.iter().zip(&columns).enumerate() {
            let Some(planned) = place.and_then(|at| plan.columns.get(at)) else { continue };
            match widening(told.type_oid, planned.type_oid) {
                Some(Widening::Same) => {}
                Some(wider) => widened.push((nth, wider)),
                None => return Err(format!("has another type for column {}", planned.name)),
            }
        }
        let mut layout = Self {
            table,
            columns,
            widened,
            plan_columns: plan.columns.len(),
            filled: Vec::new(),
            untold: Vec::new(),
            key: plan.key.clone(),
            until: None,
        };
        layout.complete(plan)?;
        Ok(layout)
    }

    /// The layout by another plan of the table: columns are found again by their numbers.
    pub(super) fn moved(&self, from: &TablePlan, to: &TablePlan) -> Option<Self> {
        let place = |at: usize| {
            let attnum = from.columns.get(at)?.attnum;
            to.columns.iter().position(|column| column.attnum == attnum)
        };
        let columns = self.columns.iter().map(|at| at.and_then(place)).collect();
        let mut moved = Self {
            columns,
            plan_columns: to.columns.len(),
            filled: Vec::new(),
            untold: Vec::new(),
            key: to.key.clone(),
            ..self.clone()
        };
        moved.complete(to).ok()?;
        Some(moved)
    }

    /// Sees to the columns of the plan that the relation does not have.
    fn complete(&mut self, plan: &TablePlan) -> Result<(), String> {
        for (at, column) in plan.columns.iter().enumerate() {
            if self.columns.contains(&Some(at)) {
                continue;
            }
            match filled(column) {
                Some(value) => self.filled.push((at, value)),
                None if column.generated || column.past.added.is_some() => self.untold.push(at),
                None => return Err(format!("has no column {} any more", column.name)),
            }
        }
        Ok(())
    }

    /// Whether the relation was no part of the table any more as of a commit.
    pub(super) fn is_over(&self, commit: Lsn) -> bool {
        self.until.is_some_and(|until| commit >= until)
    }

    /// How values of a column of the relation become those of the plan, if they are not.
    #[inline]
    pub(super) fn widening(&self, nth: usize) -> Option<Widening> {
        if self.widened.is_empty() {
            return None;
        }
        self.widened.iter().find(|(widened, _)| *widened == nth).map(|(_, widening)| *widening)
    }
}
