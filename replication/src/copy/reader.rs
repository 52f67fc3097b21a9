//! Reads the binary form of COPY, in pieces of any size. Pure; never panics, whatever it is fed.
//!
//! The form (PostgreSQL documentation, COPY, binary format): a signature, flags and an extension; for
//! each row the number of its fields (`int16`) and each field's length (`int32`, -1 for NULL) and
//! bytes; at the end a row of -1 fields.

use millrace_terms::{Code, Error, Result};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// Signature, flags, length of the extension.
const HEADER_BYTES: usize = 19;
/// Flags that a reader must know to go on: none is known (bit 16 would be OIDs, of old servers).
const CRITICAL_FLAGS: u32 = 0xffff_0000;
/// PostgreSQL's own limit of a value, and of a row on the wire.
const FIELD_BYTES_MAX: usize = 1 << 30;

/// Where the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    /// Bytes of the header's extension that are still to be skipped.
    Extension(usize),
    Rows,
    Ended,
}

/// An incremental reader of one COPY.
#[derive(Debug)]
pub struct Reader {
    columns: usize,
    state: State,
    /// What came, but is not a whole row yet. A piece from the server normally is exactly one row, so
    /// this is normally empty.
    pending: Vec<u8>,
}

/// One row: its bytes are known to be whole.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The fields with their lengths.
    body: &'a [u8],
}

impl<'a> Row<'a> {
    /// Its bytes, to be kept.
    pub(crate) fn body(self) -> &'a [u8] {
        self.body
    }

    /// The row of bytes that were kept.
    pub(crate) fn of_body(body: &'a [u8]) -> Self {
        Self { body }
    }

    /// The fields in order; `None` for NULL.
    #[inline]
    pub fn fields(self) -> impl Iterator<Item = Option<&'a [u8]>> {
        let mut rest = self.body;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<4>()?;
            match usize::try_from(i32::from_be_bytes(*length)) {
                Ok(length) => {
                    let (field, after) = after.split_at_checked(length)?;
                    rest = after;
                    Some(Some(field))
                }
                Err(_) => {
                    rest = after;
                    Some(None)
                }
            }
        })
    }
}

/// What stands at the front of some bytes.
enum Front {
    /// Not enough bytes to tell.
    Incomplete,
    /// Something of this many bytes, and what follows it.
    Skip(usize, State),
    /// A row of this many bytes, the number of fields included.
    Row(usize),
}

impl Reader {
    /// A reader of rows of so many fields.
    pub fn new(columns: usize) -> Self {
        Self { columns, state: State::Header, pending: Vec::new() }
    }

    /// Reads a piece: calls `each` with every row that is whole now.
    ///
    /// # Errors
    /// `PROTOCOL_VIOLATION`, and whatever `each` returns. The reader must not be fed after that.
    #[inline]
    pub fn feed(&mut self, piece: &[u8], mut each: impl FnMut(Row<'_>) -> Result<()>) -> Result<()> {
        if self.pending.is_empty() {
            let used = self.walk(piece, &mut each)?;
            self.pending.extend_from_slice(&piece[used..]);
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(piece);
        let used = self.walk(&pending, &mut each)?;
        pending.drain(..used);
        self.pending = pending;
        Ok(())
    }

    /// Says whether the COPY was read to its end.
    ///
    /// # Errors
    /// `PROTOCOL_VIOLATION` if it was cut short.
    pub fn finish(&self) -> Result<()> {
        if self.state == State::Ended { Ok(()) } else { Err(violation("ended before its last row")) }
    }

    /// Reads what is whole; returns the bytes used.
    #[inline]
    fn walk(&mut self, bytes: &[u8], each: &mut impl FnMut(Row<'_>) -> Result<()>) -> Result<usize> {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            match self.front(rest)? {
                Front::Incomplete => return Ok(used),
                Front::Skip(length, state) => {
                    used += length;
                    self.state = state;
                }
                Front::Row(length) => {
                    each(Row { body: &rest[2..length] })?;
                    used += length;
                }
            }
        }
    }

    #[inline]
    fn front(&self, bytes: &[u8]) -> Result<Front> {
        match self.state {
            State::Rows => self.row(bytes),
            State::Header => header(bytes),
            State::Extension(left) => Ok(match bytes.len().min(left) {
                skipped if skipped == left => Front::Skip(skipped, State::Rows),
                0 => Front::Incomplete,
                skipped => Front::Skip(skipped, State::Extension(left - skipped)),
            }),
            State::Ended if bytes.is_empty() => Ok(Front::Incomplete),
            State::Ended => Err(violation("went on after its last row")),
        }
    }

    #[inline]
    fn row(&self, bytes: &[u8]) -> Result<Front> {
        let Some((count, _)) = bytes.split_first_chunk::<2>() else { return Ok(Front::Incomplete) };
        let count = i16::from_be_bytes(*count);
        if count == -1 {
            return Ok(Front::Skip(2, State::Ended));
        }
        if usize::try_from(count) != Ok(self.columns) {
            return Err(violation("has a row with another number of fields than was asked for"));
        }
        let mut at = 2;
        for _ in 0..self.columns {
            let Some((length, _)) = bytes[at..].split_first_chunk::<4>() else {
                return Ok(Front::Incomplete);
            };
            at += 4;
            match i32::from_be_bytes(*length) {
                -1 => {}
                length => match usize::try_from(length) {
                    Ok(length) if length <= FIELD_BYTES_MAX => at += length,
                    _ => return Err(violation("has a field of an impossible length")),
                },
            }
            if at > bytes.len() {
                return Ok(Front::Incomplete);
            }
        }
        Ok(Front::Row(at))
    }
}

fn header(bytes: &[u8]) -> Result<Front> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return Err(violation("does not begin with its signature"));
    }
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(Front::Incomplete);
    };
    let [.., f0, f1, f2, f3, e0, e1, e2, e3] = *header;
    if u32::from_be_bytes([f0, f1, f2, f3]) & CRITICAL_FLAGS != 0 {
        return Err(violation("has a header with unknown flags"));
    }
    match usize::try_from(i32::from_be_bytes([e0, e1, e2, e3])) {
        Ok(extension) => Ok(Front::Skip(HEADER_BYTES, State::Extension(extension))),
        Err(_) => Err(violation("has a header extension of an impossible length")),
    }
}

