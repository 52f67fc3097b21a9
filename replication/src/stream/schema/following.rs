//! From a message and the present to the plan by which a table goes on. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use millrace_terms::{Code, Error};

use super::matching::{Match, filling};
use super::widening::is_wider;
use super::{Decision, Follow, Misfit, OnColumnDropped, OnRewrite, SchemaChange, Subject};
use crate::clickhouse::Alter;
use crate::pgoutput::{Column, Relation};
use crate::postgres::plan::{ColumnOptions, plan_changed};
use crate::postgres::present::{Present, PresentColumn};
use crate::stream::relations::Layout;
use crate::table::{ColumnPlan, DroppedColumn, Filling, TablePlan};
use crate::types::literal;

/// A change that is being followed.
pub(super) struct Following<'a> {
    subject: Subject<'a>,
    plan: TablePlan,
    /// For each column of the plan as it was its place in the new one; none if it is dropped.
    places: Vec<Option<usize>>,
    /// For each column of the relation its place in the new plan.
    columns: Vec<Option<usize>>,
    changes: Vec<SchemaChange>,
    alters: Vec<Alter>,
    /// Columns whose values of before may be others now, if the rows were written anew.
    doubtful: Vec<String>,
}

impl<'a> Following<'a> {
    pub(super) fn of(
        subject: Subject<'a>,
        relation: &Relation,
        present: &Present,
        matches: &[Match],
    ) -> Result<Self, Misfit> {
        let mut this = Self {
            subject,
            plan: TablePlan { columns: Vec::new(), ..subject.plan.clone() },
            places: Vec::new(),
            columns: Vec::new(),
            changes: Vec::new(),
            alters: Vec::new(),
            doubtful: Vec::new(),
        };
        this.table(present);
        for (at, column) in subject.plan.columns.iter().enumerate() {
            let told = matches.iter().position(|found| *found == Match::Planned(at));
            let told = told.and_then(|told| relation.columns.get(told));
            let now = present.columns.iter().find(|now| now.plan.attnum == column.attnum);
            this.column(at, column, told, now)?;
        }
        let places = &this.places;
        let place = |at: &usize| places.get(*at).copied().flatten();
        this.plan.key = subject.plan.key.iter().filter_map(place).collect();
        this.plan.order_by = subject.plan.order_by.iter().filter_map(place).collect();
        for (found, told) in matches.iter().zip(&relation.columns) {
            let place = match *found {
                Match::Planned(at) => this.places[at],
                Match::New(at) => Some(this.added(&present.columns[at], told)?),
                Match::Ignored => None,
            };
            this.columns.push(place);
        }
        this.distinct()?;
        Ok(this)
    }

    /// Whether the columns are not what they were.
    pub(super) fn changes_columns(&self) -> bool {
        self.changes.iter().any(|change| !matches!(change, SchemaChange::TableRenamed { .. }))
    }

    /// The table's own name, and columns that are left out.
    fn table(&mut self, present: &Present) {
        let plan = self.subject.plan;
        if present.name != plan.source {
            self.changes
                .push(SchemaChange::TableRenamed { from: plan.source.clone(), to: present.name.clone() });
            self.plan.source = present.name.clone();
        }
        for column in present.columns.iter().filter(|column| column.is_virtual) {
            let ColumnPlan { attnum, name, .. } = &column.plan;
            if !plan.seen.omitted.iter().any(|(omitted, _)| omitted == attnum) {
                self.plan.seen.omitted.push((*attnum, name.clone()));
                self.changes.push(SchemaChange::ColumnLeftOut { column: name.clone() });
            }
        }
    }

    /// A column of the plan: what the relation tells of it, and what it is now.
    fn column(
        &mut self,
        at: usize,
        column: &ColumnPlan,
        told: Option<&Column>,
        now: Option<&PresentColumn>,
    ) -> Result<(), Misfit> {
        let plan = self.subject.plan;
        let sorts = plan.order_by.contains(&at);
        let column = match (told, now) {
            (Some(told), Some(now)) => self.changed(column, told, now, sorts)?,
            // Dropped meanwhile: the message of that is on its way.
            (Some(_), None) => column.clone(),
            (None, None) if sorts => {
                let what = format_args!("lost column {}, which sorts its rows", column.name);
                return Err(Misfit::to_rebuild(plan, what));
            }
            (None, None) => {
                self.dropped(column);
                return Ok(());
            }
            (None, Some(_)) if column.generated || filling(column).is_some() => column.clone(),
            (None, Some(_)) => {
                let what = format_args!("has a column {} that its publication does not tell", column.name);
                return Err(Misfit::new(plan, what));
            }
        };
        self.places.push(Some(self.plan.columns.len()));
        self.plan.columns.push(column);
        Ok(())
    }

