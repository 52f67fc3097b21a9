//! One column under construction: its bytes as ClickHouse's `Native` format has them. Pure.

use crate::types::{
    Conversion, Event, Fault, Field, TimeRange, binary_elements, push_default, push_scalar, push_vector,
    text_elements,
};

/// A column's buffers keep their capacity from block to block, but not more than this beyond four
/// times what the last block used: one huge value must not stay allocated for ever.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// The buffers of one column.
///
/// `data` is laid out as it is sent: values of fixed width, strings with their lengths in front, or,
/// for an array, the ends of the rows' elements (`u64`), which are in `element`. Of an array of two
/// dimensions the elements are arrays, and so on.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    /// Without the `OrNull` around it.
    conversion: Conversion,
    /// Whether a value that cannot be held becomes NULL.
    or_null: bool,
    range: TimeRange,
    /// One byte a value, 1 for NULL; `None` if the column is not nullable.
    nulls: Option<Vec<u8>>,
    data: Vec<u8>,
    element: Option<Box<Column>>,
    /// Values pushed.
    count: usize,
    /// Of these, values that became NULL because they cannot be held.
    nulled: usize,
    /// What the column held at the end of the last complete row.
    mark: Mark,
    /// An element of a text array without its escapes.
    scratch: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    count: usize,
    nulled: usize,
    data: usize,
}

impl Column {
    /// An empty column. Arrays are never nullable themselves.
    pub(crate) fn new(conversion: &Conversion, nullable: bool, range: TimeRange) -> Self {
        let (conversion, or_null) = match conversion {
            Conversion::OrNull(inner) => (&**inner, true),
            conversion => (conversion, false),
        };
        let element = conversion
            .element()
            .map(|element| Box::new(Column::new(&element.conversion, element.nullable, range)));
        Self {
            conversion: conversion.clone(),
            or_null,
            range,
            nulls: (element.is_none() && (nullable || or_null)).then(Vec::new),
            data: Vec::new(),
            element,
            count: 0,
            nulled: 0,
            mark: Mark::default(),
            scratch: Vec::new(),
        }
    }

    /// The type under which the column is sent.
    pub(crate) fn wire_type(&self) -> String {
        let inner = self.conversion.wire_type();
        if self.nulls.is_some() { format!("Nullable({inner})") } else { inner }
    }

    /// Values pushed, those of the row under construction included.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Values in complete rows, elements included, that became NULL because they cannot be held.
    #[inline]
    pub(crate) fn nulled(&self) -> usize {
        self.mark.nulled + self.element.as_ref().map_or(0, |element| element.nulled())
    }

    /// The bytes of the values as they are sent, less the marks of NULL; of a scalar column.
    pub(crate) fn value_bytes(&self) -> &[u8] {
        &self.data
    }

