//! Types that hold every value of another: what happens to a column whose type changed, and to values
//! that the log tells in the narrower type. Pure.

use crate::types::{Conversion, Field};

/// OIDs of `pg_type` that never change.
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;
const BPCHAR: u32 = 1042;
const VARCHAR: u32 = 1043;

/// How a value of a narrower type becomes one of the column's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Widening {
    /// Both forms are the same.
    Same,
    /// An integer: its text is the same, its binary form grows to so many bytes.
    Integer(usize),
    /// A `float4` as a `float8`: neither its digits nor its bytes are the same.
    Float,
}

/// From a type to another, by their OIDs. None if values of the one cannot be taken for the other's.
pub(crate) fn widening(from: u32, to: u32) -> Option<Widening> {
    match (from, to) {
        (INT2, INT4) => Some(Widening::Integer(4)),
        (INT2 | INT4, INT8) => Some(Widening::Integer(8)),
        (FLOAT4, FLOAT8) => Some(Widening::Float),
        (TEXT | VARCHAR | BPCHAR, TEXT | VARCHAR | BPCHAR) => Some(Widening::Same),
        (from, to) if from == to => Some(Widening::Same),
        _ => None,
    }
}

/// Whether ClickHouse can change a column in place, and every value keeps its meaning.
pub(super) fn is_wider(from: &Conversion, to: &Conversion) -> bool {
    use Conversion::{Decimal, Float32, Float64, Int16, Int32, Int64, OrNull};
    match (from, to) {
        (OrNull(from), OrNull(to)) => is_wider(from, to),
        (Int16, Int32 | Int64) | (Int32, Int64) | (Float32, Float64) => true,
        (Decimal { precision, scale }, Decimal { precision: wider, scale: finer }) => {
            finer >= scale && wider.saturating_sub(*finer) >= precision.saturating_sub(*scale)
        }
        _ => false,
    }
}

impl Widening {
    /// The value as the wider type has it; `scratch` holds its bytes. A value that cannot be read is left
    /// to the transcoder, which refuses it.
    pub(crate) fn apply<'a>(self, field: Field<'a>, scratch: &'a mut Vec<u8>) -> Field<'a> {
        scratch.clear();
        match (self, field) {
            (Widening::Integer(width), Field::Binary(bytes)) if bytes.len() < width => {
                let sign = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
                scratch.resize(width - bytes.len(), sign);
                scratch.extend_from_slice(bytes);
                Field::Binary(scratch)
            }
            (Widening::Float, Field::Binary(bytes)) => match bytes.try_into() {
                Ok(four) => {
                    scratch.extend_from_slice(&f64::from(f32::from_be_bytes(four)).to_be_bytes());
                    Field::Binary(scratch)
                }
                Err(_) => field,
            },
            (Widening::Float, Field::Text(text)) => {
                match std::str::from_utf8(text).ok().and_then(|text| text.parse::<f32>().ok()) {
                    Some(value) if value.is_finite() => {
                        scratch.extend_from_slice(format!("{:?}", f64::from(value)).as_bytes());
                        Field::Text(scratch)
                    }
                    _ => field,
                }
            }
            _ => field,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_narrower_type_keep_their_meaning() {
        let mut scratch = Vec::new();
        let wide = widening(INT2, INT8).unwrap();
        assert_eq!(
            wide.apply(Field::Binary(&[0xff, 0xfe]), &mut scratch),
            Field::Binary(&(-2i64).to_be_bytes())
        );
        assert_eq!(wide.apply(Field::Binary(&[0, 7]), &mut scratch), Field::Binary(&7i64.to_be_bytes()));
        assert_eq!(wide.apply(Field::Text(b"-2"), &mut scratch), Field::Text(b"-2"));
        let float = widening(FLOAT4, FLOAT8).unwrap();
        let exact = f64::from(0.1f32);
        assert_eq!(
            float.apply(Field::Text(b"0.1"), &mut scratch),
            Field::Text(format!("{exact:?}").as_bytes())
        );
        let binary = 0.1f32.to_be_bytes();
        assert_eq!(float.apply(Field::Binary(&binary), &mut scratch), Field::Binary(&exact.to_be_bytes()));
        assert_eq!(float.apply(Field::Text(b"NaN"), &mut scratch), Field::Text(b"NaN"));
        assert_eq!(widening(INT8, INT4), None);
        assert_eq!(widening(INT4, TEXT), None);
    }

    #[test]
    fn decimals_grow_on_both_sides_of_the_point() {
        let decimal = |precision, scale| Conversion::Decimal { precision, scale };
        assert!(is_wider(&decimal(10, 2), &decimal(12, 2)));
        assert!(is_wider(&decimal(10, 2), &decimal(12, 4)));
        assert!(!is_wider(&decimal(10, 2), &decimal(10, 4)), "fewer digits before the point");
        assert!(!is_wider(&decimal(10, 2), &decimal(12, 1)));
        assert!(!is_wider(&Conversion::Int64, &Conversion::Int32));
        assert!(!is_wider(&Conversion::Int32, &Conversion::Text));
    }
}
