//! What a stream is given, and what it tells. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millrace_terms::{Error, Lsn};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::append::{AppendState, Cut};
use super::batcher::Limits;
use super::memory::MemoryBudget;
use super::schema::{Rules, SchemaChange};
use crate::block::Nulled;
use crate::clickhouse::Clickhouse;
use crate::postgres::{SourceConfig, System};
use crate::table::TablePlan;

/// What a stream needs to run.
#[derive(Debug, Clone)]
pub struct StreamConfig {
    /// The source.
    pub source: SourceConfig,
    /// The destination.
    pub sink: Clickhouse,
    /// Name of the destination's cluster for physical deletes; empty for a single server.
    pub cluster: String,
    /// Name of the mirror, and of this attempt: they make the ids of our queries.
    pub mirror: String,
    /// Such as `0.17` for lease 17 of stream 0.
    pub attempt: String,
    /// Name of the slot.
    pub slot: String,
    /// Name of the publication.
    pub publication: String,
    /// The `application_name` of this attempt's sessions. It ends in `/` and the lease's number.
    pub application: String,
    /// Sets this log apart from those the source had before (see `version`).
    pub base: u64,
    /// Whose log is streamed. A server that writes another one is refused, although it has the slot.
    pub system: System,
    /// Where to begin: the position in the catalog.
    pub start: Lsn,
    /// What may be left of older attempts.
    pub older: Older,
    /// The tables; those in error are not among them.
    pub tables: Vec<StreamTable>,
    /// When rows are sent.
    pub limits: Limits,
    /// The worker's memory.
    pub memory: Arc<MemoryBudget>,
    /// Whether values may come in binary form. It is asked for only if that is safe for every column
    /// of every table, replicated or not.
    pub binary: bool,
}

/// What may be left of older attempts. Their inserts are harmless, unless rows were deleted
/// physically before them: a delete waits for them.
#[derive(Debug, Clone)]
pub struct Older {
    /// Until then one of them may be sending.
    pub until: Instant,
    /// What the ids of their inserts begin with.
    pub inserts: Vec<String>,
}

/// A table of a stream.
#[derive(Debug, Clone)]
pub struct StreamTable {
    /// Its id in the catalog.
    pub id: i64,
    /// How it is replicated.
    pub plan: Arc<TablePlan>,
    /// How it follows its source.
    pub rules: Arc<Rules>,
    /// Versions below which rows were deleted physically: nothing below is written any more.
    pub floor: u128,
    /// How far it is, if its rows are only ever inserted.
    pub append: Option<AppendState>,
    /// OIDs of the relations that hold its rows, as far as they are known, each with the commit from
    /// which on it does not any more.
    pub leaves: BTreeMap<u32, Option<Lsn>>,
}

/// What a running stream is steered by, and where it tells how it goes.
#[derive(Debug)]
pub struct StreamHandle {
    /// What happens, in order: a report must be stored before a [`Report::Position`] behind it is,
    /// because that position leaves out what the earlier report tells of.
    pub reports: mpsc::Sender<Report>,
    /// The position that is stored. Only this is acknowledged to the slot.
    pub confirmed: watch::Receiver<Lsn>,
    /// Rows of commits below this position may be written: it is stored that they may have been (see
    /// `version`, a log that forks). Raised upon [`Report::Ahead`].
    pub announced: watch::Receiver<Lsn>,
    /// The cuts of append-only tables that are stored, by the table's id. Told by [`Report::Cut`].
    pub cuts: watch::Receiver<BTreeMap<i64, Cut>>,
    /// How many of the reports [`Report::Followed`] are stored.
    pub followed: watch::Receiver<u64>,
    /// Until when the lease is held. When it has passed, nothing is sent any more.
    pub lease_deadline: watch::Receiver<Instant>,
    /// Ends the stream: it stops reading, sends what it has, and returns.
    pub cancel: CancellationToken,
}

/// What a stream tells. Times are microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Everything up to there has arrived. To be stored, and then published as confirmed.
    Position {
        /// The position.
        lsn: Lsn,
        /// When the last transaction below it was committed; none if there was none yet.
        committed_at: Option<i64>,
    },
    /// A table cannot go on; it is left out from here on and recovers by a resync. To be stored before
    /// a later position.
    TableFailed {
        /// Its id.
        id: i64,
        /// Why.
        error: Error,
    },
    /// The set of relations that hold a table's rows may be another now: it is to be compared.
    LeavesSeen {
        /// The table's id.
        id: i64,
    },
    /// A part of a table was truncated: its rows cannot be told from the others. The table goes on. To
    /// be stored before a later position.
    PartTruncated {
        /// The table's id.
        id: i64,
        /// What happened.
        reason: Error,
    },
    /// A table cannot be followed by its changes alone any more, and nobody need decide anything: it is
    /// left out from here on and copied again. To be stored before a later position.
    ResyncNeeded {
        /// Its id.
        id: i64,
        /// Why.
        reason: Error,
    },
    /// The table follows a change on the source by another plan. To be stored before a later position,
    /// and then counted by [`StreamHandle::followed`]: only then is ClickHouse's table altered.
    Followed {
        /// Its id.
        id: i64,
        /// The plan from now on.
        plan: Arc<TablePlan>,
        /// What happened; nothing where only what was seen of the source is brought up to date.
        changes: Vec<SchemaChange>,
    },
    /// Rows below this version were deleted physically: a TRUNCATE. To be stored before a later
    /// position, and repeated when a copy of the table that is running ends.
    Floor {
        /// The table's id.
        id: i64,
        /// The version.
        version: u128,
    },
    /// Rows of this commit are going to be written, and it lies beyond what is announced: they wait.
    Ahead {
        /// The commit.
        lsn: Lsn,
    },
    /// A batch of an append-only table is about to be sent: it waits until its cut is stored.
    Cut {
        /// The table's id.
        id: i64,
        /// The batch.
        cut: Cut,
    },
    /// The stream has ended, and nothing is under way: neither this attempt nor one before it wrote what
    /// is the effect of a commit from there on. Far less than what was announced.
    Written {
        /// The position.
        below: Lsn,
    },
    /// An insert has arrived.
    Flushed {
        /// The table's id.
        id: i64,
        /// Rows by what made them.
        counts: Counts,
        /// Bytes as they were sent, before compression.
        bytes: u64,
        /// Values that became NULL.
        nulled: Nulled,
        /// From the beginning of its last step to its acknowledgement.
        took: Duration,
    },
    /// An insert failed and is tried again.
    Waiting {
        /// The table's id.
        id: i64,
        /// Why.
        error: Error,
    },
    /// Where the source's log ended when it told last.
    WalEnd {
        /// The end.
        lsn: Lsn,
        /// When, by the source's clock.
        at: i64,
    },
}

/// Changes by their kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows inserted.
    pub inserts: u64,
    /// Rows updated.
    pub updates: u64,
    /// Rows deleted.
    pub deletes: u64,
}

/// Microseconds from 1970, as we tell time, to 2000, as PostgreSQL does.
pub(super) const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// PostgreSQL's time as ours.
pub(super) fn unix_micros(postgres: i64) -> i64 {
    postgres.saturating_add(POSTGRES_EPOCH_MICROS)
}
