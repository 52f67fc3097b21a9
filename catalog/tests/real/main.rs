//! The catalog on a real PostgreSQL: one cluster for all tests, a database for each.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by a panic.

mod append;
mod copies;
mod database;
mod edits;
mod leaves;
mod migration;
mod mirrors;
mod peers;
mod purges;
mod streams;
mod tokens;
mod verifications;
