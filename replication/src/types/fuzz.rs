//! An entry point for fuzzers: any bytes as a value of any type. Pure.
//!
//! Values come from the source's own send and output functions, but a transcoder must not fall over
//! whatever they are: never a panic, and no more memory than the value needs.

use super::conversion::{DIMENSIONS_MAX, IntegerSource, Rendered, Vector};
use super::vector::SPARSE_DIMENSIONS_MAX;
use super::{Conversion, Field, TimeRange};
use crate::column::Column;

/// Bytes that a sparse vector may become, however short it came: its zeros are not sent.
const SPARSE_BYTES_MAX: usize = 4 * SPARSE_DIMENSIONS_MAX + 16;
/// Bytes that a number may become, however short it came: PostgreSQL does not send zeros either, of
/// which 131072 may stand before the point and 16383 behind it.
const NUMBER_BYTES_MAX: usize = 160 << 10;
/// Bytes that any other value may become, however short it came.
const VALUE_BYTES_MAX: usize = 1 << 10;
/// Bytes that each byte of the input may become beyond that: the ends of the arrays that it closes, and
/// elements of the widest type.
const GROWTH_MAX: usize = 8 * DIMENSIONS_MAX as usize + 64;

/// Transcodes `input`, whose first byte chooses the conversion and whose second one the form, the
/// dimensions and the policy. Returns whether it was a value of the type.
///
/// # Panics
/// If the transcoder does, if it takes too much memory, or if a row that is taken back leaves a trace:
/// these are what is looked for.
#[allow(clippy::panic)] // a fuzzer finds what panics
pub fn transcode(input: &[u8]) -> bool {
    let [choice, shape, value @ ..] = input else { return false };
    let conversion = conversion(*choice, *shape);
    let field = if shape & 1 == 0 { Field::Text(value) } else { Field::Binary(value) };
    let mut column = Column::new(&conversion, shape & 2 == 0, TimeRange::NARROW);
    column.push_default();
    column.finish_row();
    let before = encoded(&column);
    let pushed = column.push(field).is_ok();
    let limit = before.len() + bytes_max(&conversion, value.len());
    assert!(column.encoded_len() <= limit, "{conversion:?}: {} of {}", column.encoded_len(), value.len());
    if pushed {
        assert_eq!(column.count(), 2, "{conversion:?}");
        assert_eq!(encoded(&column).len(), column.encoded_len(), "{conversion:?}");
    }
    column.abort_row();
    assert!(encoded(&column) == before, "{conversion:?}: a row that was taken back left a trace");
    pushed
}

/// Bytes that the value in `input` may become at most.
pub fn transcoded_bytes_max(input: &[u8]) -> usize {
    let [choice, shape, value @ ..] = input else { return 0 };
    bytes_max(&conversion(*choice, *shape), value.len())
}

fn bytes_max(conversion: &Conversion, length: usize) -> usize {
    let elements = if conversion.is_array() { 1 + length / 4 } else { 1 };
    let each = match conversion.innermost() {
        _ if is_sparse(conversion) => SPARSE_BYTES_MAX,
        Conversion::NumericText | Conversion::Decimal { .. } => NUMBER_BYTES_MAX,
        _ => VALUE_BYTES_MAX,
    };
    GROWTH_MAX * (length + 1) + elements * each
}

fn is_sparse(conversion: &Conversion) -> bool {
    match conversion {
        Conversion::Vector(kind) => *kind == Vector::Sparse,
        Conversion::OrNull(inner) | Conversion::Array(inner) => is_sparse(inner),
        Conversion::Nested { element, .. } => is_sparse(element),
        _ => false,
    }
}

fn encoded(column: &Column) -> Vec<u8> {
    let mut out = Vec::new();
    column.encode(&mut out);
    out
}

fn conversion(choice: u8, shape: u8) -> Conversion {
    let scalar = scalar(choice);
    let depth = shape >> 2 & 7;
    let conversion = match depth {
        0 => scalar,
        1 if shape & 0x20 == 0 => Conversion::Array(Box::new(scalar)),
        1..=DIMENSIONS_MAX => {
            let delimiter = if shape & 0x20 == 0 { ',' } else { ';' };
            Conversion::Nested { element: Box::new(scalar), depth, delimiter }
        }
        // An array of a domain over an array.
        _ => Conversion::Array(Box::new(Conversion::Array(Box::new(scalar)))),
    };
    if shape & 0x40 == 0 { conversion } else { conversion.under(super::OnUnrepresentable::Null) }
}

