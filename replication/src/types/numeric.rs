//! `numeric` in both its forms, to a decimal integer or to PostgreSQL's text. Pure.
//!
//! The binary form (PostgreSQL source, `numeric.c`: `numeric_send`) is four `int16` - number of
//! groups, weight of the first, sign, digits shown after the point - and the groups of four decimal
//! digits, base 10000.

use super::conversion::decimal_width;
use super::limbs::{Accumulator, U256};
use super::scalar::push_length;
use super::{Fault, Field, push_string};

/// Decimal digits in a group.
const GROUP_DIGITS: i32 = 4;
const SIGN_NEGATIVE: u16 = 0x4000;
const SIGN_NAN: u16 = 0xc000;
const SIGN_INFINITY: u16 = 0xd000;
const SIGN_NEGATIVE_INFINITY: u16 = 0xf000;
/// Powers of ten that fit a `u64`.
const POWERS_OF_TEN: [u64; 20] = {
    let mut powers = [1; 20];
    let mut i = 1;
    while i < powers.len() {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// The parts of the binary form.
struct Binary<'a> {
    weight: i32,
    sign: u16,
    shown: usize,
    /// Two bytes a group.
    groups: &'a [u8],
}

impl<'a> Binary<'a> {
    #[inline]
    fn parse(bytes: &'a [u8]) -> Result<Self, Fault> {
        let (head, groups) = bytes.split_first_chunk::<8>().ok_or(Fault::Malformed)?;
        let [n0, n1, w0, w1, s0, s1, d0, d1] = *head;
        if groups.len() != 2 * usize::from(u16::from_be_bytes([n0, n1])) {
            return Err(Fault::Malformed);
        }
        Ok(Self {
            weight: i32::from(i16::from_be_bytes([w0, w1])),
            sign: u16::from_be_bytes([s0, s1]),
            shown: usize::from(u16::from_be_bytes([d0, d1])),
            groups,
        })
    }

    /// The server strips them; the digits before the point are counted by it.
    fn without_leading_zeros(mut self) -> Self {
        while let [0, 0, rest @ ..] = self.groups {
            self.groups = rest;
            self.weight -= 1;
        }
        if self.groups.is_empty() {
            self.weight = -1;
        }
        self
    }

    #[inline]
    fn groups(&self) -> impl Iterator<Item = u16> + 'a {
        self.groups.as_chunks::<2>().0.iter().map(|group| u16::from_be_bytes(*group))
    }
}

/// Appends a value to a `Decimal(precision, scale)` column.
#[inline]
pub(super) fn push_decimal(
    field: Field<'_>,
    precision: u8,
    scale: u8,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    match precision {
        0..=18 => decimal::<u64>(field, precision, scale, out),
        19..=38 => decimal::<u128>(field, precision, scale, out),
        _ => decimal::<U256>(field, precision, scale, out),
    }
}

#[inline]
fn decimal<A: Accumulator>(
    field: Field<'_>,
    precision: u8,
    scale: u8,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let (negative, sum) = unscaled::<A>(field, scale)?;
    // A column's plan may be older than its type: a number of too many digits is refused, not cut.
    if !sum.has_digits(precision) {
        return Err(Fault::Unrepresentable);
    }
    sum.write(negative, decimal_width(precision), out);
    Ok(())
}

/// Whether a value is negative, and its magnitude in units of its digit number `scale` after the point.
#[inline]
pub(super) fn unscaled<A: Accumulator>(field: Field<'_>, scale: u8) -> Result<(bool, A), Fault> {
    match field {
        Field::Binary(bytes) => from_binary(bytes, scale),
        Field::Text(text) => from_text(text, scale),
        Field::Null => Err(Fault::Null),
    }
}

#[inline]
fn from_binary<A: Accumulator>(bytes: &[u8], scale: u8) -> Result<(bool, A), Fault> {
    let value = Binary::parse(bytes)?;
    let negative = match value.sign {
        0 => false,
        SIGN_NEGATIVE => true,
        SIGN_NAN | SIGN_INFINITY | SIGN_NEGATIVE_INFINITY => return Err(Fault::Unrepresentable),
        _ => return Err(Fault::Malformed),
    };
    let mut sum = A::ZERO;
    // The power of ten that one unit of the group stands for, counted in the column's last digit.
    let mut exponent = GROUP_DIGITS * value.weight + i32::from(scale);
    for group in value.groups() {
        if group > 9999 {
            return Err(Fault::Malformed);
        }
        let group = u64::from(group);
        if exponent >= 0 {
            sum = sum.mul_add(10_000, group).ok_or(Fault::Unrepresentable)?;
        } else if exponent > -GROUP_DIGITS {
            // The group reaches beyond the column's last digit: what is beyond must be zero.
            let cut = POWERS_OF_TEN[exponent.unsigned_abs() as usize];
            if group % cut != 0 {
                return Err(Fault::Unrepresentable);
            }
            sum = sum.mul_add(10_000 / cut, group / cut).ok_or(Fault::Unrepresentable)?;
        } else if group != 0 {
            return Err(Fault::Unrepresentable);
        }
        exponent -= GROUP_DIGITS;
    }
    // Trailing groups of zeros are not sent.
    let missing = if value.groups.is_empty() { 0 } else { (exponent + GROUP_DIGITS).max(0) };
    Ok((negative, scale_up(sum, missing as usize)?))
}

