//! The data plane: from PostgreSQL's wire bytes to ClickHouse's columns.
//!
//! - [`table`]: what is known of one table: its columns, key, and how each column is transcoded.
//! - [`types`]: the table of types, and the transcoding of one value in either of its wire forms.
//! - [`block`]: rows of one table on their way to ClickHouse, column by column.
//! - [`check`]: one verdict of a validation.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod block;
pub mod check;
mod column;
mod native;
pub mod table;
pub mod types;

pub use block::{Block, key_equals};
