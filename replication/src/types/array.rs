//! The elements of an array, in both forms. Pure.
//!
//! The lower bounds of an array are not kept: ClickHouse's arrays begin at 1.

use super::conversion::DIMENSIONS_MAX;
use super::{Fault, Field};

/// Bytes in front of the dimensions of a binary array (number of dimensions, flags, element type), and
/// of each dimension (length, lower bound) (PostgreSQL source, `arrayfuncs.c`).
const HEAD_BYTES: usize = 12;
const DIMENSION_BYTES: usize = 8;

/// What an array is made of, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// An innermost element.
    Element(Field<'a>),
    /// The end of an array inside so many others. The end of the whole value is not told.
    End(u8),
}

/// Calls `each` with what an array of `depth` dimensions in its binary form is made of. The empty array
/// has no dimensions, and is one of any depth.
pub(crate) fn binary_elements<'a>(
    bytes: &'a [u8],
    depth: u8,
    mut each: impl FnMut(Event<'a>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(Fault::Malformed)?;
    let dimensions = match u8::try_from(i32::from_be_bytes([head[0], head[1], head[2], head[3]])) {
        Ok(0) if rest.is_empty() => return Ok(()),
        Ok(dimensions @ 1..=DIMENSIONS_MAX) => usize::from(dimensions),
        _ => return Err(Fault::Malformed),
    };
    let (sizes, mut rest) = rest.split_at_checked(DIMENSION_BYTES * dimensions).ok_or(Fault::Malformed)?;
    let mut lengths = [0; DIMENSIONS_MAX as usize];
    for (length, size) in lengths.iter_mut().zip(sizes.as_chunks::<DIMENSION_BYTES>().0) {
        let size = i32::from_be_bytes([size[0], size[1], size[2], size[3]]);
        *length = u32::try_from(size).map_err(|_| Fault::Malformed)?;
    }
    if lengths[..dimensions].contains(&0) {
        return if rest.is_empty() { Ok(()) } else { Err(Fault::Malformed) };
    }
    if dimensions != usize::from(depth) {
        return Err(Fault::Dimensions);
    }
    // Each turn of the loop takes bytes, so a false length ends it.
    let mut counts = [0; DIMENSIONS_MAX as usize];
    loop {
        let (field, after) = binary_field(rest)?;
        rest = after;
        each(Event::Element(field))?;
        let mut level = dimensions - 1;
        loop {
            counts[level] += 1;
            if counts[level] < lengths[level] {
                break;
            }
            counts[level] = 0;
            if level == 0 {
                return if rest.is_empty() { Ok(()) } else { Err(Fault::Malformed) };
            }
            each(Event::End(level as u8))?;
            level -= 1;
        }
    }
}

/// Takes a field with its length off the front.
#[inline]
fn binary_field(bytes: &[u8]) -> Result<(Field<'_>, &[u8]), Fault> {
    let (size, rest) = bytes.split_first_chunk::<4>().ok_or(Fault::Malformed)?;
    let size = i32::from_be_bytes(*size);
    if size == -1 {
        return Ok((Field::Null, rest));
    }
    let size = usize::try_from(size).map_err(|_| Fault::Malformed)?;
    let (element, rest) = rest.split_at_checked(size).ok_or(Fault::Malformed)?;
    Ok((Field::Binary(element), rest))
}

/// Calls `each` with what an array of `depth` dimensions in its text form is made of:
/// `{{1,NULL},{"a \"b\"",2}}`, with the bounds in front where they are not the usual ones:
/// `[0:1]={1,2}` (PostgreSQL documentation, section 8.15.6). `scratch` holds an element without its
/// escapes.
pub(crate) fn text_elements(
    text: &[u8],
    depth: u8,
    delimiter: u8,
    scratch: &mut Vec<u8>,
    mut each: impl FnMut(Event<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut rest = without_bounds(text)?;
    if rest == b"{}" {
        return Ok(());
    }
    let mut level = 0;
    loop {
        while level < depth {
            rest = match rest {
                [b'{', inside @ ..] => inside,
                _ if level == 0 => return Err(Fault::Malformed),
                _ => return Err(Fault::Dimensions),
            };
            level += 1;
        }
        rest = match rest {
            [b'{', ..] => return Err(Fault::Dimensions),
            [b'"', quoted @ ..] => quoted_element(quoted, scratch, &mut each)?,
            _ => bare_element(rest, delimiter, &mut each)?,
        };
        while let [b'}', after @ ..] = rest {
            rest = after;
            level -= 1;
            if level == 0 {
                return if rest.is_empty() { Ok(()) } else { Err(Fault::Malformed) };
            }
            each(Event::End(level))?;
        }
        rest = match rest {
            [byte, next @ ..] if *byte == delimiter => next,
            _ => return Err(Fault::Malformed),
        };
    }
}

/// Takes the bounds off the front.
fn without_bounds(text: &[u8]) -> Result<&[u8], Fault> {
    match text {
        [b'[', ..] => {
            let end = text.iter().position(|&byte| byte == b'=').ok_or(Fault::Malformed)?;
            Ok(&text[end + 1..])
        }
        _ => Ok(text),
    }
}

/// Hands on an element without quotes; returns what follows it.
#[inline]
fn bare_element<'a>(
    text: &'a [u8],
    delimiter: u8,
    each: &mut impl FnMut(Event<'_>) -> Result<(), Fault>,
) -> Result<&'a [u8], Fault> {
    let end = text.iter().position(|&byte| byte == delimiter || byte == b'}').ok_or(Fault::Malformed)?;
    let (element, after) = text.split_at(end);
    match element {
        [] => return Err(Fault::Malformed),
        b"NULL" => each(Event::Element(Field::Null))?,
        _ => each(Event::Element(Field::Text(element)))?,
    }
    Ok(after)
}

/// Hands on the element whose opening quote is taken off already; returns what follows it.
fn quoted_element<'a>(
    text: &'a [u8],
    scratch: &mut Vec<u8>,
    each: &mut impl FnMut(Event<'_>) -> Result<(), Fault>,
) -> Result<&'a [u8], Fault> {
    let special = |text: &[u8]| text.iter().position(|&byte| matches!(byte, b'"' | b'\\'));
    let first = special(text).ok_or(Fault::Malformed)?;
    if text[first] == b'"' {
        each(Event::Element(Field::Text(&text[..first])))?;
        return Ok(&text[first + 1..]);
    }
    scratch.clear();
    let mut rest = text;
    loop {
        let at = special(rest).ok_or(Fault::Malformed)?;
        scratch.extend_from_slice(&rest[..at]);
        if rest[at] == b'"' {
            each(Event::Element(Field::Text(scratch)))?;
            return Ok(&rest[at + 1..]);
        }
        scratch.push(*rest.get(at + 1).ok_or(Fault::Malformed)?);
        rest = &rest[at + 2..];
    }
}
