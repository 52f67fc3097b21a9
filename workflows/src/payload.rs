//! What travels through Temporal: names, numbers, positions and errors. Histories are kept for
//! weeks and shown in a UI, so nothing here may hold a secret or a row's value.
//!
//! New fields need `#[serde(default)]`: histories of older releases are replayed.
//!
//! Pure: no I/O.

use millrace_terms::{Error, Lsn};
use serde::{Deserialize, Serialize};

use crate::decide::Progress;
use crate::phase::Phase;

/// Starts a mirror's workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorInput {
    /// Name of the mirror; everything else is in the catalog.
    pub mirror: String,
    /// Where the run before this one stood; none at the first start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

impl MirrorInput {
    /// The first start.
    pub fn new(mirror: impl Into<String>) -> Self {
        Self { mirror: mirror.into(), progress: None }
    }
}

/// Names a mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorRef {
    /// Its name.
    pub mirror: String,
}

/// Starts the preparation of a mirror's source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceInput {
    /// The mirror.
    pub mirror: String,
    /// What made a stream fail, if it may have to begin anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// Numbers of the streams that run: their attempts look at the source by themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub running: Vec<u32>,
}

/// The failure of a stream that cannot go on from where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// The failure.
    pub error: Error,
    /// Whether a person saw it and asks to begin anew; otherwise the mirror's policy decides.
    pub asked: bool,
}

/// Names one stream of a mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRef {
    /// The mirror.
    pub mirror: String,
    /// Number of the stream; the first is 0.
    pub stream: u32,
}

/// Names one copy of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableCopy {
    /// The mirror.
    pub mirror: String,
    /// The table's id in the catalog.
    pub table_id: i64,
    /// Its name on the source, `schema.table`.
    pub table: String,
    /// Number of the copy; a resync has the next one.
    pub copy_no: u32,
}

/// Starts the workflow that copies one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInput {
    /// The copy.
    pub copy: TableCopy,
    /// Number of COPYs at once, at least 1.
    pub copiers: u32,
}

/// What a mirror's workflow tells the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorReport {
    /// The mirror.
    pub mirror: String,
    /// Where it stands.
    pub phase: Phase,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
    /// Ids of the tables that are being copied; they are not due.
    #[serde(default)]
    pub copying: Vec<i64>,
    /// Whether a resync that somebody asked for is being begun.
    #[serde(default)]
    pub resyncing: bool,
}

/// What the catalog tells a mirror's workflow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    /// The mirror's state, as the API names it.
    pub state: String,
    /// Number of its tables, by state.
    pub tables: TableCounts,
    /// Numbers of its streams.
    #[serde(default)]
    pub streams: Vec<u32>,
    /// Tables to be copied next, at most `parallel_tables`.
    #[serde(default)]
    pub due: Vec<DueTable>,
    /// Most tables copied at once.
    pub parallel_tables: u32,
    /// Most COPYs at once, all tables together.
    pub parallel_partitions: u32,
    /// Whether the mirror has nothing left to do: it only copies, and every copy is over.
    #[serde(default)]
    pub complete: bool,
    /// Whether there are tables that must be copied again although nobody asked for it.
    #[serde(default)]
    pub resync_needed: bool,
    /// Ids of tables whose copy was reported to run, and is over in the catalog: they are paused, dropped
    /// or in error.
    #[serde(default)]
    pub over: Vec<i64>,
    /// Number of tables that were added or removed, and for which something is left to do.
    #[serde(default)]
    pub edits: u32,
}

/// Number of a mirror's tables, by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableCounts {
    /// All.
    pub total: u32,
    /// Not begun.
    pub pending: u32,
    /// Being copied, for the first time or again.
    pub copying: u32,
    /// Copied, and following.
    pub streaming: u32,
    /// Paused.
    pub paused: u32,
    /// Stopped by an error.
    pub error: u32,
}

/// A table to be copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueTable {
    /// Its id in the catalog.
    pub id: i64,
    /// Its name on the source, `schema.table`.
    pub table: String,
    /// Number of the copy to be made.
    pub copy_no: u32,
    /// Its size in bytes, estimated; decides how many copiers it gets.
    pub bytes: u64,
}

/// How a table was cut up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyPlan {
    /// Number of partitions.
    pub partitions: u32,
    /// Size of the table in bytes.
    pub bytes: u64,
}

/// Starts one copier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copier {
    /// The copy it takes part in.
    pub copy: TableCopy,
    /// Its number among the copiers of this copy, from 0.
    pub number: u32,
}

/// What the last attempt of a copier did; attempts before it have recorded theirs in the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopierReport {
    /// Partitions finished.
    pub partitions: u32,
    /// Rows copied.
    pub rows: u64,
}

/// A copy that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyResult {
    /// Rows copied, all copiers together.
    pub rows: u64,
}

/// A copy that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyFailure {
    /// The copy.
    pub copy: TableCopy,
    /// Why.
    pub error: Error,
}

/// Tables to be copied again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResyncInput {
    /// The mirror.
    pub mirror: String,
    /// Which tables.
    pub which: Resync,
}

/// Which tables are to be copied again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resync {
    /// Every table: a person asks for it.
    All,
    /// The table of this id: a person asks for it.
    Table(i64),
    /// Those that the catalog says need it. What fails for one of them is that table's error.
    Needed,
}

/// Something worth an event of the mirror that stops nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The mirror.
    pub mirror: String,
    /// The table it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_id: Option<i64>,
    /// What happened.
    pub error: Error,
}

/// How far a stream came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEnd {
    /// Everything committed up to here is in the destination.
    pub position: Lsn,
}

