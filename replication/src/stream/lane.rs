//! What is gathered for one table. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use millrace_terms::{Error, Lsn};
use tokio::time::Instant;

use super::append::{Append, Cut};
use super::batcher;
use super::config::{Counts, StreamTable};
use super::memory::Share;
use super::position::BatchId;
use super::schema::Rules;
use super::toast::Row;
use crate::block::{Block, Stamp};
use crate::clickhouse::Alter;
use crate::table::TablePlan;

/// A row that cannot be sent before large values of it are read from the source.
#[derive(Debug, Clone)]
pub(super) struct PendingRow {
    pub row: Row,
    pub stamp: Stamp,
    /// The transaction that must be visible to the snapshot in which the values are read.
    pub xid: u32,
}

/// Rows of one insert.
#[derive(Debug)]
pub(super) struct Batch {
    pub id: BatchId,
    /// The commit of its first row's transaction.
    pub from: Lsn,
    /// The commit of its last row's transaction.
    pub to: Lsn,
    pub block: Block,
    pub pending: Vec<PendingRow>,
    pending_bytes: usize,
    pub counts: Counts,
    pub since: Instant,
    pub share: Share,
    /// Of an append-only table: where it begins, and the token by which a repeat is recognised.
    pub cut: Option<(Cut, String)>,
}

impl Batch {
    pub(super) fn new(id: BatchId, from: Lsn, block: Block, share: Share, since: Instant) -> Self {
        Self {
            id,
            from,
            to: from,
            block,
            pending: Vec::new(),
            pending_bytes: 0,
            counts: Counts::default(),
            since,
            share,
            cut: None,
        }
    }

    /// A row that waits for its large values.
    pub(super) fn push_pending(&mut self, pending: PendingRow) {
        self.pending_bytes += pending.row.bytes();
        self.pending.push(pending);
    }

    pub(super) fn rows(&self) -> usize {
        self.block.rows() + self.pending.len()
    }

    /// Brings the worker's account up to date, and tells it.
    pub(super) fn account(&mut self) -> usize {
        let bytes = self.block.bytes() + self.pending_bytes;
        self.share.set(bytes);
        bytes
    }
}

/// What is sent as one step of a table.
#[derive(Debug)]
pub(super) enum Step {
    Insert(Box<Batch>),
    /// Deletes what is below a version: a TRUNCATE.
    Purge {
        id: BatchId,
        below: u128,
        since: Instant,
    },
    /// Follows a change of the source's table.
    Alter {
        id: BatchId,
        altering: Box<Altering>,
        since: Instant,
    },
}

/// A change of the source's table that is to be followed.
#[derive(Debug)]
pub(super) struct Altering {
    /// The plan by which the table goes on.
    pub plan: Arc<TablePlan>,
    pub alters: Vec<Alter>,
    /// Reports of plans that must be stored before.
    pub ticket: u64,
    /// Why the rows must be copied again, if they must.
    pub stale: Option<Error>,
}

/// One table.
#[derive(Debug)]
pub(super) struct Lane {
    pub id: i64,
    pub plan: Arc<TablePlan>,
    pub rules: Arc<Rules>,
    pub floor: u128,
    /// How far it is, if its rows are only ever inserted.
    pub append: Option<Append>,
    /// The batch to which rows are added.
    pub open: Option<Box<Batch>>,
    /// What is to be done in ClickHouse by the plans that were told, and is not known to be done: all of it
    /// is told with each plan, so that whoever goes on from there does it.
    pub pending: Vec<Alter>,
    /// Alterations that have not ended.
    altering: usize,
    queue: VecDeque<Step>,
    in_flight: usize,
    barred: bool,
    last_start: Option<Instant>,
    /// It has gone to ERROR and is left out.
    pub failed: bool,
}

