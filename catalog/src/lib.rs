//! Typed access to the metadata PostgreSQL, the *catalog*.
//!
//! - [`spec`]: what users ask for: peers, mirrors, settings.
//! - [`names`]: the names of everything made on a source.

pub mod names;
pub mod spec;
