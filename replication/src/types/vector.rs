//! The vectors of pgvector, as arrays of numbers. Pure.

use super::conversion::Vector;
use super::scalar::{float, push_float32};
use super::{Fault, Field};

/// Most dimensions of a `sparsevec` whose zeros we write out: a mebibyte a value. pgvector allows a
/// milliard; such columns can be replicated as `String`.
pub(super) const SPARSE_DIMENSIONS_MAX: usize = 1 << 18;

/// Appends the numbers of a vector, and returns how many they are.
pub(crate) fn push_vector(kind: Vector, field: Field<'_>, out: &mut Vec<u8>) -> Result<usize, Fault> {
    match (kind, field) {
        (Vector::Single, Field::Binary(bytes)) => dense::<4>(bytes, f32::from_be_bytes, out),
        (Vector::Half, Field::Binary(bytes)) => {
            dense::<2>(bytes, |number| half(u16::from_be_bytes(number)), out)
        }
        (Vector::Sparse, Field::Binary(bytes)) => sparse_binary(bytes, out),
        (Vector::Single | Vector::Half, Field::Text(text)) => dense_text(text, out),
        (Vector::Sparse, Field::Text(text)) => sparse_text(text, out),
        (_, Field::Null) => Err(Fault::Null),
    }
}

/// The number of dimensions, two bytes that are not used, and the numbers (pgvector's source,
/// `vector_send`, `halfvec_send`).
fn dense<const N: usize>(
    bytes: &[u8],
    number: impl Fn([u8; N]) -> f32,
    out: &mut Vec<u8>,
) -> Result<usize, Fault> {
    let ([d0, d1, ..], numbers) = bytes.split_first_chunk::<4>().ok_or(Fault::Malformed)?;
    let (numbers, rest) = numbers.as_chunks::<N>();
    if !rest.is_empty() || numbers.len() != usize::from(u16::from_be_bytes([*d0, *d1])) {
        return Err(Fault::Malformed);
    }
    numbers.iter().for_each(|bytes| push_float32(number(*bytes), out));
    Ok(numbers.len())
}

/// `[1,2.5,-3]`.
fn dense_text(text: &[u8], out: &mut Vec<u8>) -> Result<usize, Fault> {
    let [b'[', numbers @ .., b']'] = text else { return Err(Fault::Malformed) };
    let mut count = 0;
    for number in numbers.split(|&byte| byte == b',') {
        push_float32(float(number)?, out);
        count += 1;
    }
    Ok(count)
}

