//! A row as it is in a message. Pure.
//!
//! A tuple keeps its bytes as they came and is walked field by field; its structure is verified once,
//! when it is read, so that walking it needs no error. Nothing is allocated.

use bytes::Bytes;
use millrace_terms::Result;

use super::read::{Reader, violation};

/// A row: one [`Datum`] for each column of its relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuple {
    columns: u16,
    unchanged: bool,
    /// For each column its kind, and for values their length and bytes.
    body: Bytes,
}

/// One value of a [`Tuple`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datum<'a> {
    /// NULL, or a column that is not told.
    Null,
    /// A TOASTed value that did not change, and is not sent.
    Unchanged,
    /// A value in text form.
    Text(&'a [u8]),
    /// A value in binary form.
    Binary(&'a [u8]),
}

impl Tuple {
    pub(super) fn read(reader: &mut Reader) -> Result<Self> {
        let columns = reader.u16("a number of columns")?;
        let (length, unchanged) = measure(columns, reader.peek())?;
        Ok(Self { columns, unchanged, body: reader.take(length, "a row")? })
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        usize::from(self.columns)
    }

    /// Whether some value is [`Datum::Unchanged`].
    pub fn has_unchanged(&self) -> bool {
        self.unchanged
    }

    /// Bytes on the wire.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// The values, in the order of the relation's columns.
    #[inline]
    pub fn datums(&self) -> Datums<'_> {
        Datums { rest: &self.body }
    }
}

/// Walks the values of a tuple.
#[derive(Debug, Clone)]
pub struct Datums<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Datums<'a> {
    type Item = Datum<'a>;

    #[inline]
    fn next(&mut self) -> Option<Datum<'a>> {
        let (kind, rest) = self.rest.split_first()?;
        let (datum, rest) = match kind {
            b'n' => (Datum::Null, rest),
            b'u' => (Datum::Unchanged, rest),
            kind => {
                let (length, rest) = rest.split_first_chunk::<4>()?;
                let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
                (if *kind == b'b' { Datum::Binary(value) } else { Datum::Text(value) }, rest)
            }
        };
        self.rest = rest;
        Some(datum)
    }
}

/// Length of a tuple of so many columns at the front of `bytes`, and whether a value is unchanged.
fn measure(columns: u16, bytes: &[u8]) -> Result<(usize, bool)> {
    let mut rest = bytes;
    let mut unchanged = false;
    for _ in 0..columns {
        let (kind, after) = rest.split_first().ok_or_else(|| violation("a row that ends early"))?;
        rest = match kind {
            b'n' => after,
            b'u' => {
                unchanged = true;
                after
            }
            b't' | b'b' => after
                .split_first_chunk::<4>()
                .and_then(|(length, value)| value.get(u32::from_be_bytes(*length) as usize..))
                .ok_or_else(|| violation("a row that ends within a value"))?,
            _ => return Err(violation("a value of an unknown form")),
        };
    }
    Ok((bytes.len() - rest.len(), unchanged))
}
