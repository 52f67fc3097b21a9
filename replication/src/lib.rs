//! The data plane: from PostgreSQL's wire bytes to ClickHouse's columns.
//!
//! - [`addresses`]: which addresses peers may have.
//! - [`table`]: what is known of one table: its columns, key, and how each column is transcoded.
//! - [`types`]: the table of types, and the transcoding of one value in either of its wire forms.
//! - [`block`]: rows of one table on their way to ClickHouse, column by column.
//! - [`clickhouse`]: the destination: statements, inserts, tables.
//! - [`copy`]: the copy of one partition of a table.
//! - [`fuzz`]: any bytes into whatever reads bytes of a source.
//! - [`check`]: one verdict of a validation.
//! - [`postgres`]: everything that is asked of a source outside its replication protocol.
//! - [`pgoutput`]: the decoder of the replication protocol's messages.
//! - [`stream`]: every committed change of the tables, from the slot into ClickHouse.
//! - [`share`]: whether two source tables fit into one destination table.
//! - [`verify`]: whether a destination table holds what its source table does, and how it is mended.
//! - [`version`]: the versions of rows, and why they make the destination equal to the source.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod addresses;
pub mod block;
pub mod clickhouse;
mod column;
pub mod copy;
pub mod fuzz;
mod native;
pub mod pgoutput;
pub mod postgres;
pub mod share;
pub mod stream;
pub mod table;
pub mod types;
pub mod verify;
pub mod version;

pub use block::{Block, key_equals};
