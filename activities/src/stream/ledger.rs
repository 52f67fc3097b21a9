//! Writes down what a running stream reports, in its order: what a position leaves out is stored
//! before that position is. Only a stored position is confirmed to the source.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use millrace_catalog::append::Cut;
use millrace_catalog::batches::NewBatch;
use millrace_catalog::events::{NewEvent, Severity};
use millrace_catalog::follow::Followed;
use millrace_catalog::spec::OnPartitionRemoved;
use millrace_catalog::state::Verdict;
use millrace_catalog::streams::Progress;
use millrace_catalog::tables::TableChanges;
use millrace_replication::block::Nulled;
use millrace_replication::stream::{self, Report, SchemaChange};
use millrace_replication::table::TablePlan;
use millrace_terms::fault::{self, Point};
use millrace_terms::{Code, Error, EventCode, Lsn, Result};
use millrace_workflows::payload::StreamRef;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::apart::Stored;
use crate::environment::{Environment, plan_value};
use crate::leaves::resynced;
use crate::metrics::StreamLabels;
use crate::stream::figures::{Marks, Meter};
use crate::stream::looks::LogEnd;

/// Time between two writes of the position. Repeats are harmless, and the catalog has others to
/// serve.
const POSITION_INTERVAL: Duration = Duration::from_millis(500);

/// Time that one row of `batches` stands for, and between two looks at the stream's health.
const BATCH_INTERVAL: Duration = Duration::from_secs(10);

/// Steps in which it is announced how far rows may have been written: one statement for a GiB of log.
const ANNOUNCE_STEP: u64 = 1 << 30;

/// Pause before a write that could not be done is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What was reported and is not written down yet.
pub(super) struct Ledger<'a> {
    environment: &'a Environment,
    stream: &'a StreamRef,
    lease: i64,
    /// Until when, by our own clock.
    until: watch::Receiver<Instant>,
    told: Told<'a>,
    on_partition_removed: OnPartitionRemoved,
    progress: Progress,
    /// What the catalog has of it.
    written: Progress,
    changes: BTreeMap<i64, TableChanges>,
    /// Values that became NULL, by the table's id.
    nulled: BTreeMap<i64, Nulled>,
    batch: NewBatch,
    batch_begun: Instant,
    meter: Meter,
    marks: Marks,
    log_end: watch::Receiver<LogEnd>,
    verdict: Option<Verdict>,
    /// Why an insert is being tried again; none when one succeeded since.
    waiting: Option<Error>,
}

/// The lease of the attempt.
pub(super) struct Held {
    /// Its number.
    pub(super) lease: i64,
    /// Until when it is held.
    pub(super) until: watch::Receiver<Instant>,
}

