//! From the binary form of a type to its text form, as PostgreSQL's output function writes it. Pure.

use super::conversion::Rendered;
use super::scalar::push_length;
use super::time::{push_time, push_zone};
use super::{Fault, push_string};

/// Bytes of a `time`'s microseconds.
const TIME_BYTES: usize = 8;
/// A day and the leap second that `24:00:00` stands for.
const TIME_MAX: i64 = 86_400_000_000;

/// Appends a value in its text form to a `String` column.
#[inline]
pub(super) fn push_text(kind: Rendered, text: &[u8], out: &mut Vec<u8>) {
    match (kind, text) {
        // Servers before 16 send the byte itself, which is not text.
        (Rendered::Char, [byte @ 0x80..=0xff]) => push_string(&octal(*byte), out),
        _ => push_string(text, out),
    }
}

/// Appends a value in its binary form to a `String` column, as text.
pub(super) fn push_binary(kind: Rendered, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let start = out.len();
    // Nearly always the length is one byte.
    out.push(0);
    match kind {
        Rendered::Char => char(bytes, out)?,
        Rendered::Time => time(bytes, out)?,
        Rendered::TimeTz => time_with_zone(bytes, out)?,
        Rendered::Inet => super::address::push_inet(bytes, out)?,
        Rendered::MacAddress => mac_address(bytes, out)?,
        Rendered::Bits => bits(bytes, out)?,
        Rendered::Hstore => hstore(bytes, out)?,
    }
    let length = out.len() - start - 1;
    match u8::try_from(length) {
        Ok(short @ ..0x80) => out[start] = short,
        _ => {
            let mut prefix = Vec::with_capacity(5);
            push_length(length, &mut prefix);
            out.splice(start..=start, prefix);
        }
    }
    Ok(())
}

/// `charout`: the byte if it is ASCII, the empty text for zero, else its octal digits.
fn char(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    match bytes {
        [0] => {}
        [byte @ 0x80..=0xff] => out.extend_from_slice(&octal(*byte)),
        [byte] => out.push(*byte),
        _ => return Err(Fault::Malformed),
    }
    Ok(())
}

fn octal(byte: u8) -> [u8; 4] {
    [b'\\', b'0' + (byte >> 6), b'0' + (byte >> 3 & 7), b'0' + (byte & 7)]
}

fn time(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let micros = i64::from_be_bytes(bytes.try_into().map_err(|_| Fault::Malformed)?);
    if !(0..=TIME_MAX).contains(&micros) {
        return Err(Fault::Malformed);
    }
    push_time(micros, out);
    Ok(())
}

/// The time, and the seconds west of Greenwich.
fn time_with_zone(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let (micros, zone) = bytes.split_at_checked(TIME_BYTES).ok_or(Fault::Malformed)?;
    time(micros, out)?;
    push_zone(i32::from_be_bytes(zone.try_into().map_err(|_| Fault::Malformed)?), out);
    Ok(())
}

fn mac_address(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    if !matches!(bytes.len(), 6 | 8) {
        return Err(Fault::Malformed);
    }
    for (at, byte) in bytes.iter().enumerate() {
        if at > 0 {
            out.push(b':');
        }
        out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    Ok(())
}

/// The number of bits, and the bits, the highest of a byte first.
fn bits(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let (length, bytes) = bytes.split_first_chunk::<4>().ok_or(Fault::Malformed)?;
    let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| Fault::Malformed)?;
    if bytes.len() != length.div_ceil(8) {
        return Err(Fault::Malformed);
    }
    let digits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| b'0' + (byte >> bit & 1)));
    out.extend(digits.take(length));
    Ok(())
}

/// The number of pairs, and each with the lengths of its key and value in front (hstore's source,
/// `hstore_send`); -1 is the length of NULL.
fn hstore(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let (count, mut rest) = bytes.split_first_chunk::<4>().ok_or(Fault::Malformed)?;
    for pair in 0..i32::from_be_bytes(*count) {
        if pair > 0 {
            out.extend_from_slice(b", ");
        }
        let (key, after) = hstore_text(rest)?;
        quoted(key.ok_or(Fault::Malformed)?, out);
        out.extend_from_slice(b"=>");
        let (value, after) = hstore_text(after)?;
        match value {
            Some(value) => quoted(value, out),
            None => out.extend_from_slice(b"NULL"),
        }
        rest = after;
    }
    if rest.is_empty() { Ok(()) } else { Err(Fault::Malformed) }
}

fn hstore_text(bytes: &[u8]) -> Result<(Option<&[u8]>, &[u8]), Fault> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(Fault::Malformed)?;
    let length = i32::from_be_bytes(*length);
    if length == -1 {
        return Ok((None, rest));
    }
    let length = usize::try_from(length).map_err(|_| Fault::Malformed)?;
    let (text, rest) = rest.split_at_checked(length).ok_or(Fault::Malformed)?;
    Ok((Some(text), rest))
}

fn quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}
