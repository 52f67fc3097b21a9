//! One value of a scalar type, in either form, appended to a column's bytes. Pure.

use super::conversion::IntegerSource;
use super::limbs::{Accumulator, U256};
use super::numeric::{push_decimal, push_text_binary, unscaled};
use super::time::{
    TimeRange, push_date, push_narrow_date, push_scaled_timestamp, push_seconds, push_time64, push_timestamp,
};
use super::{Conversion, Fault, Field, address, render};

/// Version in front of the binary form of `jsonb` and others (PostgreSQL source, `jsonb.c`:
/// `jsonb_send`).
const JSONB_VERSION: u8 = 1;

/// Appends the length of a string, a LEB128 number, as ClickHouse has it in front of the bytes.
#[inline]
pub(crate) fn push_length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// Appends a string.
#[inline]
pub(crate) fn push_string(bytes: &[u8], out: &mut Vec<u8>) {
    push_length(bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Appends the default of a scalar type: zero, or the empty string. It stands under every NULL.
#[inline]
pub(crate) fn push_default(conversion: &Conversion, out: &mut Vec<u8>) {
    // The empty string is its length alone.
    let width = conversion.width().unwrap_or(1);
    out.resize(out.len() + width, 0);
}

/// Appends one value, which is not NULL, of a scalar type.
///
/// After a fault the column may hold a part of the value: the row must be aborted.
#[inline]
pub(crate) fn push_scalar(
    conversion: &Conversion,
    field: Field<'_>,
    range: TimeRange,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    match conversion {
        Conversion::Decimal { precision, scale } => push_decimal(field, *precision, *scale, out),
        Conversion::Date => push_date(field, range, out),
        Conversion::Timestamp => push_timestamp(field, range, out),
        Conversion::NarrowDate => push_narrow_date(field, out),
        Conversion::ScaledTimestamp { scale } => push_scaled_timestamp(field, *scale, range, out),
        Conversion::Seconds => push_seconds(field, out),
        Conversion::Time64 { scale } => push_time64(field, *scale, out),
        Conversion::Integer { from, bits, signed } => push_integer(*from, field, *bits, *signed, out),
        Conversion::OrNull(inner) => push_scalar(inner, field, range, out),
        _ => match field {
            Field::Binary(bytes) => push_binary(conversion, bytes, out),
            Field::Text(bytes) => push_text(conversion, bytes, out),
            Field::Null => Err(Fault::Null),
        },
    }
}

#[inline]
fn push_binary(conversion: &Conversion, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    match conversion {
        Conversion::Bool => match bytes {
            [value @ (0 | 1)] => out.push(*value),
            _ => return Err(Fault::Malformed),
        },
        Conversion::Int16 => reversed::<2>(bytes, out)?,
        Conversion::Int32 | Conversion::UInt32 => reversed::<4>(bytes, out)?,
        Conversion::Int64 | Conversion::UInt64 => reversed::<8>(bytes, out)?,
        Conversion::Float32 => push_float32(f32::from_be_bytes(exactly(bytes)?), out),
        Conversion::Float64 => push_float64(f64::from_be_bytes(exactly(bytes)?), out),
        Conversion::NumericText => push_text_binary(bytes, out)?,
        Conversion::Text | Conversion::Bytes => push_string(bytes, out),
        Conversion::Jsonb => match bytes {
            [JSONB_VERSION, json @ ..] => push_string(json, out),
            _ => return Err(Fault::Malformed),
        },
        Conversion::Uuid => push_uuid(exactly(bytes)?, out),
        Conversion::Rendered(kind) => render::push_binary(*kind, bytes, out)?,
        Conversion::Ipv4 => address::push_v4_binary(bytes, out)?,
        Conversion::Ipv6 => address::push_v6_binary(bytes, out)?,
        _ => return Err(Fault::Form),
    }
    Ok(())
}

#[inline]
fn push_text(conversion: &Conversion, text: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    match conversion {
        Conversion::Bool => match text {
            b"t" => out.push(1),
            b"f" => out.push(0),
            _ => return Err(Fault::Malformed),
        },
        Conversion::Int16 => {
            let value = i16::try_from(integer(text)?).map_err(|_| Fault::Malformed)?;
            out.extend_from_slice(&value.to_le_bytes());
        }
        Conversion::Int32 => {
            let value = i32::try_from(integer(text)?).map_err(|_| Fault::Malformed)?;
            out.extend_from_slice(&value.to_le_bytes());
        }
        Conversion::Int64 => out.extend_from_slice(&integer(text)?.to_le_bytes()),
        Conversion::UInt32 => out.extend_from_slice(&unsigned::<u32>(text)?.to_le_bytes()),
        Conversion::UInt64 => out.extend_from_slice(&unsigned::<u64>(text)?.to_le_bytes()),
        Conversion::Float32 => push_float32(float(text)?, out),
        Conversion::Float64 => push_float64(float(text)?, out),
        Conversion::NumericText | Conversion::Text | Conversion::Jsonb | Conversion::TextForm => {
            push_string(text, out);
        }
        Conversion::Bytes => push_hex(text, out)?,
        Conversion::Uuid => push_uuid(uuid(text)?, out),
        Conversion::Rendered(kind) => render::push_text(*kind, text, out),
        Conversion::Ipv4 => address::push_v4_text(text, out)?,
        Conversion::Ipv6 => address::push_v6_text(text, out)?,
        _ => return Err(Fault::Form),
    }
    Ok(())
}

/// Appends an integer of another width than the source's; one that does not fit is refused.
fn push_integer(
    from: IntegerSource,
    field: Field<'_>,
    bits: u16,
    signed: bool,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let (negative, magnitude) = match (from, field) {
        (IntegerSource::Integer, Field::Binary(bytes)) => {
            let value = match bytes.len() {
                2 => i16::from_be_bytes(exactly(bytes)?).into(),
                4 => i32::from_be_bytes(exactly(bytes)?).into(),
                _ => i64::from_be_bytes(exactly(bytes)?),
            };
            (value < 0, U256::ZERO.mul_add(1, value.unsigned_abs()).ok_or(Fault::Unrepresentable)?)
        }
        _ => unscaled::<U256>(field, 0)?,
    };
    if !magnitude.fits(negative, bits, signed) {
        return Err(Fault::Unrepresentable);
    }
    let start = out.len();
    magnitude.write(negative, 32, out);
    out.truncate(start + usize::from(bits / 8));
    Ok(())
}

#[inline]
fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Fault> {
    bytes.try_into().map_err(|_| Fault::Malformed)
}

/// PostgreSQL sends the big end first, ClickHouse reads the little end first.
#[inline]
fn reversed<const N: usize>(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut value = exactly::<N>(bytes)?;
    value.reverse();
    out.extend_from_slice(&value);
    Ok(())
}

/// The text form of NaN does not tell which NaN: neither do we.
#[inline]
pub(super) fn push_float32(value: f32, out: &mut Vec<u8>) {
    let value = if value.is_nan() { f32::NAN } else { value };
    out.extend_from_slice(&value.to_le_bytes());
}

#[inline]
fn push_float64(value: f64, out: &mut Vec<u8>) {
    let value = if value.is_nan() { f64::NAN } else { value };
    out.extend_from_slice(&value.to_le_bytes());
}

#[inline]
pub(super) fn float<T: std::str::FromStr>(text: &[u8]) -> Result<T, Fault> {
    // Rust reads all that PostgreSQL writes, `NaN` and `-Infinity` included.
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Fault::Malformed)
}

fn unsigned<T: std::str::FromStr>(text: &[u8]) -> Result<T, Fault> {
    // Rust also reads a sign, which PostgreSQL never writes here.
    let digits = std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'));
    digits.and_then(|text| text.parse().ok()).ok_or(Fault::Malformed)
}

#[inline]
fn integer(text: &[u8]) -> Result<i64, Fault> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    // 19 digits fit a u64, whatever they are.
    if digits.is_empty() || digits.len() > 19 {
        return Err(Fault::Malformed);
    }
    let mut value = 0u64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return Err(Fault::Malformed);
        }
        value = value * 10 + u64::from(digit);
    }
    let limit = i64::MAX as u64 + u64::from(negative);
    if value > limit {
        return Err(Fault::Malformed);
    }
    Ok(if negative { (value as i64).wrapping_neg() } else { value as i64 })
}

