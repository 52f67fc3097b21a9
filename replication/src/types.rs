//! The table of types: how a PostgreSQL value, in either of its wire forms, becomes bytes of a
//! ClickHouse column.
//!
//! Pure: no I/O. A column is planned once ([`TypeCatalog::plan_column`]), which freezes a
//! [`Conversion`]; from then on each value is a [`Field`] that is transcoded by it. The table itself is in
//! `builtin`; for people it is `docs/reference/types.md`, which is written from [`reference`].
//!
//! - NULL stays NULL. ClickHouse's arrays cannot be Nullable: their elements are, and a NULL array is the
//!   empty one.
//! - PostgreSQL does not hold an array to the dimensions that its column declares, ClickHouse does: a
//!   value of other dimensions is refused.
//! - Nothing is clamped, zeroed or cut: a value that ClickHouse's type cannot hold is refused, or follows
//!   the mirror's [`OnUnrepresentable`], which is decided here too (`policy`), as is what a user may choose
//!   instead of the default type (`choice`).
//! - `timestamp` without time zone is `'UTC'` too: without it ClickHouse would show the column in the
//!   server's own zone, and the digits read there would not be the source's.
//! - A type of ours exists in two forms only if the binary one is proven equal to the text one, by
//!   property tests (`types/tests.rs`, `tests/types.rs`); for all others [`Conversion::binary_known`] is
//!   false and the caller asks the source for text.

mod address;
mod array;
mod builtin;
mod catalog;
mod choice;
mod conversion;
pub(crate) mod fuzz;
mod limbs;
mod literal;
mod numeric;
mod policy;
pub mod reference;
mod render;
mod scalar;
#[cfg(test)]
mod tests;
mod time;
mod vector;

use millrace_terms::{Code, Error, TableName};

pub(crate) use array::{Event, binary_elements, text_elements};
pub(crate) use catalog::follow_policy;
pub use catalog::{CATALOG_QUERY, SourceColumn, TypeCatalog, TypeRow};
pub(crate) use choice::{choose, possible};
pub use conversion::{Conversion, DIMENSIONS_MAX, IntegerSource, OnUnrepresentable, Rendered, Vector};
pub(crate) use literal::literal;
pub(crate) use scalar::{push_default, push_length, push_scalar, push_string};
pub use time::TimeRange;
pub(crate) use vector::push_vector;

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
    /// An array of other dimensions than the ClickHouse type has.
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
            Fault::Dimensions => {
                (Code::ValueUnrepresentable, "holds an array of other dimensions than its ClickHouse type")
            }
            Fault::Null => (Code::TableSchemaChanged, "holds a NULL, though it was NOT NULL"),
            Fault::Form => (Code::ProtocolViolation, "came in binary form, which was not asked for"),
        };
        let error = Error::new(code, format!("column {column:?} of table {table} {what}"))
            .with("table", table.to_string())
            .with("column", column);
        match self {
            Fault::Dimensions => error.with_remedy(format!(
                "Choose the type that fits the values (`columns: {{{column}: {{type: String}}}}`, or \
                 `Array(Array(...))` by their depth), or correct the row; then resync the table."
            )),
            _ => error,
        }
    }
}
