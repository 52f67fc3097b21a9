//! Rows of one table on their way to ClickHouse, column by column. Pure.
//!
//! A row is built by one push per column, in any order, and ended by [`Block::finish_row`]; a row that
//! cannot be built is taken back by [`Block::abort_row`], and the rows before it stay. Values go
//! straight from the wire's bytes into the column's: nothing is allocated per value, and the memory
//! is kept over [`Block::clear`].

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_terms::{Code, Error, Result};

use crate::column::Column;
use crate::native;
use crate::table::{Audit, TablePlan, audit};
use crate::types::{Field, TimeRange, push_string};

/// Bytes of a row's own columns as they are counted by [`Block::bytes`]: version and mark.
const OWN_BYTES: usize = 16 + 1;

/// Bytes of a row's audit columns as they are counted, beside the source's names.
const AUDIT_BYTES: usize = 9 + 8;

/// How many values of each column became NULL because ClickHouse cannot hold them, by the column's name on
/// the source. Columns of which none did are not in it.
pub type Nulled = BTreeMap<String, u64>;

/// What made a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It was copied.
    Snapshot,
    /// It was inserted.
    Insert,
    /// It was updated.
    Update,
    /// It was deleted, or its key became another: the row is a tombstone.
    Delete,
}

impl Operation {
    /// The word for it in the audit column.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Snapshot => "snapshot",
            Operation::Insert => "insert",
            Operation::Update => "update",
            Operation::Delete => "delete",
        }
    }
}

/// What a row bears beside its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Its version.
    pub version: u128,
    /// What made it.
    pub operation: Operation,
    /// When the change was committed, or the row was copied, in microseconds since 1970.
    pub at: i64,
}

/// Rows of one table, in ClickHouse's columns.
#[derive(Debug, Clone)]
pub struct Block {
    plan: Arc<TablePlan>,
    columns: Vec<Column>,
    versions: Vec<u8>,
    deleted: Vec<u8>,
    audit: Option<Trail>,
    rows: usize,
    bytes: usize,
    /// Bytes of a row's own columns, as they are counted.
    own_bytes: usize,
}

/// The audit columns of a block that has them, as they are sent.
#[derive(Debug, Clone, Default)]
struct Trail {
    operations: Vec<u8>,
    times: Vec<u8>,
}

impl Block {
    /// An empty block for a table. `range` is what the destination's date types hold.
    pub fn new(plan: Arc<TablePlan>, range: TimeRange) -> Self {
        let columns = plan
            .columns
            .iter()
            .map(|column| Column::new(&column.conversion, column.nullable, range))
            .collect();
        let source = plan.own.source.as_ref().map_or(0, |source| source.value.len() + 1);
        let named = |audit: &Audit| AUDIT_BYTES + audit.database.len() + plan.source.to_string().len();
        let own_bytes = OWN_BYTES + source + plan.own.audit.as_ref().map_or(0, named);
        let audit = plan.own.audit.is_some().then(Trail::default);
        let (versions, deleted) = (Vec::new(), Vec::new());
        Self { plan, columns, versions, deleted, audit, rows: 0, bytes: 0, own_bytes }
    }

    /// Values of the complete rows, elements of arrays included, that became NULL because ClickHouse
    /// cannot hold them (`on_unrepresentable: null`). Begins anew with [`Block::clear`].
    pub fn nulled(&self) -> usize {
        self.columns.iter().map(Column::nulled).sum()
    }

    /// Adds to the figures of the columns what [`Block::nulled`] counts.
    pub fn count_nulled(&self, nulled: &mut Nulled) {
        for (plan, column) in self.plan.columns.iter().zip(&self.columns) {
            let values = column.nulled() as u64;
            if values > 0 {
                *nulled.entry(plan.name.clone()).or_default() += values;
            }
        }
    }

    /// The plan that the block was made for.
    pub fn plan(&self) -> &Arc<TablePlan> {
        &self.plan
    }

    /// Complete rows.
    #[inline]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the complete rows, as they are sent, less the headers.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a value of the row under construction to a column (an index into the plan's).
    ///
    /// # Errors
    /// `VALUE_UNREPRESENTABLE`, `PROTOCOL_VIOLATION`, or `TABLE_SCHEMA_CHANGED` for a NULL where the
    /// plan has none. The message names table and column. The row must then be aborted.
    #[inline]
    pub fn push_field(&mut self, column: usize, field: Field<'_>) -> Result<()> {
        match self.columns.get_mut(column) {
            Some(buffer) => buffer.push(field).map_err(|fault| {
                let name = self.plan.columns.get(column).map_or("", |column| column.name.as_str());
                fault.error(&self.plan.source, name)
            }),
            None => Err(self.misuse("a value for a column that the plan does not have")),
        }
    }

    /// Appends the default of a column's type (NULL if it is nullable): what a tombstone has outside
    /// its key. A column that the plan does not have is found by [`Block::finish_row`].
    #[inline]
    pub fn push_default(&mut self, column: usize) {
        if let Some(buffer) = self.columns.get_mut(column) {
            buffer.push_default();
        }
    }

