//! The copy of a table, and the destination: what is read from PostgreSQL is what is in ClickHouse.

mod destination;
mod partitions;
mod reshaped;
mod types;
mod work;
