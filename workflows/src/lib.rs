//! The orchestration: Temporal workflows, and the contract of the activities they call.
//!
//! Deterministic, no I/O: everything here is replayed from a history, on any worker, years later.
//! The `activities` crate implements what [`contract`] declares; the server starts, signals and
//! updates workflows by their types.
//!
//! - [`ids`]: workflow ids, task queues, search attributes.
//! - [`payload`]: what travels between workflows, activities and the server: names and positions,
//!   never rows or secrets.
//! - [`contract`]: the activities, by name, input and output.
//! - [`options`]: how each activity is retried and timed out, and why.
//! - [`failure`]: errors of ours as failures of Temporal's, and back.
//! - [`phase`]: the phases of a mirror, as a table.
//! - [`decide`]: what a mirror does next; pure.
//! - The workflows: [`MirrorWorkflow`] (an entity), its children [`StreamWorkflow`] and
//!   [`SnapshotWorkflow`], and [`DropMirrorWorkflow`], [`VerifyWorkflow`], [`CheckWorkflow`],
//!   [`HousekeepingWorkflow`].
//!
//! A change to a workflow's steps needs `ctx.patched("...")` and a recorded history that proves it:
//! see `histories/README.md`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod contract;
pub mod decide;
pub mod failure;
pub mod ids;
pub mod options;
pub mod payload;
pub mod phase;

mod check;
mod children;
mod drop_mirror;
mod housekeeping;
mod mirror;
mod snapshot;
mod stream;
mod verify;

pub use check::CheckWorkflow;
pub use drop_mirror::DropMirrorWorkflow;
pub use housekeeping::HousekeepingWorkflow;
pub use mirror::MirrorWorkflow;
pub use snapshot::SnapshotWorkflow;
pub use stream::StreamWorkflow;
pub use verify::VerifyWorkflow;
