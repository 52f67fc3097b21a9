//! The elements of a one-dimensional array, in both forms. Pure.
//!
//! The lower bound of an array is not kept: ClickHouse's arrays begin at 1.

use super::{Fault, Field};

/// Bytes in front of the elements of a binary array without and with one dimension: dimensions,
/// flags, element type; then length and lower bound (PostgreSQL source, `arrayfuncs.c`).
const HEAD_BYTES: usize = 12;
const DIMENSION_BYTES: usize = 8;

/// Calls `each` with every element of an array in its binary form.
pub(crate) fn binary_elements<'a>(
    bytes: &'a [u8],
    mut each: impl FnMut(Field<'a>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(Fault::Malformed)?;
    match i32::from_be_bytes([head[0], head[1], head[2], head[3]]) {
        0 if rest.is_empty() => return Ok(()),
        1 => {}
        2..=6 => return Err(Fault::Dimensions),
        _ => return Err(Fault::Malformed),
    }
    let (dimension, mut rest) = rest.split_first_chunk::<DIMENSION_BYTES>().ok_or(Fault::Malformed)?;
    let length = i32::from_be_bytes([dimension[0], dimension[1], dimension[2], dimension[3]]);
    for _ in 0..u32::try_from(length).map_err(|_| Fault::Malformed)? {
        let (size, after) = rest.split_first_chunk::<4>().ok_or(Fault::Malformed)?;
        rest = after;
        let size = i32::from_be_bytes(*size);
        if size == -1 {
            each(Field::Null)?;
            continue;
        }
        let size = usize::try_from(size).map_err(|_| Fault::Malformed)?;
        let (element, after) = rest.split_at_checked(size).ok_or(Fault::Malformed)?;
        rest = after;
        each(Field::Binary(element))?;
    }
    if rest.is_empty() { Ok(()) } else { Err(Fault::Malformed) }
}

/// Calls `each` with every element of an array in its text form: `{1,NULL,"a \"b\""}`, with the
/// bounds in front where they are not the usual ones: `[0:1]={1,2}` (PostgreSQL documentation,
/// section 8.15.6). `scratch` holds an element without its escapes.
pub(crate) fn text_elements(
    text: &[u8],
    scratch: &mut Vec<u8>,
    mut each: impl FnMut(Field<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut rest = array_body(text)?;
    if rest.is_empty() {
        return Ok(());
    }
    loop {
        let after = match rest {
            [b'{', ..] => return Err(Fault::Dimensions),
            [b'"', quoted @ ..] => quoted_element(quoted, scratch, &mut each)?,
            _ => {
                let end = rest.iter().position(|&byte| byte == b',').unwrap_or(rest.len());
                let (element, after) = rest.split_at(end);
                match element {
                    [] => return Err(Fault::Malformed),
                    b"NULL" => each(Field::Null)?,
                    _ => each(Field::Text(element))?,
                }
                after
            }
        };
        match after {
            [] => return Ok(()),
            [b',', next @ ..] => rest = next,
            _ => return Err(Fault::Malformed),
        }
    }
}

/// What stands between the braces.
fn array_body(text: &[u8]) -> Result<&[u8], Fault> {
    let text = match text {
        [b'[', ..] => {
            let end = text.iter().position(|&byte| byte == b'=').ok_or(Fault::Malformed)?;
            if text[1..end].contains(&b'[') {
                return Err(Fault::Dimensions);
            }
            &text[end + 1..]
        }
        _ => text,
    };
    match text {
        [b'{', body @ .., b'}'] => Ok(body),
        _ => Err(Fault::Malformed),
    }
}

/// Hands on the element whose opening quote is taken off already; returns what follows it.
fn quoted_element<'a>(
    text: &'a [u8],
    scratch: &mut Vec<u8>,
    each: &mut impl FnMut(Field<'_>) -> Result<(), Fault>,
) -> Result<&'a [u8], Fault> {
    let special = |text: &[u8]| text.iter().position(|&byte| matches!(byte, b'"' | b'\\'));
    let first = special(text).ok_or(Fault::Malformed)?;
    if text[first] == b'"' {
        each(Field::Text(&text[..first]))?;
        return Ok(&text[first + 1..]);
    }
    scratch.clear();
    let mut rest = text;
    loop {
        let at = special(rest).ok_or(Fault::Malformed)?;
        scratch.extend_from_slice(&rest[..at]);
        if rest[at] == b'"' {
            each(Field::Text(scratch))?;
            return Ok(&rest[at + 1..]);
        }
        scratch.push(*rest.get(at + 1).ok_or(Fault::Malformed)?);
        rest = &rest[at + 2..];
    }
}
