//! The table of types with both databases as oracles: PostgreSQL renders a value, ClickHouse tells what
//! it stores, and in between stand our two transcoders, of the text form and of the binary one.
//!
//! `MILLRACE_TEST_SEED` replays a run by the seed that it printed, `MILLRACE_TEST_SECONDS` makes it
//! longer.

mod chosen;
mod compare;
mod fixed;
mod forms;
mod kinds;
mod literal;
mod pair;
mod policy;
mod random;
mod streamed;