/// ClickHouse's UUID is two integers of 64 bits, the high one first, each with its little end first.
#[inline]
fn push_uuid(bytes: [u8; 16], out: &mut Vec<u8>) {
    let value = u128::from_be_bytes(bytes);
    out.extend_from_slice(&((value >> 64) as u64).to_le_bytes());
    out.extend_from_slice(&(value as u64).to_le_bytes());
}

/// `550e8400-e29b-41d4-a716-446655440000`: PostgreSQL always writes this form.
#[inline]
fn uuid(text: &[u8]) -> Result<[u8; 16], Fault> {
    /// Where the pairs of digits stand.
    const PAIRS: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let text: &[u8; 36] = text.try_into().map_err(|_| Fault::Malformed)?;
    if [text[8], text[13], text[18], text[23]] != [b'-'; 4] {
        return Err(Fault::Malformed);
    }
    let mut bytes = [0; 16];
    let mut wrong = 0;
    for (byte, at) in bytes.iter_mut().zip(PAIRS) {
        let (high, low) = (HEX[usize::from(text[at])], HEX[usize::from(text[at + 1])]);
        wrong |= high | low;
        *byte = high << 4 | low & 0x0f;
    }
    if wrong & NOT_HEX != 0 { Err(Fault::Malformed) } else { Ok(bytes) }
}

/// `\x` and the digits: every source session pins `bytea_output=hex`.
fn push_hex(text: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let digits = text.strip_prefix(b"\\x").ok_or(Fault::Malformed)?;
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Fault::Malformed);
    }
    push_length(pairs.len(), out);
    let mut wrong = 0;
    out.extend(pairs.iter().map(|[high, low]| {
        let (high, low) = (HEX[usize::from(*high)], HEX[usize::from(*low)]);
        wrong |= high | low;
        high << 4 | low & 0x0f
    }));
    if wrong & NOT_HEX != 0 { Err(Fault::Malformed) } else { Ok(()) }
}

/// Marks what is no hexadecimal digit in [`HEX`].
const NOT_HEX: u8 = 0x80;

/// Values of the hexadecimal digits.
const HEX: [u8; 256] = {
    let mut table = [NOT_HEX; 256];
    let mut i = 0;
    while i < 10 {
        table[b'0' as usize + i] = i as u8;
        i += 1;
    }
    let mut i = 0;
    while i < 6 {
        table[b'a' as usize + i] = 10 + i as u8;
        table[b'A' as usize + i] = 10 + i as u8;
        i += 1;
    }
    table
};
