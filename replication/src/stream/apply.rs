//! From changes to the rows of a batch. Pure.

use millrace_terms::{Code, Error, Result};

use super::lane::{Batch, PendingRow};
use super::relations::Layout;
use super::toast::{Memory, Row, Value};
use crate::block::{Block, Operation, Stamp, key_equals};
use crate::pgoutput::{Datum, Delete, Old, Tuple, Update};
use crate::table::TablePlan;
use crate::types::Field;

/// What a change is applied with: where it goes, and what is known of its transaction.
pub(super) struct Change<'a> {
    pub layout: &'a Layout,
    pub plan: &'a TablePlan,
    pub version: u128,
    pub xid: u32,
    /// When it was committed, in microseconds since 1970.
    pub at: i64,
    pub memory: &'a mut Memory,
}

impl Change<'_> {
    /// A row is there.
    ///
    /// # Errors
    /// Those of the block: they are the table's.
    pub(super) fn insert(&mut self, batch: &mut Batch, new: &Tuple) -> Result<()> {
        batch.counts.inserts += 1;
        if !self.layout.untold.is_empty() {
            let row = Row::of(self.layout, new);
            let stamp = self.stamp(Operation::Insert);
            batch.push_pending(PendingRow { row, stamp, xid: self.xid });
            return Ok(());
        }
        self.memory.remember(self.layout.table, self.layout, new, None);
        self.row(&mut batch.block, new, Operation::Insert)
    }

    /// A row is another. If its key is another too, the old key's tombstone bears the same version: it
    /// is of another key.
    ///
    /// # Errors
    /// Those of the block: they are the table's.
    pub(super) fn update(&mut self, batch: &mut Batch, update: &Update) -> Result<()> {
        batch.counts.updates += 1;
        let table = self.layout.table;
        if update.new.has_unchanged() || !self.layout.untold.is_empty() {
            self.completed(batch, update)?;
        } else {
            self.row(&mut batch.block, &update.new, Operation::Update)?;
            self.memory.remember(table, self.layout, &update.new, None);
        }
        let Some(old) = &update.old else { return Ok(()) };
        if self.key_changed(old, &update.new)? {
            self.memory.forget(table, self.layout, old.tuple());
            self.tombstone(&mut batch.block, old)?;
        }
        Ok(())
    }

    /// A row is gone.
    ///
    /// # Errors
    /// Those of the block: they are the table's.
    pub(super) fn delete(&mut self, batch: &mut Batch, delete: &Delete) -> Result<()> {
        batch.counts.deletes += 1;
        self.memory.forget(self.layout.table, self.layout, delete.old.tuple());
        self.tombstone(&mut batch.block, &delete.old)
    }

    /// A new row with unchanged values, completed by what is at hand, or left to be completed.
    fn completed(&mut self, batch: &mut Batch, update: &Update) -> Result<()> {
        let table = self.layout.table;
        let mut row = Row::of(self.layout, &update.new);
        if let Some(old) = &update.old {
            row.fill_from_old(self.layout, old);
        }
        if !row.is_whole() {
            // Under its old key, if that changed, the row is remembered.
            let before = update.old.as_ref().map_or(&update.new, Old::tuple);
            if let Some(known) = self.memory.recall(table, self.layout, before) {
                row.fill(&known, |_| true);
            }
        }
        if row.is_whole() {
            push_row(&mut batch.block, &row, self.stamp(Operation::Update))?;
            self.memory.remember(table, self.layout, &update.new, Some(&row));
        } else {
            let stamp = self.stamp(Operation::Update);
            batch.push_pending(PendingRow { row, stamp, xid: self.xid });
        }
        Ok(())
    }

    /// Whether old and new row are two keys to ClickHouse. Where they are one (0.0 and -0.0) a
    /// tombstone would tie with the new row and delete it.
    fn key_changed(&self, old: &Old, new: &Tuple) -> Result<bool> {
        let before = Row::of(self.layout, old.tuple());
        let mut after = Row::of(self.layout, new);
        after.fill_from_old(self.layout, old);
        let (before, after) = (fields(&before), fields(&after));
        Ok(!key_equals(self.plan, &before, &after)?)
    }

    /// A whole row, straight from the message.
    fn row(&self, block: &mut Block, tuple: &Tuple, operation: Operation) -> Result<()> {
        if tuple.columns() != self.layout.columns.len() {
            return Err(self.misfit());
        }
        for (nth, (datum, place)) in tuple.datums().zip(&self.layout.columns).enumerate() {
            let Some(column) = *place else { continue };
            let field = match datum {
                Datum::Null => Field::Null,
                Datum::Text(value) => Field::Text(value),
                Datum::Binary(value) => Field::Binary(value),
                Datum::Unchanged => return Err(self.misfit()),
            };
            match self.layout.widening(nth) {
                None => block.push_field(column, field)?,
                Some(wider) => block.push_field(column, wider.apply(field, &mut Vec::new()))?,
            }
        }
        for (column, value) in &self.layout.filled {
            block.push_field(*column, value.field().unwrap_or(Field::Null))?;
        }
        block.finish_row(self.stamp(operation))
    }

    /// Hides the old row: its sorting key, the defaults of the other columns, and the mark.
    fn tombstone(&self, block: &mut Block, old: &Old) -> Result<()> {
        let tuple = old.tuple();
        if tuple.columns() != self.layout.columns.len() {
            return Err(self.misfit());
        }
        for (datum, place) in tuple.datums().zip(&self.layout.columns) {
            let Some(column) = *place else { continue };
            if !self.plan.order_by.contains(&column) {
                block.push_default(column);
                continue;
            }
            match datum {
                Datum::Text(value) => block.push_field(column, Field::Text(value))?,
                Datum::Binary(value) => block.push_field(column, Field::Binary(value))?,
                Datum::Null => block.push_field(column, Field::Null)?,
                Datum::Unchanged => return Err(self.misfit()),
            }
        }
        self.layout.untold.iter().for_each(|column| block.push_default(*column));
        self.layout.filled.iter().for_each(|(column, _)| block.push_default(*column));
        block.finish_row(self.stamp(Operation::Delete))
    }

    fn stamp(&self, operation: Operation) -> Stamp {
        Stamp { version: self.version, operation, at: self.at }
    }

    #[cold]
    fn misfit(&self) -> Error {
        Error::new(
            Code::ProtocolViolation,
            format!("a row of {} does not fit its relation", self.plan.source),
        )
        .with("table", self.plan.source.to_string())
    }
}

/// A row for the comparison of keys. Columns outside ORDER BY may be missing, and are not looked at.
fn fields(row: &Row) -> Vec<Field<'_>> {
    row.0.iter().map(|value| value.field().unwrap_or(Field::Null)).collect()
}

/// A row whose values were gathered.
///
/// # Errors
/// Those of the block, and `INTERNAL` if a value is missing.
pub(super) fn push_row(block: &mut Block, row: &Row, stamp: Stamp) -> Result<()> {
    for (column, value) in row.0.iter().enumerate() {
        if *value == Value::Default {
            block.push_default(column);
            continue;
        }
        let field = value.field().ok_or_else(|| Error::new(Code::Internal, "a value of a row is missing"))?;
        block.push_field(column, field)?;
    }
    block.finish_row(stamp)
}