impl Lane {
    pub(super) fn new(table: &StreamTable) -> Self {
        Self {
            id: table.id,
            plan: table.plan.clone(),
            rules: table.rules.clone(),
            floor: table.floor,
            append: table.append.as_ref().map(Append::new),
            open: None,
            pending: Vec::new(),
            altering: 0,
            queue: VecDeque::new(),
            in_flight: 0,
            barred: false,
            last_start: None,
            failed: false,
        }
    }

    /// Adds nothing more to the open batch.
    pub(super) fn seal(&mut self) {
        if let Some(batch) = self.ended_batch() {
            self.queue.push_back(Step::Insert(batch));
        }
    }

    /// The open batch, which ends here.
    fn ended_batch(&mut self) -> Option<Box<Batch>> {
        // Also without a batch: its rows may all be below the floor.
        let cut = self.append.as_mut().map(Append::cut);
        let mut batch = self.open.take()?;
        batch.cut = cut;
        Some(batch)
    }

    /// A physical delete, behind everything that was gathered.
    pub(super) fn purge(&mut self, id: BatchId, below: u128, since: Instant) {
        self.seal();
        self.queue.push_back(Step::Purge { id, below, since });
        self.floor = self.floor.max(below);
    }

    /// A change of the table, behind everything that was gathered. What follows is by the new plan.
    pub(super) fn alter(&mut self, id: BatchId, altering: Altering, since: Instant) {
        self.seal();
        self.altering += 1;
        self.plan = altering.plan.clone();
        self.queue.push_back(Step::Alter { id, altering: Box::new(altering), since });
    }

    /// An alteration has ended. Gives whether it was the last: ClickHouse's table fits the plan.
    pub(super) fn altered(&mut self) -> bool {
        self.altering = self.altering.saturating_sub(1);
        if self.altering == 0 {
            self.pending.clear();
        }
        self.altering == 0
    }

    /// Takes what is to be sent next.
    pub(super) fn start(&mut self, now: Instant) -> Option<Step> {
        let step = match self.queue.pop_front() {
            Some(step) => step,
            None => Step::Insert(self.ended_batch()?),
        };
        self.in_flight += 1;
        self.last_start = Some(now);
        self.barred = !matches!(step, Step::Insert(_));
        Some(step)
    }

    /// What was sent has ended.
    pub(super) fn ended(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.barred = false;
    }

    /// Leaves the table out from here on. Returns what will never be sent.
    pub(super) fn fail(&mut self) -> Vec<BatchId> {
        self.failed = true;
        self.seal();
        let id = |step: Step| match step {
            Step::Insert(batch) => batch.id,
            Step::Purge { id, .. } | Step::Alter { id, .. } => id,
        };
        self.queue.drain(..).map(id).collect()
    }

    /// Whether the open batch is the repeat of a larger one.
    pub(super) fn is_partial(&self) -> bool {
        self.append.as_ref().is_some_and(Append::is_partial)
    }

    /// Takes out the batch that cannot be sent for lack of rows, if the stream ends here. It is read
    /// again.
    pub(super) fn drop_partial(&mut self) {
        if self.is_partial() {
            self.open = None;
        }
    }

    /// Whether there is nothing to send.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_none() && self.queue.is_empty()
    }

    /// What the batcher is to know.
    pub(super) fn state(&self) -> batcher::Lane {
        let head = match self.queue.front() {
            Some(Step::Insert(batch)) => Some(batcher::Head::Sealed(batch.since)),
            Some(Step::Purge { since, .. } | Step::Alter { since, .. }) => {
                Some(batcher::Head::Barrier(*since))
            }
            None if self.is_partial() => None,
            None => self.open.as_ref().map(|batch| batcher::Head::Gathering(batch.since)),
        };
        // Only the last batch of an append-only table may be repeated, so there is one at a time.
        let barred = self.barred || self.append.is_some() && self.in_flight > 0;
        batcher::Lane { head, in_flight: self.in_flight, barred, last_start: self.last_start }
    }
}
