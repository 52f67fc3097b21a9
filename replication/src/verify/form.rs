//! The form in which a destination column is read back, so that it can be compared with what the
//! transcoders make of the source's values. Pure.
//!
//! The server converts what we send to the column's type (`input_format_native_allow_types_conversion`).
//! Read back, it is converted to the type that was sent. Where that is another type, the row also says
//! whether the way there and back leads to the value that is stored: a value that nobody sent must not
//! look like one.

use crate::clickhouse::ddl::{quote_ident, quote_text};
use crate::table::ColumnPlan;

/// How a column of the destination is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// By an expression that has the type that is sent; and a condition that holds for values that were
    /// sent, where others can be stored.
    Read { value: String, holds: Option<String> },
    /// Not at all: the reason.
    Incomparable(String),
}

/// The form of a column.
pub(super) fn of(column: &ColumnPlan) -> Form {
    let name = quote_ident(&column.destination);
    let sent = column.conversion.spelled(&column.conversion.innermost().wire_type(), column.nullable);
    let stored = column.clickhouse_type.as_str();
    if without_spaces(stored) == without_spaces(&sent) {
        return Form::Read { value: name, holds: None };
    }
    if innermost(stored) == "JSON" {
        let why = "JSON: the server keeps the document, not its text".to_owned();
        return Form::Incomparable(why);
    }
    let value = format!("CAST({name}, {})", quote_text(&sent));
    // A dictionary holds the very text.
    let is_exact = stored.contains("LowCardinality(");
    let holds = (!is_exact).then(|| {
        let back = format!("toString(CAST({value}, {}))", quote_text(stored));
        format!("ifNull({back} = toString({name}), 1)")
    });
    Form::Read { value, holds }
}

fn innermost(kind: &str) -> &str {
    let inner =
        ["Nullable(", "Array("].iter().find_map(|prefix| kind.strip_prefix(prefix)?.strip_suffix(')'));
    inner.map_or(kind, innermost)
}

fn without_spaces(kind: &str) -> String {
    kind.split_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::fixtures::column;
    use crate::types::Conversion;

    fn form(conversion: Conversion, stored: &str, nullable: bool) -> Form {
        of(&ColumnPlan { clickhouse_type: stored.to_owned(), ..column("it's", nullable, conversion) })
    }

    #[test]
    fn what_is_stored_as_it_is_sent_is_read_as_it_is() {
        let plain = Form::Read { value: "`it\\'s`".replace("\\'", "'"), holds: None };
        assert_eq!(form(Conversion::Int32, "Int32", false), plain);
        assert_eq!(form(Conversion::Timestamp, "Nullable(DateTime64(6,'UTC'))", true), plain);
    }

    #[test]
    fn what_the_server_converted_is_converted_back_and_looked_at() {
        let Form::Read { value, holds } = form(Conversion::Text, "LowCardinality(Nullable(String))", true)
        else {
            panic!("comparable");
        };
        assert_eq!((value.as_str(), holds), ("CAST(`it's`, 'Nullable(String)')", None));
        let Form::Read { value, holds } = form(Conversion::Int32, "Float64", false) else {
            panic!("comparable")
        };
        assert_eq!(value, "CAST(`it's`, 'Int32')");
        assert_eq!(
            holds.as_deref(),
            Some("ifNull(toString(CAST(CAST(`it's`, 'Int32'), 'Float64')) = toString(`it's`), 1)")
        );
    }

    #[test]
    fn documents_cannot_be_compared() {
        assert!(matches!(form(Conversion::Jsonb, "Nullable(JSON)", true), Form::Incomparable(_)));
        assert!(matches!(
            form(Conversion::Array(Box::new(Conversion::Jsonb)), "Array(JSON)", false),
            Form::Incomparable(_)
        ));
    }
}
