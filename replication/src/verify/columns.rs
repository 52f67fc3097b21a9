//! Reads ClickHouse's `Native` format back: blocks of columns, whoever wrote them. Pure; never panics,
//! whatever it is fed.
//!
//! What we send of the source's rows and what the server answers of its own have the same form, so one
//! reader makes the rows of both sides comparable: a value is its type's bytes.

use millrace_terms::{Code, Error, Result};

/// How deep types may nest: PostgreSQL's arrays have six dimensions at most.
const NESTING_MAX: usize = 16;

/// A block: its columns, all of one length.
#[derive(Debug)]
pub(super) struct Block<'a> {
    pub(super) rows: usize,
    pub(super) columns: Vec<Column<'a>>,
}

/// The values of one column.
#[derive(Debug)]
pub(super) enum Column<'a> {
    /// Values of one width.
    Fixed { width: usize, float: bool, bytes: &'a [u8] },
    /// Strings.
    Strings(Vec<&'a [u8]>),
    /// Values some of which are NULL, by a byte each that is not zero.
    Nullable { nulls: &'a [u8], values: Box<Column<'a>> },
    /// Arrays, by the ends of their elements.
    Array { ends: Vec<usize>, elements: Box<Column<'a>> },
}

/// What a type's column looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Layout {
    Fixed { width: usize, float: bool },
    String,
    Nullable(Box<Layout>),
    Array(Box<Layout>),
}

impl Layout {
    fn of(kind: &str, nesting: usize) -> Option<Self> {
        if nesting > NESTING_MAX {
            return None;
        }
        let inside = |prefix: &str| kind.strip_prefix(prefix)?.strip_suffix(')');
        if let Some(inner) = inside("Nullable(") {
            return Some(Layout::Nullable(Box::new(Layout::of(inner, nesting + 1)?)));
        }
        if let Some(inner) = inside("Array(") {
            return Some(Layout::Array(Box::new(Layout::of(inner, nesting + 1)?)));
        }
        let float = kind.starts_with("Float");
        let width = match kind.split('(').next().unwrap_or_default() {
            "String" => return Some(Layout::String),
            "Bool" | "Int8" | "UInt8" => 1,
            "Int16" | "UInt16" | "Date" => 2,
            "Int32" | "UInt32" | "Float32" | "Date32" | "DateTime" | "IPv4" => 4,
            "Int64" | "UInt64" | "Float64" | "DateTime64" | "Time64" => 8,
            "Int128" | "UInt128" | "UUID" | "IPv6" => 16,
            "Int256" | "UInt256" => 32,
            "Decimal" => decimal_width(inside("Decimal(")?)?,
            _ => return None,
        };
        Some(Layout::Fixed { width, float })
    }
}

/// Bytes of a `Decimal` by its precision, which stands first of the two arguments.
fn decimal_width(arguments: &str) -> Option<usize> {
    Some(match arguments.split(',').next()?.trim().parse().ok()? {
        0..=9u8 => 4,
        10..=18 => 8,
        19..=38 => 16,
        39..=76 => 32,
        _ => return None,
    })
}

/// Why a block could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stop {
    /// There may be more bytes to come.
    Incomplete,
    /// They are no block that we know.
    Unknown(String),
}

type Parsed<T> = std::result::Result<T, Stop>;

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Parsed<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Stop::Incomplete)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A number in LEB128.
    fn number(&mut self) -> Parsed<usize> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.take(1)? else { return Err(Stop::Incomplete) };
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(number).map_err(|_| unknown("a length beyond memory"));
            }
        }
        Err(unknown("a length without an end"))
    }

    fn string(&mut self) -> Parsed<&'a [u8]> {
        let length = self.number()?;
        self.take(length)
    }

    fn many(&mut self, count: usize, width: usize) -> Parsed<&'a [u8]> {
        self.take(count.checked_mul(width).ok_or_else(|| unknown("a column beyond memory"))?)
    }

    fn column(&mut self, layout: &Layout, count: usize) -> Parsed<Column<'a>> {
        Ok(match layout {
            Layout::Fixed { width, float } => {
                Column::Fixed { width: *width, float: *float, bytes: self.many(count, *width)? }
            }
            Layout::String => {
                // Each has a byte at least: a count that is nonsense allocates nothing.
                if count > self.0.len() {
                    return Err(Stop::Incomplete);
                }
                let mut strings = Vec::with_capacity(count);
                for _ in 0..count {
                    strings.push(self.string()?);
                }
                Column::Strings(strings)
            }
            Layout::Nullable(inner) => {
                let nulls = self.take(count)?;
                Column::Nullable { nulls, values: Box::new(self.column(inner, count)?) }
            }
            Layout::Array(inner) => {
                let (ends, _) = self.many(count, 8)?.as_chunks::<8>();
                let ends: Vec<usize> = ends
                    .iter()
                    .map(|end| usize::try_from(u64::from_le_bytes(*end)))
                    .collect::<std::result::Result<_, _>>()
                    .map_err(|_| unknown("an array beyond memory"))?;
                if !ends.is_sorted() {
                    return Err(unknown("arrays that end before they begin"));
                }
                let elements = self.column(inner, ends.last().copied().unwrap_or(0))?;
                Column::Array { ends, elements: Box::new(elements) }
            }
        })
    }

    fn block(&mut self) -> Parsed<Block<'a>> {
        let (columns, rows) = (self.number()?, self.number()?);
        let mut read = Vec::new();
        for _ in 0..columns {
            let _name = self.string()?;
            let kind = String::from_utf8_lossy(self.string()?);
            let layout = Layout::of(&kind, 0).ok_or_else(|| unknown(&format!("the type {kind}")))?;
            read.push(self.column(&layout, rows)?);
        }
        Ok(Block { rows, columns: read })
    }
}

