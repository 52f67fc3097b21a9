//! Typed access to the metadata PostgreSQL, the *catalog*.
//!
//! What users ask for, and pure decisions:
//! - [`spec`]: peers, mirrors, settings, as users write them.
//! - [`names`]: the names of everything made on a source.
//! - [`spread`]: which stream of a mirror a table belongs to.
//! - [`state`]: the states of tables, mirrors and streams, and what may follow what.
//! - [`difference`]: how two specs differ, in words and without secrets.
//! - [`sealing`]: secrets as they are stored.
//! - [`failure`]: a failure as it is stored.
//! - [`health`]: how a stream fares; [`progress`]: how far a mirror is.
//! - [`slots`]: replication slots as they are seen, and how fast they fill.
//!
//! The database:
//! - [`migration`]: brings the schema up to date.
//! - [`connection`]: [`Catalog`], the bounded pool; its other methods are in the modules below.
//! - [`peers`], [`mirrors`], [`tables`], [`streams`]: what is replicated, and how far it is.
//! - [`follow`]: tables whose source changed.
//! - [`recovery`]: streams that begin anew, or follow their source to another timeline.
//! - [`copies`], [`partitions`]: copies of tables, and the queue that copiers share.
//! - [`append`]: tables whose rows arrive exactly once.
//! - [`edits`]: changes of a mirror while it runs.
//! - [`sharing`]: destination tables of several source tables.
//! - [`leaves`]: the relations that hold the rows of a table.
//! - [`rotation`]: what is sealed, under a new key.
//! - [`drafts`]: specs that are checked before they are stored, and the answers.
//! - [`tokens`], [`audit`]: who may call the API, and what was done through it.
//! - [`verifications`], [`verified_ranges`]: comparisons with the source, and the queue that workers share.
//! - [`batches`], [`events`]: figures and history, for people. [`retention`] deletes the old ones.
//!
//! A write by an attempt that may have been replaced is conditional: on the stream's lease, on the
//! number of the copy, or on the owner of the partition. If another has taken over, the write does
//! nothing and the error is `LEASE_LOST`: the caller stops.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod append;
pub mod audit;
pub mod batches;
pub mod connection;
pub mod copies;
pub mod difference;
pub mod drafts;
pub mod edits;
mod errors;
pub mod events;
pub mod failure;
pub mod follow;
pub mod health;
pub mod leaves;
pub mod migration;
pub mod mirrors;
pub mod names;
mod nulled;
pub mod page;
pub mod partitions;
pub mod peers;
pub mod progress;
pub mod purges;
pub mod recovery;
pub mod retention;
pub mod rotation;
pub mod sealing;
pub mod sharing;
pub mod slots;
pub mod spec;
pub mod spread;
mod sql;
pub mod state;
pub mod streams;
pub mod tables;
pub mod tokens;
pub mod verifications;
pub mod verified_ranges;

pub use connection::Catalog;
pub use migration::migrate;
pub use sealing::SecretKeys;
