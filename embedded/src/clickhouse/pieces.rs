//! A result that comes in pieces: the engine formats each piece as if it were a result of its own, so
//! what a format writes at the beginning comes again with each.
//!
//! Pure.

/// What stands at the beginning of each piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefix {
    /// Nothing.
    None,
    /// So many lines.
    Lines(usize),
    /// RowBinary's names, and with `types` the types.
    Binary { types: bool },
}

/// What `format` puts at the beginning, `None` for formats that cannot be sent in pieces (JSON's
/// closing bracket, Parquet's footer).
pub(super) fn prefix_of(format: &str) -> Option<Prefix> {
    Some(match format {
        "Native" | "RowBinary" | "TabSeparated" | "TSV" | "TabSeparatedRaw" | "TSVRaw" | "CSV"
        | "JSONEachRow" | "JSONLines" | "NDJSON" | "JSONCompactEachRow" | "JSONStringsEachRow" => {
            Prefix::None
        }
        "TabSeparatedWithNames" | "TSVWithNames" | "CSVWithNames" | "JSONCompactEachRowWithNames" => {
            Prefix::Lines(1)
        }
        "TabSeparatedWithNamesAndTypes"
        | "TSVWithNamesAndTypes"
        | "CSVWithNamesAndTypes"
        | "JSONCompactEachRowWithNamesAndTypes" => Prefix::Lines(2),
        "RowBinaryWithNames" => Prefix::Binary { types: false },
        "RowBinaryWithNamesAndTypes" => Prefix::Binary { types: true },
        _ => return None,
    })
}

impl Prefix {
    /// The piece without its beginning.
    pub fn strip(self, piece: &[u8]) -> &[u8] {
        let length = match self {
            Prefix::None => Some(0),
            Prefix::Lines(count) => {
                let ends = piece.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(i, _)| i + 1);
                count.checked_sub(1).map_or(Some(0), |last| ends.clone().nth(last))
            }
            Prefix::Binary { types } => binary_length(piece, types),
        };
        // A piece that is shorter than its own beginning has no rows.
        &piece[length.unwrap_or(piece.len())..]
    }
}

fn binary_length(piece: &[u8], types: bool) -> Option<usize> {
    let (columns, mut at) = varint(piece, 0)?;
    for _ in 0..columns * if types { 2 } else { 1 } {
        let (length, start) = varint(piece, at)?;
        at = start.checked_add(usize::try_from(length).ok()?)?;
    }
    (at <= piece.len()).then_some(at)
}

/// LEB128: the value, and where the next byte is.
fn varint(bytes: &[u8], mut at: usize) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let byte = *bytes.get(at)?;
        at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_beginning_is_taken_off() {
        assert_eq!(Prefix::None.strip(b"abc"), b"abc");
        assert_eq!(Prefix::Lines(2).strip(b"a\tb\nInt32\tString\n1\tx\n"), b"1\tx\n");
        assert_eq!(Prefix::Lines(1).strip(b"no line"), b"");
        assert_eq!(Prefix::Binary { types: true }.strip(b"\x01\x01a\x05UInt8\x07"), b"\x07");
        assert_eq!(Prefix::Binary { types: false }.strip(b"\x01\x01a\x05"), b"\x05");
        assert_eq!(Prefix::Binary { types: true }.strip(b"\x02\x01"), b"");
        assert_eq!(prefix_of("JSON"), None);
    }
}
