//! Values of large columns that an update left as they were. Pure; see `reselect` for the query.
//!
//! PostgreSQL does not send an unchanged value that it stores out of line. It is taken, in this order:
//! from the old row in the same message; from an earlier change of the same row in the same
//! transaction; from the source's table. The first two hold exactly the value; the third holds it or a
//! later one, if it is read in a snapshot that sees the change.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::relations::Layout;
use super::schema::Widening;
use crate::pgoutput::{Datum, Old, Tuple};
use crate::types::Field;

/// Rows smaller than this hold nothing that is stored out of line by the server's defaults
/// (2032 bytes, after compression); remembering is only a way to spare a query.
const REMEMBER_BYTES_MIN: usize = 1024;
/// Most bytes of rows that are remembered in one transaction. Beyond it the source is asked.
const REMEMBER_BYTES_MAX: usize = 8 << 20;

/// A value that is kept beyond its message: a copy, because a slice would keep all bytes that were read
/// with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Text(Bytes),
    Binary(Bytes),
    /// Not known yet.
    Missing,
}

impl Value {
    fn of(datum: Datum<'_>) -> Self {
        match datum {
            Datum::Null => Value::Null,
            Datum::Text(value) => Value::Text(Bytes::copy_from_slice(value)),
            Datum::Binary(value) => Value::Binary(Bytes::copy_from_slice(value)),
            Datum::Unchanged => Value::Missing,
        }
    }

    /// As the block takes it; `None` if it is missing.
    pub(super) fn field(&self) -> Option<Field<'_>> {
        match self {
            Value::Null => Some(Field::Null),
            Value::Text(value) => Some(Field::Text(value)),
            Value::Binary(value) => Some(Field::Binary(value)),
            Value::Missing => None,
        }
    }

    /// Makes the value one of a wider type.
    fn widen(&mut self, wider: Widening) {
        let mut scratch = Vec::new();
        let made = match self.field() {
            Some(field) => match wider.apply(field, &mut scratch) {
                Field::Text(text) => Value::Text(Bytes::copy_from_slice(text)),
                Field::Binary(bytes) => Value::Binary(Bytes::copy_from_slice(bytes)),
                Field::Null => Value::Null,
            },
            None => return,
        };
        *self = made;
    }

    fn bytes(&self) -> usize {
        match self {
            Value::Text(value) | Value::Binary(value) => value.len(),
            Value::Null | Value::Missing => 0,
        }
    }
}

/// A row in the order of the plan's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row(pub Vec<Value>);

impl Row {
    /// A tuple in the order of the plan.
    pub(super) fn of(layout: &Layout, tuple: &Tuple) -> Self {
        let mut values = vec![Value::Missing; layout.plan_columns];
        for (nth, (datum, place)) in tuple.datums().zip(&layout.columns).enumerate() {
            if let Some(value) = place.and_then(|at| values.get_mut(at)) {
                *value = Value::of(datum);
                if let Some(wider) = layout.widening(nth) {
                    value.widen(wider);
                }
            }
        }
        for (at, filling) in &layout.filled {
            if let Some(value) = values.get_mut(*at) {
                value.clone_from(filling);
            }
        }
        Self(values)
    }

    /// Whether every value is known.
    pub(super) fn is_whole(&self) -> bool {
        !self.0.contains(&Value::Missing)
    }

    /// Bytes of the values.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(Value::bytes).sum::<usize>() + self.0.len() * size_of::<Value>()
    }

    /// Takes what is missing from another row.
    pub(super) fn fill(&mut self, from: &Row, allowed: impl Fn(usize) -> bool) {
        for (at, (value, known)) in self.0.iter_mut().zip(&from.0).enumerate() {
            if *value == Value::Missing && allowed(at) {
                *value = known.clone();
            }
        }
    }

    /// Takes what is missing from the old row of the same message. Of an old key only the columns of
    /// the identity are told; the others look like NULL.
    pub(super) fn fill_from_old(&mut self, layout: &Layout, old: &Old) {
        let known = Row::of(layout, old.tuple());
        match old {
            Old::Full(_) => self.fill(&known, |_| true),
            Old::Key(_) => self.fill(&known, |at| layout.key.contains(&at)),
        }
    }
}

/// The large rows that the transaction under way has written.
#[derive(Debug, Default)]
pub(super) struct Memory {
    rows: HashMap<(usize, Vec<u8>), Arc<Row>>,
    bytes: usize,
}

impl Memory {
    /// Remembers a row of a table, if it is worth it and there is room.
    pub(super) fn remember(&mut self, table: usize, layout: &Layout, tuple: &Tuple, whole: Option<&Row>) {
        if tuple.bytes() < REMEMBER_BYTES_MIN && whole.is_none() {
            if !self.rows.is_empty() {
                self.forget(table, layout, tuple);
            }
            return;
        }
        let row = whole.cloned().unwrap_or_else(|| Row::of(layout, tuple));
        let bytes = row.bytes();
        if self.bytes + bytes > REMEMBER_BYTES_MAX || !row.is_whole() {
            self.forget(table, layout, tuple);
            return;
        }
        let Some(key) = key(layout, tuple) else { return };
        self.bytes += bytes;
        if let Some(before) = self.rows.insert((table, key), Arc::new(row)) {
            self.bytes -= before.bytes();
        }
    }

