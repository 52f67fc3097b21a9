//! The activities, as workflows see them. `activities` implements them by
//! `#[activity(definition = ...)]`: another input or output there is a compile error.
//!
//! The names are in histories: they are never changed.

#![expect(missing_docs, reason = "the marker types are generated; the methods they stand for are documented")]
#![expect(clippy::unimplemented, reason = "the macro asks for exactly this body; it is never called")]

use millrace_terms::Lsn;
use temporalio_macros::activity_definitions;

use crate::payload::{
    CheckInput, Comparer, ComparerReport, Copier, CopierReport, CopyFailure, CopyPlan, CopyResult,
    DropReport, DropScope, HousekeepingReport, Leftover, MirrorRef, MirrorReport, Note, Overview,
    ResyncInput, SourceInput, StreamEnd, StreamRef, TableCopy, VerifyEnd, VerifyPlan, VerifyRef,
    VerifyReport, WorkflowIds,
};

pub use check_activities::Check;
pub use drop_activities::{AwaitClosed, BeginDrop, DropDestination, DropSource, ForgetMirror};
pub use housekeeping_activities::Housekeep;
pub use mirror_activities::{
    BeginResync, EditTables, NoteEvent, PrepareDestination, PrepareSource, RecordMirror,
};
pub use snapshot_activities::{CopyPartitions, FailCopy, FinishCopy, PlanPartitions, TakeEpoch};
pub use stream_activities::Stream;
pub use verify_activities::{CompareRanges, EndVerification, PlanVerification};

/// Steps of a mirror.
pub struct MirrorActivities;

#[activity_definitions]
impl MirrorActivities {
    /// Writes the mirror's phase and error into the catalog, and reads back what is to be done.
    /// Tables of a mirror without a copy begin to stream here.
    #[activity(name = "record_mirror")]
    pub fn record_mirror(report: MirrorReport) -> Overview {
        unimplemented!()
    }

    /// Makes the publication, commits it, and only then the slot (never the other way round:
    /// pgoutput looks the publication up in the past). What exists and is ours is kept. A stream that
    /// cannot go on from its position begins anew, if that is asked for; else the error says why.
    #[activity(name = "prepare_source")]
    pub fn prepare_source(input: SourceInput) -> () {
        unimplemented!()
    }

    /// Makes the database and the tables.
    #[activity(name = "prepare_destination")]
    pub fn prepare_destination(mirror: MirrorRef) -> () {
        unimplemented!()
    }

    /// Brings tables into RESYNCING, so that they are due. Those that their plan or the stream does not
    /// fit any more are planned anew, and the stream's attempt is replaced by one that knows the plan.
    #[activity(name = "begin_resync")]
    pub fn begin_resync(input: ResyncInput) -> () {
        unimplemented!()
    }

    /// Has tables that were added join the mirror, and those that were removed leave it: publication,
    /// destination, the stream's knowledge of them. A table that cannot join goes to ERROR.
    #[activity(name = "edit_tables")]
    pub fn edit_tables(mirror: MirrorRef) -> () {
        unimplemented!()
    }

    /// Writes an event of the mirror.
    #[activity(name = "note_event")]
    pub fn note_event(note: Note) -> () {
        unimplemented!()
    }
}

/// Steps of one copy of one table.
pub struct SnapshotActivities;

#[activity_definitions]
impl SnapshotActivities {
    /// Takes the position that separates the copy from the stream, and waits until every
    /// transaction that was open then is over. A copy that has one keeps it.
    #[activity(name = "take_epoch")]
    pub fn take_epoch(copy: TableCopy) -> Lsn {
        unimplemented!()
    }

    /// Cuts the table into ranges of blocks, into the catalog. A copy that is cut stays cut.
    #[activity(name = "plan_partitions")]
    pub fn plan_partitions(copy: TableCopy) -> CopyPlan {
        unimplemented!()
    }

    /// Copies one partition after the other until none of the copy is left.
    #[activity(name = "copy_partitions")]
    pub fn copy_partitions(copier: Copier) -> CopierReport {
        unimplemented!()
    }

    /// Waits until the stream has passed the end of the last read, deletes what older copies left
    /// behind, and lets the table stream.
    #[activity(name = "finish_copy")]
    pub fn finish_copy(copy: TableCopy) -> CopyResult {
        unimplemented!()
    }

    /// Puts the table into ERROR.
    #[activity(name = "fail_copy")]
    pub fn fail_copy(failure: CopyFailure) -> () {
        unimplemented!()
    }
}

/// The stream.
pub struct StreamActivities;

#[activity_definitions]
impl StreamActivities {
    /// Streams changes until it is cancelled.
    #[activity(name = "stream")]
    pub fn stream(stream: StreamRef) -> StreamEnd {
        unimplemented!()
    }
}

/// Steps of dropping a mirror. Each may be repeated.
pub struct DropActivities;

#[activity_definitions]
impl DropActivities {
    /// Marks the mirror as dropped and takes its leases, so that no attempt can write any more.
    #[activity(name = "begin_drop")]
    pub fn begin_drop(mirror: MirrorRef) -> DropScope {
        unimplemented!()
    }

    /// Ends our own walsender, drops slot and publication.
    #[activity(name = "drop_source")]
    pub fn drop_source(mirror: MirrorRef) -> Vec<Leftover> {
        unimplemented!()
    }

    /// Drops the destination tables that the mirror made.
    #[activity(name = "drop_destination")]
    pub fn drop_destination(mirror: MirrorRef) -> Vec<Leftover> {
        unimplemented!()
    }

    /// Waits until workflows have closed, so that their ids are free.
    #[activity(name = "await_closed")]
    pub fn await_closed(workflows: WorkflowIds) -> () {
        unimplemented!()
    }

    /// Deletes the mirror from the catalog, and writes down what stays behind.
    #[activity(name = "forget_mirror")]
    pub fn forget_mirror(report: DropReport) -> () {
        unimplemented!()
    }
}

/// Checks of what is not stored yet.
pub struct CheckActivities;

#[activity_definitions]
impl CheckActivities {
    /// Checks a draft and writes the answer into it. What is wrong with a peer is part of the
    /// answer; this fails only when the catalog does.
    #[activity(name = "check")]
    pub fn check(input: CheckInput) -> () {
        unimplemented!()
    }
}

/// Regular work for all mirrors.
pub struct HousekeepingActivities;

#[activity_definitions]
impl HousekeepingActivities {
    /// Moves idle slots forward, measures lag, deletes what is past its time.
    #[activity(name = "housekeep")]
    pub fn housekeep() -> HousekeepingReport {
        unimplemented!()
    }
}

/// Steps of a comparison of tables with their sources.
pub struct VerifyActivities;

#[activity_definitions]
impl VerifyActivities {
    /// Cuts the tables into ranges, into the catalog. A table that is cut stays cut.
    #[activity(name = "plan_verification")]
    pub fn plan_verification(verify: VerifyRef) -> VerifyPlan {
        unimplemented!()
    }

    /// Compares one range after the other, and mends what differs if that was asked for, until none is
    /// left.
    #[activity(name = "compare_ranges")]
    pub fn compare_ranges(comparer: Comparer) -> ComparerReport {
        unimplemented!()
    }

    /// Writes down that the comparison is over, and tells of it by an event.
    #[activity(name = "end_verification")]
    pub fn end_verification(end: VerifyEnd) -> VerifyReport {
        unimplemented!()
    }
}