/// The number of dimensions, that of the numbers, four bytes that are not used, the places (from 0) and
/// the numbers (pgvector's source, `sparsevec_send`).
fn sparse_binary(bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Fault> {
    let (head, rest) = bytes.split_first_chunk::<12>().ok_or(Fault::Malformed)?;
    let [d0, d1, d2, d3, c0, c1, c2, c3, ..] = *head;
    let zeros = Zeros::push(i32::from_be_bytes([d0, d1, d2, d3]).into(), out)?;
    let count = usize::try_from(i32::from_be_bytes([c0, c1, c2, c3])).map_err(|_| Fault::Malformed)?;
    let (pairs, odd) = rest.as_chunks::<4>();
    if !odd.is_empty() || Some(pairs.len()) != count.checked_mul(2) {
        return Err(Fault::Malformed);
    }
    let (places, numbers) = pairs.split_at(count);
    for (place, number) in places.iter().zip(numbers) {
        zeros.replace(i32::from_be_bytes(*place).into(), f32::from_be_bytes(*number), out)?;
    }
    Ok(zeros.count)
}

/// `{1:1.5,3:2}/5`, with places from 1.
fn sparse_text(text: &[u8], out: &mut Vec<u8>) -> Result<usize, Fault> {
    let text = std::str::from_utf8(text).map_err(|_| Fault::Malformed)?;
    let (pairs, dimensions) = text.rsplit_once('/').ok_or(Fault::Malformed)?;
    let zeros = Zeros::push(dimensions.parse().map_err(|_| Fault::Malformed)?, out)?;
    let pairs = pairs.strip_prefix('{').and_then(|pairs| pairs.strip_suffix('}')).ok_or(Fault::Malformed)?;
    for pair in pairs.split(',').filter(|pair| !pair.is_empty()) {
        let (place, number) = pair.split_once(':').ok_or(Fault::Malformed)?;
        let place: i64 = place.parse().map_err(|_| Fault::Malformed)?;
        zeros.replace(place.checked_sub(1).ok_or(Fault::Malformed)?, float(number.as_bytes())?, out)?;
    }
    Ok(zeros.count)
}

/// The zeros of a vector, at the end of a buffer.
struct Zeros {
    start: usize,
    count: usize,
}

impl Zeros {
    fn push(count: i64, out: &mut Vec<u8>) -> Result<Self, Fault> {
        let count = usize::try_from(count).map_err(|_| Fault::Malformed)?;
        if count > SPARSE_DIMENSIONS_MAX {
            return Err(Fault::Unrepresentable);
        }
        let start = out.len();
        out.resize(start + 4 * count, 0);
        Ok(Self { start, count })
    }

    fn replace(&self, place: i64, number: f32, out: &mut [u8]) -> Result<(), Fault> {
        let place =
            usize::try_from(place).ok().filter(|place| *place < self.count).ok_or(Fault::Malformed)?;
        let at = self.start + 4 * place;
        out[at..at + 4].copy_from_slice(&number.to_le_bytes());
        Ok(())
    }
}

/// A number of half precision (IEEE 754 binary16).
fn half(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10 & 0x1f);
    let fraction = u32::from(bits & 0x3ff);
    match exponent {
        // Below the least normal number: a multiple of 2^-24.
        0 => f32::from_bits(sign | (fraction as f32 / 16_777_216.0).to_bits()),
        0x1f => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 127 - 15) << 23 | fraction << 13),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(kind: Vector, field: Field<'_>) -> Result<Vec<f32>, Fault> {
        let mut out = Vec::new();
        let count = push_vector(kind, field, &mut out)?;
        assert_eq!(out.len(), 4 * count);
        Ok(out.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)).collect())
    }

    #[test]
    fn recorded_vectors() {
        // select vector_send('[1,-2.5,1e-7]'), halfvec_send('[1,-2.5,6e-8]'), sparsevec_send('{1:1.5,3:2}/5')
        let single = b"\0\x03\0\0\x3f\x80\0\0\xc0\x20\0\0\x33\xd6\xbf\x95";
        let half = b"\0\x03\0\0\x3c\x00\xc1\x00\x00\x01";
        let sparse = b"\0\0\0\x05\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\x02\x3f\xc0\0\0\x40\0\0\0";
        for (kind, binary, text, numbers) in [
            (Vector::Single, &single[..], "[1,-2.5,1e-07]", vec![1.0, -2.5, 1e-7]),
            (Vector::Half, &half[..], "[1,-2.5,5.9604645e-08]", vec![1.0, -2.5, 5.960_464_5e-8]),
            (Vector::Sparse, &sparse[..], "{1:1.5,3:2}/5", vec![1.5, 0.0, 2.0, 0.0, 0.0]),
        ] {
            assert_eq!(pushed(kind, Field::Binary(binary)).as_ref(), Ok(&numbers), "{kind:?}");
            assert_eq!(pushed(kind, Field::Text(text.as_bytes())).as_ref(), Ok(&numbers), "{kind:?}");
            assert_eq!(pushed(kind, Field::Binary(&binary[..binary.len() - 1])), Err(Fault::Malformed));
        }
        assert_eq!(pushed(Vector::Sparse, Field::Text(b"{}/2")), Ok(vec![0.0, 0.0]));
    }

    #[test]
    fn halves_are_the_numbers_they_stand_for() {
        for (bits, number) in [
            (0x0000, 0.0),
            (0x0400, 6.103_515_6e-5),
            (0x03ff, 6.097_555e-5),
            (0x7bff, 65504.0),
            (0x7c00, f32::INFINITY),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
        ] {
            assert_eq!(half(bits), number, "{bits:x}");
        }
        assert!(half(0x8000).is_sign_negative() && half(0x7e00).is_nan());
    }

    #[test]
    fn sparse_vectors_are_not_written_out_without_limit() {
        assert_eq!(pushed(Vector::Sparse, Field::Text(b"{1:1}/1000000000")), Err(Fault::Unrepresentable));
        let mut head = 1_000_000_000i32.to_be_bytes().to_vec();
        head.extend([0; 8]);
        assert_eq!(pushed(Vector::Sparse, Field::Binary(&head)), Err(Fault::Unrepresentable));
        for bad in ["", "[", "{1:1}", "{1}/2", "{3:1}/2", "{0:1}/2", "{1:x}/2", "{1:1}/-1"] {
            assert_eq!(pushed(Vector::Sparse, Field::Text(bad.as_bytes())), Err(Fault::Malformed), "{bad}");
        }
    }
}