#[cold]
fn unknown(what: &str) -> Stop {
    Stop::Unknown(what.to_owned())
}

/// Gathers what comes in pieces of any size, and reads the blocks that are whole.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pending: Vec<u8>,
    /// Bytes to have before it is worth another try: a block is read from its beginning each time.
    wanted: usize,
}

impl Reader {
    /// Reads a piece, and hands on each block that is whole.
    ///
    /// # Errors
    /// `PROTOCOL_VIOLATION`, and whatever `each` returns.
    pub(super) fn feed(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut(&Block<'_>) -> Result<()>,
    ) -> Result<()> {
        self.pending.extend_from_slice(piece);
        if self.pending.len() < self.wanted {
            return Ok(());
        }
        self.drain(&mut each)
    }

    /// Reads what is left.
    ///
    /// # Errors
    /// As [`Reader::feed`], and `PROTOCOL_VIOLATION` if a block was cut short.
    pub(super) fn finish(mut self, mut each: impl FnMut(&Block<'_>) -> Result<()>) -> Result<()> {
        self.drain(&mut each)?;
        if self.pending.is_empty() { Ok(()) } else { Err(violation("ended in the middle of a block")) }
    }

    fn drain(&mut self, each: &mut impl FnMut(&Block<'_>) -> Result<()>) -> Result<()> {
        let mut rest = Bytes(&self.pending);
        let mut used = 0;
        while !rest.0.is_empty() {
            match rest.block() {
                Ok(block) => each(&block)?,
                Err(Stop::Incomplete) => break,
                Err(Stop::Unknown(what)) => return Err(violation(&format!("holds {what}"))),
            }
            used = self.pending.len() - rest.0.len();
        }
        self.pending.drain(..used);
        self.wanted = self.pending.len() + self.pending.len() / 2;
        Ok(())
    }
}

#[cold]
fn violation(what: &str) -> Error {
    Error::new(Code::ProtocolViolation, format!("a block in ClickHouse's Native format {what}"))
}

impl Column<'_> {
    /// Appends a value so that two values have the same bytes exactly if they are the same: every part is
    /// of fixed width or has its length in front. All NaN are one; as a key the two zeros are one, too,
    /// as they are to ClickHouse's sorting.
    pub(super) fn write(&self, row: usize, as_key: bool, out: &mut Vec<u8>) {
        match self {
            Column::Fixed { width, float, bytes } => {
                let value = bytes.get(row * width..(row + 1) * width).unwrap_or_default();
                if *float { out.extend(settled(value, as_key)) } else { out.extend_from_slice(value) }
            }
            Column::Strings(strings) => {
                let value = strings.get(row).copied().unwrap_or_default();
                out.extend((value.len() as u64).to_le_bytes());
                out.extend_from_slice(value);
            }
            Column::Nullable { nulls, values } => {
                let is_null = nulls.get(row).is_none_or(|null| *null != 0);
                out.push(u8::from(is_null));
                if !is_null {
                    values.write(row, as_key, out);
                }
            }
            Column::Array { ends, elements } => {
                let begin = row.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
                let end = ends.get(row).copied().unwrap_or(begin);
                out.extend(((end - begin) as u64).to_le_bytes());
                (begin..end).for_each(|element| elements.write(element, as_key, out));
            }
        }
    }

    /// A string that may be NULL; none for NULL and for a column of another type.
    pub(super) fn text(&self, row: usize) -> Option<&[u8]> {
        match self {
            Column::Strings(strings) => strings.get(row).copied(),
            Column::Nullable { nulls, values } if nulls.get(row) == Some(&0) => values.text(row),
            _ => None,
        }
    }

    /// A number without sign of up to 128 bits; 0 for a column of another type.
    pub(super) fn number(&self, row: usize) -> u128 {
        let Column::Fixed { width, bytes, .. } = self else { return 0 };
        let value = bytes.get(row * width..(row + 1) * width).unwrap_or_default();
        value.iter().rev().fold(0, |number, byte| number << 8 | u128::from(*byte))
    }
}

/// The bytes of a float that stand for all that are the same.
fn settled(value: &[u8], as_key: bool) -> Vec<u8> {
    let (is_nan, is_zero, nan) = match *value {
        [a, b, c, d] => {
            let float = f32::from_le_bytes([a, b, c, d]);
            (float.is_nan(), float == 0.0, f32::NAN.to_le_bytes().to_vec())
        }
        [a, b, c, d, e, f, g, h] => {
            let float = f64::from_le_bytes([a, b, c, d, e, f, g, h]);
            (float.is_nan(), float == 0.0, f64::NAN.to_le_bytes().to_vec())
        }
        _ => return value.to_vec(),
    };
    match (is_nan, is_zero && as_key) {
        (true, _) => nan,
        (_, true) => vec![0; value.len()],
        _ => value.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded() -> Vec<u8> {
        let mut out = vec![4, 2];
        let mut column = |name: &str, kind: &str, data: &[u8]| {
            out.push(name.len() as u8);
            out.extend(name.bytes());
            out.push(kind.len() as u8);
            out.extend(kind.bytes());
            out.extend(data);
        };
        column("i", "Int16", &[1, 0, 2, 0]);
        column("s", "Nullable(String)", &[0, 1, 2, b'a', b'b', 0]);
        column(
            "a",
            "Array(Nullable(UInt8))",
            &[2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 7, 0, 9],
        );
        column("d", "Decimal(20, 3)", &[5; 32]);
        out
    }

    fn rows(pieces: &[&[u8]]) -> Result<Vec<Vec<u8>>> {
        let mut rows = Vec::new();
        let mut each = |block: &Block<'_>| {
            for row in 0..block.rows {
                let mut out = Vec::new();
                block.columns.iter().for_each(|column| column.write(row, false, &mut out));
                rows.push(out);
            }
            Ok(())
        };
        let mut reader = Reader::default();
        for piece in pieces {
            reader.feed(piece, &mut each)?;
        }
        reader.finish(&mut each)?;
        Ok(rows)
    }

    #[test]
    fn values_are_told_apart_by_their_bytes() {
        let bytes = encoded();
        let read = rows(&[&bytes]).unwrap();
        let first = [
            &[1, 0][..],
            &[0, 2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b'],
            &[2, 0, 0, 0, 0, 0, 0, 0, 0, 7, 1],
            &[5; 16],
        ];
        let second = [&[2, 0][..], &[1], &[1, 0, 0, 0, 0, 0, 0, 0, 0, 9], &[5; 16]];
        assert_eq!(read, [first.concat(), second.concat()]);
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let bytes = encoded();
        for end in 1..bytes.len() {
            assert!(rows(&[&bytes[..end]]).is_err(), "{end}");
        }
        assert!(rows(&[&[1, 1, 1, b'x', 4, b'J', b'S', b'O', b'N', 0]]).is_err());
    }

    #[test]
    fn zeros_are_one_key_and_two_values() {
        let column = |value: f64| value.to_le_bytes();
        let written = |value: f64, as_key| {
            let bytes = column(value);
            let mut out = Vec::new();
            Column::Fixed { width: 8, float: true, bytes: &bytes }.write(0, as_key, &mut out);
            out
        };
        assert_eq!(written(0.0, true), written(-0.0, true));
        assert_ne!(written(0.0, false), written(-0.0, false));
        assert_eq!(written(f64::NAN, false), written(-f64::NAN, false));
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_are_put_together(size in 1usize..50) {
            let bytes = [encoded(), encoded()].concat();
            let pieces: Vec<_> = bytes.chunks(size).collect();
            prop_assert_eq!(rows(&pieces), rows(&[&bytes]));
        }

        #[test]
        fn no_bytes_make_it_panic(noise in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..120) {
            let mut bytes = encoded();
            let at = at.min(bytes.len());
            bytes.splice(at.., noise);
            let _ = rows(&[&bytes]);
        }
    }
}
