//! The source, the copy, the stream and the types against real servers. One binary, so that it is linked
//! once and the servers are started once; every test has a database of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // this is how tests fail

mod append;
mod converge;
mod copy;
mod fairness;
mod generated;
mod identity;
mod inverted;
mod keys;
mod leaves;
mod mirror;
mod schema;
mod servers;
mod shared;
mod source;
mod standby;
mod stream;
mod timeline;
mod tls;
mod types;
mod unseen;
mod verify;
