//! A value of PostgreSQL as an expression of ClickHouse: the DEFAULT of a column that was added with one.
//! Pure.
//!
//! The value goes through the transcoder first, so the expression is what the stream would write, and a
//! value that ClickHouse cannot hold is found here.

use millrace_terms::Result;

use super::{Conversion, Event, Fault, Field, TimeRange, text_elements};
use crate::clickhouse::ddl::quote_text;
use crate::column::Column;
use crate::table::ColumnPlan;

/// The expression for a value in its text form. None where there is none: the type has no literal that
/// is certain to be the same value.
///
/// # Errors
/// Those of a value in this column: `VALUE_UNREPRESENTABLE`. The message names the column only.
pub(crate) fn literal(column: &ColumnPlan, text: &str, range: TimeRange) -> Result<Option<String>> {
    let failed = |fault: Fault| fault.error(&millrace_terms::TableName::new("", ""), &column.name);
    let made = expression(&column.conversion, column.nullable, text.as_bytes(), range).map_err(failed)?;
    // A string needs no cast, and reads better without.
    Ok(made.map(|made| match made.strip_prefix(STRING) {
        Some(string) => string.to_owned(),
        None => format!("CAST({made}, {})", quote_text(&column.clickhouse_type)),
    }))
}

/// Marks an expression that is of type String.
const STRING: char = '\u{1}';

fn expression(
    conversion: &Conversion,
    nullable: bool,
    text: &[u8],
    range: TimeRange,
) -> Result<Option<String>, Fault> {
    let mut column = Column::new(conversion, nullable, range);
    column.push(Field::Text(text))?;
    column.finish_row();
    if column.nulled() > 0 {
        return Ok(Some("NULL".to_owned()));
    }
    let quoted = || Some(quote_text(std::str::from_utf8(text).ok()?));
    Ok(match conversion {
        Conversion::OrNull(inner) => return expression(inner, nullable, text, range),
        Conversion::Bool => Some(if text == b"t" { "true" } else { "false" }.to_owned()),
        Conversion::Int16
        | Conversion::Int32
        | Conversion::Int64
        | Conversion::UInt32
        | Conversion::UInt64
        | Conversion::Float32
        | Conversion::Float64
        | Conversion::Decimal { .. }
        | Conversion::Uuid
        | Conversion::Date => quoted(),
        Conversion::Timestamp => {
            let micros: Option<[u8; 8]> = column.value_bytes().try_into().ok();
            micros.map(|bytes| format!("fromUnixTimestamp64Micro({}, 'UTC')", i64::from_le_bytes(bytes)))
        }
        Conversion::NumericText
        | Conversion::Text
        | Conversion::Bytes
        | Conversion::Jsonb
        | Conversion::Rendered(_)
        | Conversion::TextForm => string(column.value_bytes()),
        Conversion::Array(element) => array(element, text, range)?,
        _ => None,
    })
}

/// The bytes of a String as they are sent, with their length in front.
fn string(sent: &[u8]) -> Option<String> {
    let length = sent.iter().position(|byte| byte & 0x80 == 0)? + 1;
    let bytes = sent.get(length..)?;
    Some(match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => format!("{STRING}{}", quote_text(text)),
        _ => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{STRING}unhex('{hex}')")
        }
    })
}

fn array(element: &Conversion, text: &[u8], range: TimeRange) -> Result<Option<String>, Fault> {
    let mut parts: Vec<Option<String>> = Vec::new();
    let each = |event: Event<'_>| {
        if let Event::Element(field) = event {
            parts.push(match field {
                Field::Text(text) => expression(element, true, text, range)?,
                _ => Some("NULL".to_owned()),
            });
        }
        Ok(())
    };
    text_elements(text, 1, b',', &mut Vec::new(), each)?;
    let parts: Option<Vec<String>> = parts.into_iter().collect();
    Ok(parts.map(|parts| format!("[{}]", parts.join(", ").replace(STRING, ""))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::fixtures::column;

    fn made(conversion: Conversion, nullable: bool, text: &str) -> Option<String> {
        literal(&column("c", nullable, conversion), text, TimeRange::WIDE).unwrap()
    }

    #[test]
    fn values_are_written_as_clickhouse_reads_them() {
        let array = |element| Conversion::Array(Box::new(element));
        for (conversion, nullable, text, expected) in [
            (Conversion::Int32, true, "-5", "CAST('-5', 'Nullable(Int32)')"),
            (Conversion::Bool, false, "t", "CAST(true, 'Bool')"),
            (
                Conversion::Decimal { precision: 10, scale: 2 },
                false,
                "1.50",
                "CAST('1.50', 'Decimal(10, 2)')",
            ),
            (Conversion::Text, true, "it's \\", "'it\\'s \\\\'"),
            (Conversion::Bytes, false, "\\x00ff", "unhex('00ff')"),
            (
                Conversion::Timestamp,
                false,
                "1970-01-01 00:00:01.5+00",
                "CAST(fromUnixTimestamp64Micro(1500000, 'UTC'), 'DateTime64(6, \\'UTC\\')')",
            ),
            (array(Conversion::Text), false, "{a,NULL}", "CAST(['a', NULL], 'Array(Nullable(String))')"),
            (array(Conversion::Int32), false, "{}", "CAST([], 'Array(Nullable(Int32))')"),
        ] {
            assert_eq!(made(conversion, nullable, text).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_clickhouse_cannot_hold_follows_the_policy() {
        let refused = literal(&column("c", true, Conversion::Timestamp), "infinity", TimeRange::WIDE);
        assert_eq!(refused.unwrap_err().code(), millrace_terms::Code::ValueUnrepresentable);
        let or_null = Conversion::OrNull(Box::new(Conversion::Timestamp));
        assert!(made(or_null, true, "infinity").unwrap().starts_with("CAST(NULL"));
    }
}