    /// Whether rows of other tables may be in the destination table: what changes it for them is not done.
    fn is_shared(&self) -> bool {
        self.plan.own.source.is_some()
    }

    fn dropped(&mut self, column: &ColumnPlan) {
        // Other tables may have the column still.
        let kept = self.is_shared() || self.subject.rules.on_column_dropped == OnColumnDropped::Keep;
        let name = column.destination.clone();
        self.alters.push(match kept {
            true => Alter::Keep { name: name.clone(), kind: column.clickhouse_type.clone() },
            false => Alter::Drop { name: name.clone(), pending: None },
        });
        self.places.push(None);
        self.plan.seen.dropped.push(DroppedColumn {
            attnum: column.attnum,
            name: column.name.clone(),
            type_oid: column.type_oid,
            kept: kept.then(|| name.clone()),
        });
        self.changes.push(SchemaChange::ColumnDropped { column: name, kept });
    }

    /// A column that is still there: its name, type and nullability.
    fn changed(
        &mut self,
        before: &ColumnPlan,
        told: &Column,
        now: &PresentColumn,
        sorts: bool,
    ) -> Result<ColumnPlan, Misfit> {
        let mut column = before.clone();
        if told.name != before.name && !before.past.names.contains(&told.name) {
            self.renamed(&mut column, &now.plan.name, sorts)?;
        }
        let is_told = (told.type_oid, told.typmod) != (before.type_oid, before.typmod);
        let is_new = (now.plan.type_oid, now.plan.typmod) != (before.type_oid, before.typmod);
        if is_told && is_new {
            self.retyped(&mut column, &now.plan, sorts)?;
        }
        if now.plan.nullable && !column.nullable {
            column.nullable = true;
            self.nullable(&mut column, sorts)?;
        }
        if now.plan.past.row != before.past.row {
            // Altered somehow, also by what is not told here: ALTER TYPE ... USING of the same type. A
            // rewrite alone only moves the default into the rows.
            if !before.past.defaulted || now.plan.past.defaulted {
                self.doubtful.push(column.name.clone());
            }
            (column.past.row, column.past.defaulted) = (now.plan.past.row, now.plan.past.defaulted);
        }
        Ok(column)
    }

    fn renamed(&mut self, column: &mut ColumnPlan, to: &str, sorts: bool) -> Result<(), Misfit> {
        if sorts {
            let what = format_args!("had column {}, which sorts its rows, renamed to {to}", column.name);
            return Err(Misfit::to_rebuild(self.subject.plan, what));
        }
        let from = std::mem::replace(&mut column.name, to.to_owned());
        column.past.names.retain(|name| name != to);
        // The column of a shared table keeps its name: other tables have it under that one.
        if column.destination == from && !self.is_shared() {
            column.destination = to.to_owned();
            self.alters.push(Alter::Rename { from: from.clone(), to: to.to_owned() });
        }
        column.past.names.push(from.clone());
        self.changes.push(SchemaChange::ColumnRenamed { from, to: to.to_owned() });
        Ok(())
    }

    fn retyped(&mut self, column: &mut ColumnPlan, now: &ColumnPlan, sorts: bool) -> Result<(), Misfit> {
        let plan = self.subject.plan;
        let what = |why: &str| format!("had the type of column {} changed{why}", column.name);
        let planned = match sorts {
            true => now.clone(),
            false => {
                let planned = plan_changed(
                    now.clone(),
                    &self.asked(column),
                    self.subject.rules.options.on_unrepresentable,
                );
                planned.ok_or_else(|| {
                    Misfit::to_rebuild(plan, what(" to one that the chosen type cannot hold"))
                })?
            }
        };
        let bare = |kind: &str| kind.replace("Nullable(", "").replace(')', "");
        if bare(&planned.clickhouse_type) != bare(&column.clickhouse_type) {
            if sorts {
                return Err(Misfit::to_rebuild(plan, what(", which sorts its rows")));
            }
            if !is_wider(&column.conversion, &planned.conversion) {
                return Err(Misfit::to_rebuild(
                    plan,
                    what(&format!(" from {} to {}", column.clickhouse_type, planned.clickhouse_type)),
                ));
            }
            if self.is_shared() {
                return Err(Misfit::new(plan, what(", in a destination that several tables share")));
            }
            let kind =
                planned.conversion.spelled(&planned.conversion.innermost().wire_type(), column.nullable);
            let from = std::mem::replace(&mut column.clickhouse_type, kind.clone());
            let name = column.destination.clone();
            self.alters.push(Alter::Modify { name: name.clone(), kind: kind.clone() });
            self.changes.push(SchemaChange::ColumnRetyped { column: name, from, to: kind });
        }
        column.conversion = planned.conversion;
        (column.type_oid, column.typmod) = (now.type_oid, now.typmod);
        Ok(())
    }