fn scalar(choice: u8) -> Conversion {
    let decimal = |precision, scale| Conversion::Decimal { precision, scale };
    let integer = |from, bits, signed| Conversion::Integer { from, bits, signed };
    let all = [
        Conversion::Bool,
        Conversion::Int16,
        Conversion::Int32,
        Conversion::Int64,
        Conversion::UInt32,
        Conversion::UInt64,
        Conversion::Float32,
        Conversion::Float64,
        decimal(9, 2),
        decimal(18, 18),
        decimal(38, 10),
        decimal(76, 38),
        Conversion::NumericText,
        Conversion::Text,
        Conversion::Bytes,
        Conversion::Jsonb,
        Conversion::Uuid,
        Conversion::Date,
        Conversion::Timestamp,
        Conversion::Rendered(Rendered::Char),
        Conversion::Rendered(Rendered::Time),
        Conversion::Rendered(Rendered::TimeTz),
        Conversion::Rendered(Rendered::Inet),
        Conversion::Rendered(Rendered::MacAddress),
        Conversion::Rendered(Rendered::Bits),
        Conversion::Rendered(Rendered::Hstore),
        Conversion::TextForm,
        Conversion::Vector(Vector::Single),
        Conversion::Vector(Vector::Half),
        Conversion::Vector(Vector::Sparse),
        integer(IntegerSource::Integer, 8, true),
        integer(IntegerSource::Integer, 256, false),
        integer(IntegerSource::Numeric, 64, false),
        integer(IntegerSource::Numeric, 256, true),
        Conversion::NarrowDate,
        Conversion::ScaledTimestamp { scale: 0 },
        Conversion::ScaledTimestamp { scale: 9 },
        Conversion::Seconds,
        Conversion::Time64 { scale: 3 },
        Conversion::Ipv4,
        Conversion::Ipv6,
    ];
    all[usize::from(choice) % all.len()].clone()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What values look like: the rest is found by chance.
    fn likely() -> impl Strategy<Value = Vec<u8>> {
        let words: Vec<&[u8]> = vec![
            b"{",
            b"}",
            b"\"",
            b"\\",
            b",",
            b";",
            b"NULL",
            b"{{",
            b"}}",
            b"[0:1]=",
            b"1",
            b"-",
            b".",
            b":",
            b"/",
            b"2001-02-03",
            b" 04:05:06",
            b"+00",
            b" BC",
            b"infinity",
            b"NaN",
            b"t",
            b"[",
            b"]",
            b"\\x00",
            b"\x01",
            b"\0\0\0\0",
            b"\0\0\0\x01",
            b"\0\0\0\x02",
            b"\xff\xff\xff\xff",
            b"\x7f\xff\xff\xff",
            b"\x00\x04",
            b"::",
        ];
        let part = prop_oneof![
            4 => proptest::sample::select(words).prop_map(<[u8]>::to_vec),
            1 => proptest::collection::vec(any::<u8>(), 0..6),
        ];
        proptest::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn no_bytes_make_a_transcoder_panic(choice: u8, shape: u8, value in likely()) {
            transcode(&[&[choice, shape][..], &value].concat());
        }
    }

    #[test]
    fn what_is_a_value_is_taken() {
        let shape = |depth: u8, binary: u8| depth << 2 | binary;
        assert!(transcode(&[&[2, shape(0, 0)][..], b"-7"].concat()));
        assert!(transcode(&[&[2, shape(2, 0)][..], b"[1:1][0:1]={{1,NULL}}"].concat()));
        assert!(transcode(&[&[2, shape(7, 0)][..], b"{\"{1,2}\",NULL}"].concat()));
        assert!(transcode(&[&[17, shape(2, 0) | 0x40][..], b"{{infinity}}"].concat()));
        assert!(transcode(&[&[17, shape(2, 0) | 0x40][..], b"{2001-01-01}"].concat()), "other dimensions");
        assert!(!transcode(&[&[17, shape(2, 0)][..], b"{{infinity}}"].concat()));
        assert!(!transcode(b""));
    }
}
