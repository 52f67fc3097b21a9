//! Entry points for fuzzers: any bytes into what reads bytes of a source. Pure.
//!
//! The targets in `fuzz/` call them, and a loop of seeded mutations in `tests/fuzz.rs`. Each says
//! whether the bytes were what it reads, and panics at what is looked for.

use bytes::Bytes;
use millrace_terms::Result;

use crate::copy::Reader;
use crate::pgoutput::{Message, Old, Tuple, decode};
pub use crate::types::fuzz::{transcode, transcoded_bytes_max};

/// Decodes `input` as one message of pgoutput.
///
/// # Panics
/// If the decoder does, or if a tuple cannot be walked to its end.
pub fn pgoutput(input: &[u8]) -> bool {
    let Ok(message) = decode(Bytes::copy_from_slice(input)) else { return false };
    let old = |old: &Old| walk(old.tuple());
    match &message {
        Message::Insert(insert) => walk(&insert.new),
        Message::Update(update) => {
            walk(&update.new);
            update.old.iter().for_each(old);
        }
        Message::Delete(delete) => old(&delete.old),
        _ => {}
    }
    true
}

fn walk(tuple: &Tuple) {
    assert_eq!(tuple.datums().count(), tuple.columns());
}

/// Reads `input` as a binary COPY: its first byte is the number of columns, its second how long the
/// pieces are in which the rest comes.
///
/// # Panics
/// If the reader does, or if what it reads depends on the pieces.
pub fn copy(input: &[u8]) -> bool {
    let [columns, length, stream @ ..] = input else { return false };
    let pieces = read(usize::from(*columns), stream.chunks(usize::from(*length) + 1));
    let whole = read(usize::from(*columns), std::iter::once(stream));
    assert_eq!(whole.as_ref().ok(), pieces.as_ref().ok(), "in pieces of {} bytes", usize::from(*length) + 1);
    whole.is_ok()
}

/// Number of rows, of fields, and of their bytes.
fn read<'a>(columns: usize, pieces: impl Iterator<Item = &'a [u8]>) -> Result<(usize, usize, usize)> {
    let mut reader = Reader::new(columns);
    let mut read = (0, 0, 0);
    for piece in pieces {
        reader.feed(piece, |row| {
            let fields = row.fields().collect::<Vec<_>>();
            assert_eq!(fields.len(), columns);
            let bytes = fields.iter().flatten().map(|field| field.len()).sum::<usize>();
            read = (read.0 + 1, read.1 + fields.len(), read.2 + bytes);
            Ok(())
        })?;
    }
    reader.finish()?;
    Ok(read)
}