/// Appends this many zeros to the number.
#[inline]
fn scale_up<A: Accumulator>(mut sum: A, mut zeros: usize) -> Result<A, Fault> {
    while zeros > 0 {
        let step = zeros.min(POWERS_OF_TEN.len() - 1);
        sum = sum.mul_add(POWERS_OF_TEN[step], 0).ok_or(Fault::Unrepresentable)?;
        zeros -= step;
    }
    Ok(sum)
}

#[inline]
fn from_text<A: Accumulator>(text: &[u8], scale: u8) -> Result<(bool, A), Fault> {
    if matches!(text, b"NaN" | b"Infinity" | b"-Infinity") {
        return Err(Fault::Unrepresentable);
    }
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let point = digits.iter().position(|&byte| byte == b'.').unwrap_or(digits.len());
    let (whole, fraction) = (&digits[..point], digits.get(point + 1..).unwrap_or_default());
    if whole.is_empty() && fraction.is_empty() {
        return Err(Fault::Malformed);
    }
    let (kept, beyond) = fraction.split_at(fraction.len().min(usize::from(scale)));
    if !beyond.iter().all(u8::is_ascii_digit) {
        return Err(Fault::Malformed);
    }
    if beyond.iter().any(|&digit| digit != b'0') {
        return Err(Fault::Unrepresentable);
    }
    let mut sum = gather(A::ZERO, whole)?;
    sum = gather(sum, kept)?;
    Ok((negative, scale_up(sum, usize::from(scale) - kept.len())?))
}

/// Appends decimal digits to `sum`, up to 19 at a time: wide multiplications are dear.
#[inline]
fn gather<A: Accumulator>(mut sum: A, digits: &[u8]) -> Result<A, Fault> {
    for chunk in digits.chunks(19) {
        let mut value = 0u64;
        for &digit in chunk {
            let digit = digit.wrapping_sub(b'0');
            if digit > 9 {
                return Err(Fault::Malformed);
            }
            value = value * 10 + u64::from(digit);
        }
        sum = sum.mul_add(POWERS_OF_TEN[chunk.len()], value).ok_or(Fault::Unrepresentable)?;
    }
    Ok(sum)
}

/// Appends a value in its binary form to a `String` column, as `numeric_out` writes it.
pub(super) fn push_text_binary(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let value = Binary::parse(bytes)?.without_leading_zeros();
    let special: &[u8] = match value.sign {
        0 | SIGN_NEGATIVE => b"",
        SIGN_NAN => b"NaN",
        SIGN_INFINITY => b"Infinity",
        SIGN_NEGATIVE_INFINITY => b"-Infinity",
        _ => return Err(Fault::Malformed),
    };
    if !special.is_empty() {
        push_string(special, out);
        return Ok(());
    }
    let negative = value.sign == SIGN_NEGATIVE;
    if value.groups().any(|group| group > 9999) {
        return Err(Fault::Malformed);
    }
    let first = value.groups().next().unwrap_or(0);
    let whole_digits = match value.weight {
        ..0 => 1,
        weight => (GROUP_DIGITS * weight) as usize + first.checked_ilog10().unwrap_or(0) as usize + 1,
    };
    let fraction = if value.shown > 0 { value.shown + 1 } else { 0 };
    push_length(usize::from(negative) + whole_digits + fraction, out);
    if negative {
        out.push(b'-');
    }
    push_whole(&value, whole_digits, out);
    if value.shown > 0 {
        out.push(b'.');
        push_fraction(&value, out);
    }
    Ok(())
}

fn push_whole(value: &Binary<'_>, digits: usize, out: &mut Vec<u8>) {
    if value.weight < 0 {
        return out.push(b'0');
    }
    let start = out.len();
    let mut groups = value.groups();
    for _ in 0..=value.weight {
        out.extend_from_slice(&group_digits(groups.next().unwrap_or(0)));
    }
    // Only the first group has leading zeros to be taken off.
    let extra = out.len() - start - digits;
    out.drain(start..start + extra);
}

fn push_fraction(value: &Binary<'_>, out: &mut Vec<u8>) {
    let end = out.len() + value.shown;
    // Groups of zeros between the point and the first group that was sent.
    for _ in value.weight..-1 {
        if out.len() >= end {
            break;
        }
        out.extend_from_slice(b"0000");
    }
    let whole_groups = usize::try_from(value.weight + 1).unwrap_or(0);
    for group in value.groups().skip(whole_groups) {
        if out.len() >= end {
            break;
        }
        out.extend_from_slice(&group_digits(group));
    }
    out.resize(end, b'0');
}

/// The four digits of a group.
fn group_digits(group: u16) -> [u8; 4] {
    let digit = |divisor: u16| b'0' + (group / divisor % 10) as u8;
    [digit(1000), digit(100), digit(10), digit(1)]
}
