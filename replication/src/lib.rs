//! The data plane: from PostgreSQL's wire bytes to ClickHouse's columns.
//!
//! - [`table`]: what is known of one table: its columns, key, and how each column is transcoded.

pub mod table;
pub mod types;