    /// Appends one value. After a fault the row must be aborted.
    #[inline]
    pub(crate) fn push(&mut self, field: Field<'_>) -> Result<(), Fault> {
        if let Field::Null = field {
            return self.push_null();
        }
        let start = self.data.len();
        let pushed = match &self.element {
            None => push_scalar(&self.conversion, field, self.range, &mut self.data),
            Some(_) => self.push_array(field),
        };
        match pushed {
            Ok(()) => {
                if let Some(nulls) = &mut self.nulls {
                    nulls.push(0);
                }
                self.count += 1;
                Ok(())
            }
            Err(Fault::Unrepresentable | Fault::Dimensions) if self.or_null => {
                self.push_nulled(start);
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    /// Puts NULL in place of the value that was pushed in part.
    #[cold]
    fn push_nulled(&mut self, start: usize) {
        match self.element {
            // `OrNull` around an array is that of a whole column, and a row has one value of it.
            Some(_) => self.abort_row(),
            None => self.data.truncate(start),
        }
        self.push_default();
        self.nulled += 1;
    }

    /// Appends NULL, to an array column the empty array.
    #[inline]
    fn push_null(&mut self) -> Result<(), Fault> {
        if self.nulls.is_none() && self.element.is_none() {
            return Err(Fault::Null);
        }
        self.push_default();
        Ok(())
    }

    /// Appends the type's default: NULL if the column is nullable.
    #[inline]
    pub(crate) fn push_default(&mut self) {
        match &self.element {
            Some(element) => self.data.extend_from_slice(&(element.count as u64).to_le_bytes()),
            None => push_default(&self.conversion, &mut self.data),
        }
        if let Some(nulls) = &mut self.nulls {
            nulls.push(1);
        }
        self.count += 1;
    }

    fn push_array(&mut self, field: Field<'_>) -> Result<(), Fault> {
        let Some(element) = &mut self.element else { return Err(Fault::Form) };
        let (depth, delimiter) = match &self.conversion {
            Conversion::Vector(kind) => {
                element.count += push_vector(*kind, field, &mut element.data)?;
                self.data.extend_from_slice(&(element.count as u64).to_le_bytes());
                return Ok(());
            }
            Conversion::Nested { depth, delimiter, .. } => {
                (*depth, u8::try_from(*delimiter).map_err(|_| Fault::Form)?)
            }
            _ => (1, b','),
        };
        let each = |event: Event<'_>| match event {
            Event::Element(field) => element.inside(depth - 1)?.push(field),
            Event::End(level) => element.inside(level - 1)?.end_array(),
        };
        match field {
            Field::Binary(bytes) => binary_elements(bytes, depth, each)?,
            Field::Text(text) => text_elements(text, depth, delimiter, &mut self.scratch, each)?,
            Field::Null => return Err(Fault::Null),
        }
        self.data.extend_from_slice(&(element.count as u64).to_le_bytes());
        Ok(())
    }

    /// The column so many levels inside this one.
    #[inline]
    fn inside(&mut self, levels: u8) -> Result<&mut Column, Fault> {
        let mut column = self;
        for _ in 0..levels {
            column = column.element.as_deref_mut().ok_or(Fault::Form)?;
        }
        Ok(column)
    }

    /// Ends a value of an array column whose elements were pushed already.
    fn end_array(&mut self) -> Result<(), Fault> {
        let element = self.element.as_ref().ok_or(Fault::Form)?;
        self.data.extend_from_slice(&(element.count as u64).to_le_bytes());
        self.count += 1;
        Ok(())
    }

    /// Ends the row; returns the bytes that the column holds.
    #[inline]
    pub(crate) fn finish_row(&mut self) -> usize {
        self.mark = Mark { count: self.count, nulled: self.nulled, data: self.data.len() };
        let nulls = self.nulls.as_ref().map_or(0, Vec::len);
        let element = self.element.as_mut().map_or(0, |element| element.finish_row());
        self.data.len() + nulls + element
    }

    /// Takes back what was pushed since the last complete row.
    pub(crate) fn abort_row(&mut self) {
        self.data.truncate(self.mark.data);
        self.count = self.mark.count;
        self.nulled = self.mark.nulled;
        if let Some(nulls) = &mut self.nulls {
            nulls.truncate(self.mark.count);
        }
        if let Some(element) = &mut self.element {
            element.abort_row();
        }
    }

    /// Empties the column; it keeps its memory for the next block.
    pub(crate) fn clear(&mut self) {
        recycle(&mut self.data);
        recycle(&mut self.scratch);
        if let Some(nulls) = &mut self.nulls {
            recycle(nulls);
        }
        if let Some(element) = &mut self.element {
            element.clear();
        }
        self.count = 0;
        self.nulled = 0;
        self.mark = Mark::default();
    }

    /// Bytes that [`Column::encode`] appends.
    pub(crate) fn encoded_len(&self) -> usize {
        let nulls = self.nulls.as_ref().map_or(0, Vec::len);
        nulls + self.data.len() + self.element.as_ref().map_or(0, |element| element.encoded_len())
    }

    /// Appends the column's data, without name and type.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        if let Some(nulls) = &self.nulls {
            out.extend_from_slice(nulls);
        }
        out.extend_from_slice(&self.data);
        if let Some(element) = &self.element {
            element.encode(out);
        }
    }

    /// Whether the only value of this column and that of another are one key to ClickHouse, which
    /// compares floats as numbers (-0.0 is 0.0) and everything else by its bytes. Here NULLs are
    /// equal, and so are NaNs: both are one value in a sorting key.
    pub(crate) fn equals_as_key(&self, other: &Column) -> bool {
        let elements = match (&self.element, &other.element) {
            (Some(a), Some(b)) => a.equals_as_key(b),
            _ => true,
        };
        let data = match self.conversion {
            Conversion::Float32 => same_floats::<4>(&self.data, &other.data),
            Conversion::Float64 => same_floats::<8>(&self.data, &other.data),
            _ => self.data == other.data,
        };
        elements && data && self.nulls == other.nulls
    }
}

/// Compares floats by their bytes, with both zeros alike. All NaNs have the same bytes here.
fn same_floats<const N: usize>(a: &[u8], b: &[u8]) -> bool {
    let positive = |float: &[u8; N]| {
        let mut bytes = *float;
        let sign = bytes[N - 1] & 0x80;
        bytes[N - 1] &= 0x7f;
        if bytes == [0; N] {
            bytes
        } else {
            bytes[N - 1] |= sign;
            bytes
        }
    };
    let (a, b) = (a.as_chunks::<N>().0, b.as_chunks::<N>().0);
    a.iter().map(positive).eq(b.iter().map(positive))
}

/// Empties a buffer, and gives back memory far beyond what it held.
fn recycle(buffer: &mut Vec<u8>) {
    let keep = 4 * buffer.len() + SPARE_BYTES_MAX;
    buffer.clear();
    buffer.shrink_to(keep);
}
