//! The terms that every crate shares, so that each has one meaning and one spelling.
//!
//! - [`check`]: what is looked at before and while something is replicated, and the verdicts.
//! - [`Code`]: the registry of error codes. Every code says what kind of failure it is, whether a
//!   retry can help and what its remedy is. gRPC, REST, the CLI, logs and workflow failures show
//!   the same code.
//! - [`Error`]: one occurrence: a code, what was seen, and the object at fault.
//! - [`EventCode`]: the registry of events that are no errors.
//! - [`fault`]: places where a test lets a process die.
//! - [`Lsn`]: a position in PostgreSQL's log.
//! - [`TableName`]: a table on the source, quoted and parsed as SQL does.
//!
//! A code exists only if a user or a program reacts differently to it. Codes are never renamed and
//! never reused: they are part of the API.

pub mod check;
mod code;
mod error;
mod event;
pub mod fault;
mod lsn;
mod table_name;

pub use code::{Class, Code};
pub use error::{Error, Result};
pub use event::EventCode;
pub use lsn::Lsn;
pub use table_name::{TableName, quote_ident};
