//! Whether a destination table holds what its source table does, row by row and column by column, while
//! both are written to.
//!
//! - [`order`]: ranges of a key, in an order that both servers have.
//! - [`split`]: cuts a table into them.
//! - `columns`, `form`: values of both sides in one form, byte by byte.
//! - `read`: rows as digests.
//! - `compare`: what differs between two readings.
//! - [`range`]: one range; and what of its differences is certain.
//! - [`mend`]: rows that differ are made the source's.
//! - [`append`]: tables without a key.

pub mod append;
mod columns;
mod compare;
mod form;
pub mod mend;
pub mod order;
pub mod range;
mod read;
pub mod split;

pub use compare::Kind;
pub use order::{Order, Range};
pub use range::{Answer, Cell, Difference, Question, Told};
pub use read::{Sides, incomparable};

use crate::table::TablePlan;

/// The source's relation as a statement reads it: of an ordinary table only its own rows.
fn relation(plan: &TablePlan, with_heirs: bool) -> String {
    format!("{}{}", if with_heirs { "" } else { "only " }, plan.source.to_sql())
}