/// How a child of the mirror's workflow ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its work is done.
    Done,
    /// It was told to stop, and did.
    Stopped,
    /// It failed, and trying again does not help until a person did something.
    Failed(Error),
}

/// Signal to the mirror's workflow: a copy ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyEnded {
    /// The table's id in the catalog.
    pub table_id: i64,
    /// Number of the copy.
    pub copy_no: u32,
    /// How.
    pub outcome: Outcome,
}

/// Signal to the mirror's workflow: a stream ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEnded {
    /// Number of the stream.
    pub stream: u32,
    /// How.
    pub outcome: Outcome,
}

/// Answer of a mirror's workflow to updates and queries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorStatus {
    /// Where it stands.
    pub phase: Phase,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
    /// What the catalog said last.
    pub overview: Overview,
    /// Numbers of its streams that run.
    pub streaming: Vec<u32>,
    /// Names of the tables that are being copied.
    pub copying: Vec<String>,
}

/// The children that a mirror's workflow takes for alive, those among them that were told to stop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Children {
    /// Numbers of its streams.
    pub streams: Vec<u32>,
    /// Its copies.
    pub copies: Vec<TableCopy>,
}

/// Signal to the mirror's workflow: how the mirror is, for Temporal's UI.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// When, in seconds since 1970.
    pub at: i64,
    /// The same for people.
    pub as_of: String,
    /// How the stream fares that fares worst, as the API names it; empty before they begin.
    pub verdict: String,
    /// Why that one is STALLED: code and words; empty otherwise.
    pub stalled: String,
    /// Number of tables.
    pub tables: u64,
    /// Number of those that are copied whole, and stream.
    pub tables_done: u64,
    /// Rows copied.
    pub rows_copied: u64,
    /// Rows of all tables, estimated.
    pub rows_estimated: u64,
    /// Rows per second of the copies that run; none if none runs.
    pub copied_per_s: Option<u64>,
    /// Seconds until every table is copied; none if that cannot be told.
    pub eta_s: Option<u64>,
    /// Rows per second that the streams wrote over the last minute.
    pub streamed_per_s: u64,
    /// Bytes by which the stream lags that lags most; none if that is not known.
    pub lag_bytes: Option<u64>,
    /// Seconds by which the stream lags that lags most; none if that is not known.
    pub lag_s: Option<u64>,
    /// Whether the namespace has the search attributes for them.
    pub is_indexed: bool,
}

/// How a mirror is dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropOptions {
    /// Whether the destination tables are dropped too.
    pub destination_tables: bool,
    /// Whether the mirror is kept, half dropped, when something of it cannot be removed: what it made is
    /// known then, and it can be dropped again.
    #[serde(default)]
    pub keep_if_left: bool,
}

/// Starts the workflow that drops a mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropInput {
    /// The mirror.
    pub mirror: String,
    /// How.
    pub options: DropOptions,
}

/// What of a mirror may still be running when it is dropped, and what it made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropScope {
    /// Numbers of its streams.
    pub streams: Vec<u32>,
    /// Copies that are not over.
    pub copies: Vec<TableCopy>,
    /// What it made on the source, such as `replication slot millrace_a1b2c3_shop`.
    #[serde(default)]
    pub source_objects: Vec<String>,
    /// What it made in the destination.
    #[serde(default)]
    pub destination_objects: Vec<String>,
}

/// Names workflows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowIds {
    /// Their ids.
    pub ids: Vec<String>,
}

/// Something that could not be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// What, such as `replication slot millrace_a1b2c3_shop`.
    pub object: String,
    /// Why.
    pub error: Error,
}

/// A mirror that was dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropReport {
    /// The mirror.
    pub mirror: String,
    /// What stays behind; empty if everything was removed.
    pub leftovers: Vec<Leftover>,
    /// Whether the mirror is kept because of them.
    #[serde(default)]
    pub kept: bool,
}

/// Starts a check: of a peer, a mirror's specification, or a listing of tables. What is checked,
/// and the answer, are in the draft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckInput {
    /// Id of the draft, a UUID.
    pub draft: String,
}

/// What a round of housekeeping did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HousekeepingReport {
    /// Streams looked at.
    pub streams: u32,
    /// Streams whose source could not be reached.
    pub unreachable: u32,
    /// Rows of the catalog that were past their time.
    pub expired: u64,
}

/// Names a comparison of a mirror's tables with their sources. What is asked for, and what is found, are in
/// the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyRef {
    /// The mirror.
    pub mirror: String,
    /// Id of the comparison, a UUID.
    pub id: String,
}

/// How the tables of a comparison were cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyPlan {
    /// Tables that are compared.
    pub tables: u32,
    /// Tables that are not.
    pub skipped: u32,
    /// Ranges to be compared.
    pub ranges: u64,
}

/// Starts one that compares ranges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparer {
    /// The comparison it takes part in.
    pub verify: VerifyRef,
    /// Its number among them, from 0.
    pub number: u32,
}

/// What the last attempt of one that compares did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparerReport {
    /// Ranges compared.
    pub ranges: u64,
}

/// Ends a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyEnd {
    /// The comparison.
    pub verify: VerifyRef,
    /// How it ended.
    pub outcome: Outcome,
}

/// What a comparison found: numbers only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Rows of the sources that were compared.
    pub rows: u64,
    /// Rows that differ.
    pub differences: u64,
    /// How many of these were mended.
    pub mended: u64,
    /// Rows of which nothing is certain.
    pub unsettled: u64,
    /// Tables that were not compared, or not to their end.
    pub skipped: u32,
}