/// What the data plane, and the mirror, are told when it is stored.
pub(super) struct Told<'a> {
    /// The position.
    pub(super) confirm: watch::Sender<Lsn>,
    /// Rows of commits below it may be written.
    pub(super) announce: watch::Sender<Lsn>,
    /// Batches of append-only tables, by the table's id, may be sent.
    pub(super) cut: watch::Sender<BTreeMap<i64, stream::Cut>>,
    /// Notified when a table may have another set of partitions.
    pub(super) leaves: Arc<Notify>,
    /// The plans that are stored.
    pub(super) followed: mpsc::UnboundedSender<Stored>,
    /// Notified when the state of a table changed.
    pub(super) changed: &'a Notify,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(
        environment: &'a Environment,
        stream: &'a StreamRef,
        held: Held,
        start: Lsn,
        told: Told<'a>,
        log_end: watch::Receiver<LogEnd>,
        on_partition_removed: OnPartitionRemoved,
    ) -> Self {
        let progress = Progress { position: start, ..Progress::default() };
        Self {
            environment,
            stream,
            lease: held.lease,
            until: held.until,
            told,
            on_partition_removed,
            progress,
            written: progress,
            changes: BTreeMap::new(),
            nulled: BTreeMap::new(),
            batch: begin_batch(start),
            batch_begun: Instant::now(),
            meter: Meter::new(Instant::now()),
            marks: Marks::new(),
            log_end,
            verdict: None,
            waiting: None,
        }
    }

    /// Writes down everything until the stream has ended, its last position included.
    ///
    /// # Errors
    /// LEASE_LOST, or what else a retry cannot mend.
    pub(super) async fn keep(&mut self, mut reports: mpsc::Receiver<Report>) -> Result<()> {
        let mut tick = tokio::time::interval(POSITION_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                report = reports.recv() => match report {
                    Some(report) => self.take(report).await?,
                    None => break,
                },
                _ = tick.tick() => self.write().await?,
            }
        }
        self.write().await?;
        self.write_batch().await
    }

    async fn take(&mut self, report: Report) -> Result<()> {
        self.check_held()?;
        match report {
            Report::Position { lsn, committed_at } => {
                self.progress.position = self.progress.position.max(lsn);
                let committed_at = committed_at.and_then(time);
                self.progress.last_commit_at = committed_at.or(self.progress.last_commit_at);
                self.batch.first_commit_at = self.batch.first_commit_at.or(committed_at);
                self.batch.last_commit_at = committed_at.or(self.batch.last_commit_at);
            }
            Report::WalEnd { lsn, .. } => {
                self.progress.source_wal = self.progress.source_wal.max(Some(lsn));
                self.announce(lsn).await?;
            }
            Report::TableFailed { id, error } => self.table_failed(id, &error).await?,
            Report::ResyncNeeded { id, reason } => {
                let (catalog, lease) = (&self.environment.catalog, self.lease);
                until_stored(|| catalog.ask_resync(id, Some(lease), &reason)).await?;
                self.told.changed.notify_one();
            }
            Report::LeavesSeen { .. } => self.told.leaves.notify_one(),
            Report::PartTruncated { id, reason } => self.part_truncated(id, &reason).await?,
            Report::Followed { id, plan, changes } => self.followed(id, &plan, &changes).await?,
            Report::Floor { id, version } => {
                let catalog = &self.environment.catalog;
                let lease = self.lease;
                until_stored(|| catalog.raise_streamed_floor(id, lease, version)).await?;
                fault::here(Point::TruncateFloorStored);
                self.changes_of(id).truncates += 1;
            }
            Report::Ahead { lsn } => self.announce(lsn).await?,
            Report::Cut { id, cut } => {
                let (catalog, lease) = (&self.environment.catalog, self.lease);
                let stream::Cut { version, taken, rows } = cut;
                until_stored(|| catalog.store_cut(id, lease, Cut { version, taken, rows })).await?;
                self.told.cut.send_modify(|cuts| {
                    cuts.insert(id, cut);
                });
            }
            Report::Written { below } => self.settle(below).await,
            Report::Flushed { id, counts, bytes, nulled, took } => {
                let rows = counts.inserts + counts.updates + counts.deletes;
                let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                tracing::debug!(table = id, rows, bytes, took_ms, "an insert has arrived");
                self.meter.add(Instant::now(), rows);
                let changes = self.changes_of(id);
                changes.inserts += counts.inserts;
                changes.updates += counts.updates;
                changes.deletes += counts.deletes;
                changes.bytes += bytes;
                for (column, values) in nulled {
                    *self.nulled.entry(id).or_default().entry(column).or_default() += values;
                }
                self.batch.flushes += 1;
                self.batch.took_ms += took_ms;
                self.waiting = None;
            }
            Report::Waiting { error, .. } => self.waiting = Some(error),
        }
        Ok(())
    }

    fn changes_of(&mut self, id: i64) -> &mut TableChanges {
        self.changes.entry(id).or_insert(TableChanges { table_id: id, ..Default::default() })
    }

    /// Announces that rows up to a step beyond `lsn` may be sent from now on.
    pub(super) async fn announce(&mut self, lsn: Lsn) -> Result<()> {
        // Half a step ahead, so that it is written before it is needed.
        if lsn.0.saturating_add(ANNOUNCE_STEP / 2) < self.told.announce.borrow().0 {
            return Ok(());
        }
        let (catalog, StreamRef { mirror, stream }, lease) =
            (&self.environment.catalog, self.stream, self.lease);
        let below = Lsn(lsn.0.saturating_add(ANNOUNCE_STEP));
        until_stored(|| catalog.raise_written_below(mirror, *stream, lease, below)).await?;
        fault::here(Point::Announced);
        self.told.announce.send_replace(below);
        Ok(())
    }

    /// Which rows were in the part is not known.
    async fn part_truncated(&mut self, id: i64, reason: &Error) -> Result<()> {
        let (catalog, lease) = (&self.environment.catalog, self.lease);
        let what = reason.message();
        match self.on_partition_removed {
            OnPartitionRemoved::Resync => {
                let reason = resynced(what);
                until_stored(|| catalog.ask_resync(id, Some(lease), &reason)).await?;
                self.told.changed.notify_one();
            }
            OnPartitionRemoved::Keep => {
                let event = NewEvent::info(
                    &self.stream.mirror,
                    EventCode::PartitionsRemoved,
                    &format!("{what}: the rows stay"),
                );
                let table = reason.metadata().get("table").cloned().unwrap_or_default();
                let event = event.on_table(&table);
                until_stored(|| catalog.add_event(&event)).await?;
            }
        }
        Ok(())
    }

    /// The plan before the position: an attempt that begins behind it knows the table as it is.
    async fn followed(&mut self, id: i64, plan: &TablePlan, changes: &[SchemaChange]) -> Result<()> {
        let altering = !plan.seen.pending.is_empty();
        let followed = Followed {
            source: plan.source.clone(),
            plan: plan_value(plan)?,
            altering,
            changes: changes.iter().map(|change| (change.code(), change.to_string())).collect(),
        };
        let (catalog, lease) = (&self.environment.catalog, self.lease);
        until_stored(|| catalog.follow_table(id, lease, &followed)).await?;
        // Nobody listens any more when the attempt ends, and nothing is altered then.
        let _ended = self.told.followed.send(Stored { table_id: id, altering });
        if !changes.is_empty() {
            self.told.changed.notify_one();
        }
        Ok(())
    }

    /// An attempt that was frozen finds that out here: a catalog that was restored from a backup may give
    /// its number to another.
    fn check_held(&self) -> Result<()> {
        if Instant::now() < *self.until.borrow() {
            return Ok(());
        }
        Err(Error::new(Code::LeaseLost, "the lease was not renewed in time"))
    }

    /// Takes back what was announced and not written. If it cannot be written down, what was announced
    /// stands: after a failover, more is copied again than need be.
    async fn settle(&self, below: Lsn) {
        let (catalog, StreamRef { mirror, stream }) = (&self.environment.catalog, self.stream);
        if let Err(error) = catalog.settle_written_below(mirror, *stream, self.lease, below).await {
            tracing::debug!(error = %error, %mirror, "how far rows were written could not be written down");
        }
    }

    async fn table_failed(&mut self, id: i64, error: &Error) -> Result<()> {
        let (catalog, lease) = (&self.environment.catalog, self.lease);
        match until_stored(|| catalog.set_streamed_table_error(id, lease, error)).await {
            // Dropped meanwhile: it has no state any more.
            Err(error) if matches!(error.code(), Code::MirrorState | Code::TableNotFound) => {}
            stored => stored?,
        }
        let event = NewEvent::of_error(&self.stream.mirror, Severity::Error, error);
        let event = match error.metadata().get("table") {
            Some(table) => event.on_table(table),
            None => event,
        };
        until_stored(|| catalog.add_event(&event)).await?;
        self.told.changed.notify_one();
        Ok(())
    }

    /// Writes position and figures. What cannot be written now is written the next time: if the
    /// catalog stays away, the lease runs out, and that ends the stream.
    async fn write(&mut self) -> Result<()> {
        self.check_held()?;
        self.measure_progress();
        if self.progress != self.written {
            let (catalog, StreamRef { mirror, stream }) = (&self.environment.catalog, self.stream);
            match catalog.advance_position(mirror, *stream, self.lease, &self.progress).await {
                Ok(acknowledged) => {
                    fault::here(Point::PositionStored);
                    self.written = self.progress;
                    self.told.confirm.send_replace(acknowledged);
                    self.measure();
                }
                Err(error) if error.is_retryable() => {
                    tracing::warn!(error = %error, %mirror, "the position could not be written");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.write_changes().await;
        self.write_nulled().await;
        if self.batch_begun.elapsed() >= BATCH_INTERVAL {
            self.write_batch().await?;
        }
        Ok(())
    }

    /// How fast rows come, and until when everything has come.
    fn measure_progress(&mut self) {
        self.progress.rows_per_s = self.meter.rows_per_s(Instant::now());
        if self.log_end.has_changed().unwrap_or(false)
            && let Some((end, at)) = *self.log_end.borrow_and_update()
        {
            self.marks.see(end, at);
            self.progress.source_wal = self.progress.source_wal.max(Some(end));
        }
        self.progress.caught_up_at = self.marks.reached(self.progress.position);
    }

    fn measure(&self) {
        let labels = StreamLabels::of(self.stream);
        let lag = self.progress.source_wal.map_or(0, |wal| wal.bytes_since(self.progress.position));
        let lag = i64::try_from(lag).unwrap_or(i64::MAX);
        self.environment.metrics.lag_bytes.get_or_create(&labels).set(lag);
    }

    async fn write_changes(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        let changes: Vec<TableChanges> = self.changes.values().copied().collect();
        if let Err(error) = self.environment.catalog.add_changes(&changes).await {
            // They stay, and are written with the next.
            tracing::debug!(error = %error, "figures of tables could not be written");
            return;
        }
        self.changes.clear();
        let labels = StreamLabels::of(self.stream);
        let metrics = &self.environment.metrics;
        for change in &changes {
            let rows = change.inserts + change.updates + change.deletes;
            self.batch.inserts += change.inserts;
            self.batch.updates += change.updates;
            self.batch.deletes += change.deletes;
            self.batch.truncates += change.truncates;
            self.batch.tables.insert(change.table_id);
            self.batch.bytes += change.bytes;
            metrics.streamed_rows.get_or_create(&labels).inc_by(rows);
            metrics.streamed_bytes.get_or_create(&labels).inc_by(change.bytes);
        }
    }

    async fn write_nulled(&mut self) {
        while let Some((id, nulled)) = self.nulled.pop_first() {
            if let Err(error) = self.environment.count_nulled(&self.stream.mirror, id, &nulled).await {
                // They are written with the next.
                tracing::debug!(error = %error, "values that became NULL could not be counted");
                self.nulled.insert(id, nulled);
                return;
            }
        }
    }

    /// Ends the period: its row of figures, and the stream's health.
    async fn write_batch(&mut self) -> Result<()> {
        let catalog = &self.environment.catalog;
        let StreamRef { mirror, stream } = self.stream;
        let batch = std::mem::replace(&mut self.batch, begin_batch(self.written.position));
        self.batch_begun = Instant::now();
        let (verdict, reason) = match &self.waiting {
            Some(error) => (Verdict::Stalled, Some(error)),
            None if !batch.is_empty() => (Verdict::Healthy, None),
            None => (Verdict::Idle, None),
        };
        if !batch.is_empty() {
            self.environment
                .metrics
                .flushes
                .get_or_create(&StreamLabels::of(self.stream))
                .inc_by(batch.flushes);
            let batch = NewBatch { position: Some(self.written.position), ..batch };
            if let Err(error) = catalog.add_batch(mirror, *stream, &batch).await {
                tracing::debug!(error = %error, "the figures of a period could not be written");
            }
        }
        if self.verdict != Some(verdict) || reason.is_some() {
            match catalog.set_verdict(mirror, *stream, verdict, reason).await {
                Ok(()) => self.verdict = Some(verdict),
                Err(error) if error.is_retryable() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Begins a period at a position.
fn begin_batch(position: Lsn) -> NewBatch {
    NewBatch { start_position: Some(position), started_at: Some(Timestamp::now()), ..NewBatch::default() }
}

/// Tries until it is stored. If the catalog stays away, the lease runs out, and that ends the stream.
async fn until_stored<T, F: Future<Output = Result<T>>>(mut store: impl FnMut() -> F) -> Result<T> {
    loop {
        match store().await {
            Err(error) if error.is_retryable() => {
                tracing::warn!(error = %error, "what the stream reports could not be stored");
                tokio::time::sleep(RETRY).await;
            }
            stored => return stored,
        }
    }
}

/// Microseconds since 1970 as a time; none for one that does not exist.
fn time(micros: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(micros).ok()
}