    /// What is remembered of the row with this tuple's key.
    pub(super) fn recall(&self, table: usize, layout: &Layout, tuple: &Tuple) -> Option<Arc<Row>> {
        if self.rows.is_empty() {
            return None;
        }
        self.rows.get(&(table, key(layout, tuple)?)).cloned()
    }

    /// The row with this tuple's key is gone or another.
    pub(super) fn forget(&mut self, table: usize, layout: &Layout, tuple: &Tuple) {
        if self.rows.is_empty() {
            return;
        }
        if let Some(before) = key(layout, tuple).and_then(|key| self.rows.remove(&(table, key))) {
            self.bytes -= before.bytes();
        }
    }

    /// All rows of a table are gone.
    pub(super) fn forget_table(&mut self, table: usize) {
        self.rows.retain(|(of, _), _| *of != table);
        self.bytes = self.rows.values().map(|row| row.bytes()).sum();
    }

    /// The transaction is over.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.bytes = 0;
    }
}

/// The key's values as they came, which is exact: PostgreSQL sends the old key whenever its stored
/// bytes change. `None` if one of them is missing.
fn key(layout: &Layout, tuple: &Tuple) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for (datum, place) in tuple.datums().zip(&layout.columns) {
        if !place.is_some_and(|at| layout.key.contains(&at)) {
            continue;
        }
        match datum {
            Datum::Text(value) | Datum::Binary(value) => {
                bytes.extend_from_slice(&value.len().to_be_bytes());
                bytes.extend_from_slice(value);
            }
            Datum::Null | Datum::Unchanged => return None,
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgoutput::{Message, decode};

    /// A tuple of text values: `None` is an unchanged one.
    fn tuple(values: &[Option<&str>]) -> Tuple {
        let mut wire = b"I\0\0\0\x01N".to_vec();
        wire.extend((values.len() as u16).to_be_bytes());
        for value in values {
            match value {
                None => wire.push(b'u'),
                Some(text) => {
                    wire.push(b't');
                    wire.extend((text.len() as u32).to_be_bytes());
                    wire.extend(text.as_bytes());
                }
            }
        }
        match decode(wire.into()).unwrap() {
            Message::Insert(insert) => insert.new,
            other => panic!("{other:?}"),
        }
    }

    /// Columns id (key), small, big; the relation has a column in front that is not replicated.
    fn layout() -> Layout {
        Layout {
            table: 0,
            columns: vec![None, Some(0), Some(1), Some(2)],
            plan_columns: 3,
            widened: Vec::new(),
            filled: Vec::new(),
            untold: Vec::new(),
            key: vec![0],
            until: None,
        }
    }

    #[test]
    fn a_value_of_the_same_transaction_is_found_under_the_rows_key() {
        let (layout, big) = (layout(), "x".repeat(5000));
        let mut memory = Memory::default();
        let insert = tuple(&[Some("-"), Some("1"), Some("a"), Some(&big)]);
        memory.remember(0, &layout, &insert, None);
        let update = tuple(&[Some("-"), Some("1"), Some("b"), None]);
        let mut row = Row::of(&layout, &update);
        assert!(!row.is_whole());
        row.fill(&memory.recall(0, &layout, &update).unwrap(), |_| true);
        assert_eq!(row.0[1].field(), Some(Field::Text(b"b")));
        assert_eq!(row.0[2].field(), Some(Field::Text(big.as_bytes())));

        assert!(memory.recall(1, &layout, &update).is_none(), "of another table");
        assert!(memory.recall(0, &layout, &tuple(&[None, Some("2"), None, None])).is_none());
        memory.forget(0, &layout, &update);
        assert!(memory.recall(0, &layout, &update).is_none());
        assert_eq!(memory.bytes, 0);
    }

    #[test]
    fn a_small_row_replaces_what_is_remembered_of_a_large_one() {
        let layout = layout();
        let mut memory = Memory::default();
        let large = tuple(&[None, Some("1"), Some("a"), Some(&"x".repeat(5000))]);
        memory.remember(0, &layout, &large, None);
        let small = tuple(&[None, Some("1"), Some("a"), Some("now small")]);
        memory.remember(0, &layout, &small, None);
        assert!(memory.recall(0, &layout, &small).is_none(), "a stale value would be taken for unchanged");
    }

    #[test]
    fn memory_is_bounded() {
        let layout = layout();
        let mut memory = Memory::default();
        let big = "x".repeat(1 << 20);
        for id in 0..20 {
            memory.remember(0, &layout, &tuple(&[None, Some(&id.to_string()), Some(""), Some(&big)]), None);
        }
        assert!(memory.rows.len() == 7 && memory.bytes <= REMEMBER_BYTES_MAX, "{}", memory.rows.len());
        memory.forget_table(0);
        assert_eq!((memory.rows.len(), memory.bytes), (0, 0));
    }

    #[test]
    fn an_old_key_fills_only_the_key() {
        let layout = layout();
        let mut row = Row::of(&layout, &tuple(&[None, None, Some("b"), None]));
        row.fill_from_old(&layout, &Old::Key(tuple(&[None, Some("1"), None, Some("not told")])));
        assert_eq!(
            row.0,
            [Value::Text(Bytes::from_static(b"1")), Value::Text(Bytes::from_static(b"b")), Value::Missing]
        );
    }
}