    fn nullable(&mut self, column: &mut ColumnPlan, sorts: bool) -> Result<(), Misfit> {
        // ClickHouse's arrays cannot be Nullable; the default of a type that is one already stays.
        if column.conversion.is_array() || column.clickhouse_type.contains("Nullable(") {
            return Ok(());
        }
        if sorts {
            let what = format_args!("had NOT NULL dropped from column {}, which sorts its rows", column.name);
            return Err(Misfit::to_rebuild(self.subject.plan, what));
        }
        if self.is_shared() {
            let what = format_args!(
                "had NOT NULL dropped from column {}, in a destination that several tables share",
                column.name
            );
            return Err(Misfit::new(self.subject.plan, what));
        }
        column.clickhouse_type = column.conversion.spelled(&column.clickhouse_type, true);
        let name = column.destination.clone();
        self.alters
            .retain(|alter| !matches!(alter, Alter::Modify { name: modified, .. } if *modified == name));
        self.alters.push(Alter::Modify { name: name.clone(), kind: column.clickhouse_type.clone() });
        self.changes.push(SchemaChange::ColumnNullable { column: name });
        Ok(())
    }

    /// A column that the plan does not have. Returns its place.
    fn added(&mut self, now: &PresentColumn, told: &Column) -> Result<usize, Misfit> {
        let plan = self.subject.plan;
        let what = |why: &str| format!("has a new column {} {why}", told.name);
        let policy = self.subject.rules.options.on_unrepresentable;
        let column = plan_changed(now.plan.clone(), &ColumnOptions::default(), policy);
        let mut column = column.ok_or_else(|| Misfit::new(plan, what("that cannot be replicated")))?;
        let default = match &now.missing {
            None => None,
            Some(text) => match literal(&column, text, self.subject.range) {
                Ok(Some(literal)) => Some(literal),
                Ok(None) => {
                    return Err(Misfit::to_rebuild(
                        plan,
                        what("with a default that ClickHouse cannot be told"),
                    ));
                }
                Err(error) => {
                    return Err(Misfit {
                        error: error.with("table", plan.source.to_string()),
                        resync: false,
                    });
                }
            },
        };
        column.past.added = Some(now.missing.clone().map_or(Filling::Nothing, Filling::Value));
        if now.missing.is_none() {
            self.doubtful.push(column.name.clone());
        }
        let after = self.plan.columns.last().map(|last| last.destination.clone());
        let (name, kind) = (column.destination.clone(), column.clickhouse_type.clone());
        self.alters.push(Alter::Add { name: name.clone(), kind: kind.clone(), default, after });
        self.changes.push(SchemaChange::ColumnAdded { column: name, kind });
        self.plan.columns.push(column);
        Ok(self.plan.columns.len() - 1)
    }

    /// What the mirror asks for of a column, by any name it had.
    fn asked(&self, column: &ColumnPlan) -> ColumnOptions {
        let asked = &self.subject.rules.options.columns;
        let names = std::iter::once(&column.name).chain(&column.past.names);
        names.filter_map(|name| asked.get(name)).next().cloned().unwrap_or_default()
    }

    /// Every name in ClickHouse is one column's. A column that was kept gives way to one that needs its
    /// name.
    fn distinct(&mut self) -> Result<(), Misfit> {
        let (plan, own) = (self.subject.plan, &self.plan.own);
        let mut taken: BTreeSet<&str> = own.names().collect();
        for column in &self.plan.columns {
            if !taken.insert(&column.destination) {
                let what = format_args!("would have two columns {} in ClickHouse", column.destination);
                return Err(Misfit::new(plan, what));
            }
        }
        let mut order = Vec::new();
        for alter in in_order(std::mem::take(&mut self.alters)) {
            let (needed, pending) = match &alter {
                Alter::Rename { from, to } => (Some(to.clone()), Some(from.clone())),
                Alter::Add { name, .. } => (Some(name.clone()), None),
                _ => (None, None),
            };
            if let Some(needed) = needed {
                let dropped = &mut self.plan.seen.dropped;
                let given_up =
                    |column: &mut DroppedColumn| column.kept.take_if(|kept| *kept == needed).is_some();
                let is_of = |alter: &Alter| matches!(alter, Alter::Drop { name, .. } | Alter::Keep { name, .. } if *name == needed);
                if dropped.iter_mut().any(given_up) || order.iter().any(is_of) {
                    order.retain(|alter| !is_of(alter));
                    order.insert(0, Alter::Drop { name: needed, pending });
                } else if plan.columns.iter().any(|column| column.destination == needed)
                    && !order
                        .iter()
                        .any(|alter| matches!(alter, Alter::Rename { from, .. } if *from == needed))
                {
                    let what = format_args!("had columns exchange the name {needed}");
                    return Err(Misfit::to_rebuild(plan, what));
                }
            }
            order.push(alter);
        }
        self.alters = order;
        Ok(())
    }