    /// Ends the row under construction.
    ///
    /// # Errors
    /// `INTERNAL` if some column did not get exactly one value; the row must then be aborted.
    #[inline]
    pub fn finish_row(&mut self, stamp: Stamp) -> Result<()> {
        let count = self.rows + 1;
        if self.columns.iter().any(|column| column.count() != count) {
            return Err(self.misuse("a row without exactly one value for every column"));
        }
        self.versions.extend_from_slice(&stamp.version.to_le_bytes());
        self.deleted.push(u8::from(stamp.operation == Operation::Delete));
        if let Some(audit) = &mut self.audit {
            push_string(stamp.operation.as_str().as_bytes(), &mut audit.operations);
            audit.times.extend_from_slice(&stamp.at.to_le_bytes());
        }
        self.rows = count;
        self.bytes = self.columns.iter_mut().map(Column::finish_row).sum::<usize>() + count * self.own_bytes;
        Ok(())
    }

    /// Takes back the row under construction, whatever of it was pushed.
    pub fn abort_row(&mut self) {
        self.columns.iter_mut().for_each(Column::abort_row);
    }

    /// Takes all rows out, also the one under construction. The memory is kept for the next ones.
    pub fn clear(&mut self) {
        self.columns.iter_mut().for_each(Column::clear);
        self.versions.clear();
        self.deleted.clear();
        self.audit = self.audit.take().map(Trail::cleared);
        self.rows = 0;
        self.bytes = 0;
    }

    /// Appends the complete rows as one block of ClickHouse's `Native` format. `synced_at` is the
    /// time of writing, in microseconds since 1970, the same for all rows.
    ///
    /// There must be no row under construction: end it or abort it first.
    ///
    /// # Errors
    /// `INTERNAL` if there is one.
    pub fn encode_native(&self, synced_at: i64, out: &mut Vec<u8>) -> Result<()> {
        if self.columns.iter().any(|column| column.count() != self.rows) {
            return Err(self.misuse("a block was sent with a row under construction"));
        }
        let data: usize = self.columns.iter().map(Column::encoded_len).sum();
        let columns = self.columns.len() + self.plan.own_columns().count();
        out.reserve(data + self.rows * (self.own_bytes + 8) + native::HEADER_BYTES * (columns + 1));
        native::start_block(columns, self.rows, out);
        for (plan, column) in self.plan.columns.iter().zip(&self.columns) {
            native::start_column(&plan.destination, &column.wire_type(), out);
            column.encode(out);
        }
        let own = &self.plan.own;
        if let Some(source) = &own.source {
            native::repeated_text(&source.name, &source.value, self.rows, out);
        }
        native::start_column(&own.version, "UInt128", out);
        out.extend_from_slice(&self.versions);
        if !self.plan.append_only {
            native::start_column(&own.is_deleted, "UInt8", out);
            out.extend_from_slice(&self.deleted);
        }
        native::start_column(&own.synced_at, "DateTime64(6)", out);
        out.extend(std::iter::repeat_n(synced_at.to_le_bytes(), self.rows).flatten());
        if let (Some(names), Some(trail)) = (&own.audit, &self.audit) {
            native::start_column(audit::OPERATION, "String", out);
            out.extend_from_slice(&trail.operations);
            native::start_column(audit::TIMESTAMP, "DateTime64(6)", out);
            out.extend_from_slice(&trail.times);
            native::repeated_text(audit::SOURCE_DB, &names.database, self.rows, out);
            native::repeated_text(audit::SOURCE_TABLE, &self.plan.source.to_string(), self.rows, out);
        }
        Ok(())
    }

    #[cold]
    fn misuse(&self, what: &str) -> Error {
        Error::new(Code::Internal, format!("table {}: {what}", self.plan.source))
    }
}

impl Trail {
    /// Without rows; the memory is kept.
    fn cleared(mut self) -> Self {
        self.operations.clear();
        self.times.clear();
        self
    }
}

/// Whether two rows have the same key as ClickHouse compares it, after transcoding. The fields are
/// those of all columns of the plan, in its order; only those of ORDER BY are looked at, which hold the
/// key.
///
/// An update that changes PostgreSQL's key but not this one must write no tombstone: it would bear the
/// version of the new row, and delete it.
///
/// # Errors
/// As [`Block::push_field`]; `INTERNAL` if a row has fewer fields than the plan has columns.
pub fn key_equals(plan: &TablePlan, old: &[Field<'_>], new: &[Field<'_>]) -> Result<bool> {
    for &index in &plan.order_by {
        let (Some(column), Some(&old), Some(&new)) =
            (plan.columns.get(index), old.get(index), new.get(index))
        else {
            let message = format!("table {}: a row without the columns of its key", plan.source);
            return Err(Error::new(Code::Internal, message));
        };
        // Nearly always the bytes are the same.
        if old == new {
            continue;
        }
        // The widest range: whether the destination holds the value is found when the row is pushed.
        let single = |field| {
            let mut buffer = Column::new(&column.conversion, column.nullable, TimeRange::WIDE);
            buffer.push(field).map_err(|fault| fault.error(&plan.source, &column.name))?;
            Ok::<_, Error>(buffer)
        };
        if !single(old)?.equals_as_key(&single(new)?) {
            return Ok(false);
        }
    }
    Ok(true)
}
