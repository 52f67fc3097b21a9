//! Between the API's messages and the catalog's specs and rows.
//!
//! Pure: no I/O.

pub(crate) mod access;
pub(crate) mod filter;
pub(crate) mod mirror;
pub(crate) mod peer;
pub(crate) mod progress;
pub(crate) mod stream;
pub(crate) mod system;
pub(crate) mod verification;
pub(crate) mod view;