#[cold]
fn violation(what: &str) -> Error {
    Error::new(Code::ProtocolViolation, format!("the source's binary COPY {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Rows = Vec<Vec<Option<Vec<u8>>>>;

    fn encode(rows: &Rows, extension: &[u8]) -> Vec<u8> {
        let mut out = SIGNATURE.to_vec();
        out.extend([0; 4]);
        out.extend((extension.len() as u32).to_be_bytes());
        out.extend(extension);
        for row in rows {
            out.extend((row.len() as i16).to_be_bytes());
            for field in row {
                match field {
                    None => out.extend((-1i32).to_be_bytes()),
                    Some(field) => {
                        out.extend((field.len() as i32).to_be_bytes());
                        out.extend(field);
                    }
                }
            }
        }
        out.extend((-1i16).to_be_bytes());
        out
    }

    fn read(columns: usize, pieces: &[&[u8]]) -> Result<Rows> {
        let mut reader = Reader::new(columns);
        let mut rows = Rows::new();
        for piece in pieces {
            reader.feed(piece, |row| {
                rows.push(row.fields().map(|field| field.map(<[u8]>::to_vec)).collect());
                Ok(())
            })?;
        }
        reader.finish().map(|()| rows)
    }

    proptest! {
        #[test]
        fn rows_are_read_whatever_the_pieces(
            rows in proptest::collection::vec(
                proptest::collection::vec(proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)), 3), 0..10),
            extension in proptest::collection::vec(any::<u8>(), 0..5),
            size in 1usize..40,
        ) {
            let bytes = encode(&rows, &extension);
            let pieces: Vec<_> = bytes.chunks(size).collect();
            prop_assert_eq!(read(3, &pieces), Ok(rows));
        }

        #[test]
        fn no_bytes_make_it_panic(
            noise in proptest::collection::vec(any::<u8>(), 0..100), columns in 0usize..4, at in 0usize..100, size in 1usize..40,
        ) {
            let mut bytes = encode(&vec![vec![None; columns]; 3], &[]);
            let at = at.min(bytes.len());
            bytes.splice(at.., noise);
            let pieces: Vec<_> = bytes.chunks(size).collect();
            let _ = read(columns, &pieces);
        }
    }

    #[test]
    fn what_is_not_a_whole_copy_is_refused() {
        let whole = encode(&vec![vec![Some(b"a".to_vec())]], &[]);
        assert!(read(1, &[&whole]).is_ok());
        for end in 0..whole.len() {
            assert!(read(1, &[&whole[..end]]).is_err(), "{end}");
        }
        for (columns, bytes) in [
            (2, whole.clone()),
            (1, [&whole[..], b"x"].concat()),
            (1, [b"x", &whole[1..]].concat()),
            (1, [&whole[..HEADER_BYTES], &[0, 1, 0xff, 0xff, 0xff, 0xfe]].concat()),
            (1, [&whole[..HEADER_BYTES], &[0, 1, 0x40, 0, 0, 1]].concat()),
        ] {
            assert_eq!(read(columns, &[&bytes]).unwrap_err().code(), Code::ProtocolViolation);
        }
    }
}
