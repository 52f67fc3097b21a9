//! The table of types: how a PostgreSQL value, in either of its wire forms, becomes bytes of a
//! ClickHouse column.
//!
//! Pure: no I/O. A column is planned once ([`TypeCatalog::plan_column`]), which freezes a
//! [`Conversion`]; from then on each value is a [`Field`] that is transcoded by it.
//!
//! | PostgreSQL | ClickHouse | forms |
//! |---|---|---|
//! | `bool` | `Bool` | both |
//! | `int2`, `int4`, `int8` | `Int16`, `Int32`, `Int64` | both |
//! | `float4`, `float8` | `Float32`, `Float64`; NaN and infinities kept | both |
//! | `numeric(p,s)`, p <= 76 | `Decimal(p,s)`; s < 0: `Decimal(p-s,0)`; s > p: `Decimal(s,s)` | both |
//! | `numeric`, or wider than 76 digits | `String`: PostgreSQL's own text | both |
//! | `text`, `varchar`, `bpchar`, `name`, `citext` | `String` | both |
//! | `bytea` | `String`: the raw bytes | both |
//! | `json`, `jsonb` | `String` verbatim | both |
//! | `uuid` | `UUID` | both |
//! | `date` | `Date32` | both |
//! | `timestamp`, `timestamptz` | `DateTime64(6, 'UTC')` | both |
//! | enums | `LowCardinality(String)` | both |
//! | arrays of all these | `Array(Nullable(T))`; a NULL array is the empty array | as the element |
//! | domains | as their base type | as the base type |
//! | everything else | `String`: PostgreSQL's own text | text |
//!
//! `timestamp` without time zone is `'UTC'` too: without it ClickHouse would show the column in the
//! server's own zone, and the digits read there would not be the source's.
//!
//! A type of ours exists in two forms only if the binary one is proven equal to the text one, by a
//! property test (`types/tests.rs`); for all others [`Conversion::binary_known`] is false and the
//! caller asks the source for text.

mod array;
mod catalog;
mod conversion;
mod limbs;
mod numeric;
mod scalar;
#[cfg(test)]
mod tests;
mod time;

use millrace_terms::{Code, Error, TableName};

pub(crate) use array::{binary_elements, text_elements};
pub use catalog::{CATALOG_QUERY, SourceColumn, TypeCatalog, TypeRow};
pub use conversion::Conversion;
pub(crate) use scalar::{push_default, push_length, push_scalar, push_string};
pub use time::TimeRange;

/// One value as it came over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// SQL NULL.
    Null,
    /// The value in its text form, under the session settings that every source session pins.
    Text(&'a [u8]),
    /// The value in its binary form.
    Binary(&'a [u8]),
}

/// Why a value was refused. Small, so that the hot path carries no [`Error`]; the block makes one
/// of it with the names of table and column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The bytes are not a value of the type.
    Malformed,
    /// The value is right, but ClickHouse's type cannot hold it.
    Unrepresentable,
    /// An array of more than one dimension.
    Dimensions,
    /// A NULL in a column that was planned NOT NULL.
    Null,
    /// A binary form that was never asked for.
    Form,
}

impl Fault {
    /// The error for a user. Holds the names, never the value.
    #[cold]
    pub(crate) fn error(self, table: &TableName, column: &str) -> Error {
        let (code, what) = match self {
            Fault::Malformed => (Code::ProtocolViolation, "sent bytes that are not a value of its type"),
            Fault::Unrepresentable => {
                (Code::ValueUnrepresentable, "holds a value that its ClickHouse type cannot hold")
            }
            Fault::Dimensions => (Code::ValueUnrepresentable, "holds an array of more than one dimension"),
            Fault::Null => (Code::TableSchemaChanged, "holds a NULL, though it was NOT NULL"),
            Fault::Form => (Code::ProtocolViolation, "came in binary form, which was not asked for"),
        };
        Error::new(code, format!("column {column:?} of table {table} {what}"))
            .with("table", table.to_string())
            .with("column", column)
    }
}
