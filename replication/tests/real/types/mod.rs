//! The table of types with both databases as oracles: PostgreSQL renders a value, ClickHouse tells what
//! it stores, and in between stand our two transcoders, of the text form and of the binary one.
//!
//! `MILLRACE_TEST_SEED` replays a run by the seed that it printed, `MILLRACE_TEST_SECONDS` makes it
//! longer.

mod chosen;
pub mod compare;
mod fixed;
mod forms;
mod kinds;
mod literal;
pub mod pair;
mod policy;
pub mod random;
mod streamed;
