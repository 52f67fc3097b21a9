//! Real PostgreSQL, Temporal and ClickHouse on a bare machine: no Docker, no root.
//!
//! - [`cache`]: where the pinned servers are kept, and how two processes share that place.
//! - [`download`], [`archive`]: fetching and unpacking, checksummed and atomic.
//! - [`platform`], [`account`]: what this machine is, and which user PostgreSQL runs as.
//! - [`process`]: child processes that never outlive their parent.
//! - [`postgres`], [`temporal`], [`clickhouse`]: the servers, each with `install` and a way to start it.
//! - [`scratch`]: directories of tests.
//! - [`progress`]: what a person sees while something is fetched or built.
//!
//! `install` functions block; call them from `tokio::task::spawn_blocking` in asynchronous code.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod account;
pub mod archive;
pub mod cache;
pub mod clickhouse;
pub mod download;
pub mod platform;
pub mod postgres;
pub mod process;
pub mod progress;
pub mod scratch;
pub mod temporal;

use millrace_terms::{Code, Error};

/// The failure of everything that this machine lacks or refuses.
pub(crate) fn unavailable(message: impl Into<String>) -> Error {
    Error::new(Code::EmbeddedUnavailable, message)
}