    pub(super) fn decide(mut self, relation: &Relation, present: &Present) -> Result<Decision, Misfit> {
        let Subject { table, plan, rules, .. } = self.subject;
        let stale = self.stale(present, rules.on_rewrite);
        let layout = Layout::new(table, &self.plan, relation, self.columns)
            .map_err(|what| Misfit::to_rebuild(plan, what))?;
        if self.plan == *plan {
            return Ok(Decision::Fits(layout));
        }
        let (changes, alters, plan) = (self.changes, self.alters, Arc::new(self.plan));
        Ok(Decision::Follow(Box::new(Follow { changes, plan, layout, alters, stale })))
    }

    /// Whether rows from before may be others on the source now. Where they are, or where nothing else
    /// has changed, what was seen is brought up to date; before the message of a change it is not, or
    /// that the rows were written anew would be forgotten.
    fn stale(&mut self, present: &Present, rule: OnRewrite) -> Option<Error> {
        let plan = self.subject.plan;
        let file = |oid: u32| plan.seen.files.iter().find(|(known, _)| *known == oid).map(|(_, file)| *file);
        let rewritten = present.files.iter().any(|(oid, now)| file(*oid).is_some_and(|file| file != *now));
        let is_whole = self.plan.columns.len() + self.plan.seen.omitted.len() >= present.columns.len()
            && self.plan.columns.iter().all(|column| {
                present.columns.iter().any(|now| {
                    now.plan.attnum == column.attnum
                        && now.plan.name == column.name
                        && (now.plan.type_oid, now.plan.typmod) == (column.type_oid, column.typmod)
                })
            });
        if !is_whole {
            // A later message tells the rest; until then the rows are looked at as they were.
            for column in &mut self.plan.columns {
                let before = plan.columns.iter().find(|before| before.attnum == column.attnum);
                column.past.row = before.map_or(0, |before| before.past.row);
            }
            return None;
        }
        for (oid, now) in &present.files {
            match self.plan.seen.files.iter_mut().find(|(known, _)| known == oid) {
                Some((_, file)) => *file = *now,
                None => self.plan.seen.files.push((*oid, *now)),
            }
        }
        if !rewritten || self.doubtful.is_empty() {
            return None;
        }
        if rule == OnRewrite::Keep {
            self.changes.push(SchemaChange::RowsKept);
            return None;
        }
        let columns = self.doubtful.join(", ");
        let why = format!(
            "{} was rewritten when its columns changed ({columns}): rows may hold other values, which the log does not tell",
            self.plan.source
        );
        let error = Error::new(Code::TableSchemaChanged, why).with_remedy("Resync the table.");
        Some(error.with("table", self.plan.source.to_string()))
    }
}

/// Renamings follow each other so that a name is free when it is taken; where none can be first, they
/// are as they were. All else stands before or behind them as it was.
fn in_order(alters: Vec<Alter>) -> Vec<Alter> {
    let (mut renames, mut order): (Vec<Alter>, Vec<Alter>) =
        alters.into_iter().partition(|alter| matches!(alter, Alter::Rename { .. }));
    let first_add = order.iter().position(|alter| matches!(alter, Alter::Add { .. })).unwrap_or(order.len());
    let later = order.split_off(first_add);
    while !renames.is_empty() {
        let is_free = |alter: &Alter| match alter {
            Alter::Rename { to, .. } => {
                !renames.iter().any(|other| matches!(other, Alter::Rename { from, .. } if from == to))
            }
            _ => true,
        };
        let next = renames.iter().position(is_free).unwrap_or(0);
        order.push(renames.remove(next));
    }
    order.extend(later);
    order
}
