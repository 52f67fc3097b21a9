//! What a mirror does next. The workflow performs one [`Step`] at a time and asks again; signals
//! and updates change the [`Progress`] in between.
//!
//! Pure: no I/O, no Temporal.

use std::collections::BTreeMap;

use millrace_terms::{Code, Error, Result};
use serde::{Deserialize, Serialize};

use crate::payload::{
    Children, CopyEnded, DropOptions, DueTable, Figures, MirrorReport, MirrorStatus, Outcome, Overview,
    Recovery, SnapshotInput, SourceInput, StreamEnded, TableCopy,
};
use crate::phase::{Event, Phase};

/// Where a mirror's workflow stands: all it carries from one run to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The phase.
    pub phase: Phase,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
    /// What made a stream fail, until the source is prepared again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// Its streams that do not stand still, by number.
    pub streams: BTreeMap<u32, Child>,
    /// The copies that run, by the table's id.
    pub copies: BTreeMap<i64, RunningCopy>,
    /// What the catalog said last.
    pub overview: Overview,
    /// Whether something happened that the catalog was not told or asked since.
    pub stale: bool,
    /// The phase that the catalog was told last, and of which `overview` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Phase>,
    /// How it is to be dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop: Option<DropOptions>,
    /// Whether slot and publication of a completed mirror are removed.
    #[serde(default)]
    pub released: bool,
    /// How the mirror was when that was told last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Figures>,
    /// Whether the catalog is being asked: what it said last is about to be replaced.
    #[serde(skip)]
    pub asking: bool,
    /// Whether a resync that somebody asked for is being begun: none is begun beside it. No run ends
    /// meanwhile, as whoever asked waits for an answer.
    #[serde(skip)]
    pub resyncing: bool,
}

/// A child workflow that runs, as far as its parent knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Child {
    /// It runs.
    Running,
    /// It was told to stop, and has not said that it did.
    Stopping,
}

/// A copy that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningCopy {
    /// The table, `schema.table`.
    pub table: String,
    /// Number of the copy.
    pub copy_no: u32,
    /// Number of its copiers.
    pub copiers: u32,
    /// Whether it was told to stop.
    #[serde(default)]
    pub stopping: bool,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Tell the catalog where the mirror stands, and ask what is due.
    Record,
    /// Prepare source and destination.
    Prepare,
    /// Start these streams.
    StartStreams(Vec<u32>),
    /// Start these copies.
    StartCopies(Vec<(DueTable, u32)>),
    /// Have the tables copied again that need it.
    Resync,
    /// Tell every child that runs to stop.
    Stop,
    /// Tell the copies of these tables to stop.
    StopCopies(Vec<i64>),
    /// Have tables join and leave the mirror.
    Edit,
    /// Remove slot and publication of a mirror that only copies.
    Release,
    /// Everything that was asked for is done.
    Complete,
    /// Hand over to the workflow that drops the mirror.
    Drop,
    /// End the workflow.
    Finish,
    /// Wait for a signal or an update.
    Wait,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            phase: Phase::Setup,
            error: None,
            recovery: None,
            streams: BTreeMap::new(),
            copies: BTreeMap::new(),
            overview: Overview::default(),
            stale: true,
            recorded: None,
            drop: None,
            released: false,
            figures: None,
            asking: false,
            resyncing: false,
        }
    }
}

impl Progress {
    /// The next step.
    pub fn next(&self) -> Step {
        match self.phase {
            Phase::Dropping => Step::Drop,
            _ if self.stale => Step::Record,
            Phase::Setup => Step::Prepare,
            Phase::Running if self.overview.complete => Step::Complete,
            Phase::Running => self.next_running(),
            Phase::Paused | Phase::Failed if self.must_stop() => Step::Stop,
            Phase::Paused if self.overview.edits > 0 => Step::Edit,
            Phase::Paused | Phase::Failed => Step::Wait,
            Phase::Completed if self.must_stop() => Step::Stop,
            Phase::Completed if !self.is_quiet() => Step::Wait,
            Phase::Completed if !self.released => Step::Release,
            Phase::Completed => Step::Finish,
        }
    }

    fn next_running(&self) -> Step {
        let stopped = self.stopped_streams();
        if !stopped.is_empty() {
            return Step::StartStreams(stopped);
        }
        let over = self.overdue();
        if !over.is_empty() {
            return Step::StopCopies(over);
        }
        if self.overview.edits > 0 {
            return Step::Edit;
        }
        if self.overview.resync_needed {
            return Step::Resync;
        }
        let copiers: u32 = self.copies.values().map(|copy| copy.copiers).sum();
        let tables = self.overview.parallel_tables.saturating_sub(self.copies.len() as u32);
        let due = self.overview.due.iter().filter(|due| !self.copies.contains_key(&due.id));
        let shares = share(
            self.overview.parallel_partitions.saturating_sub(copiers),
            due.take(tables as usize).cloned(),
        );
        if shares.is_empty() { Step::Wait } else { Step::StartCopies(shares) }
    }

    /// Streams that do not run. One that was told to stop still has its slot.
    fn stopped_streams(&self) -> Vec<u32> {
        self.overview.streams.iter().filter(|n| !self.streams.contains_key(n)).copied().collect()
    }

    /// Streams that run and were not told to stop.
    pub fn running_streams(&self) -> Vec<u32> {
        let runs = |(n, child): (&u32, &Child)| (*child == Child::Running).then_some(*n);
        self.streams.iter().filter_map(runs).collect()
    }

    /// Tables whose copy is over in the catalog, and was not told to stop yet.
    fn overdue(&self) -> Vec<i64> {
        let runs = |id: &&i64| self.copies.get(*id).is_some_and(|copy| !copy.stopping);
        self.overview.over.iter().filter(runs).copied().collect()
    }

    /// Whether nothing that a user changed is left to be done here; what a phase does not do is done
    /// when the mirror goes on.
    pub fn is_settled(&self) -> bool {
        let done =
            self.overview.edits == 0 && !self.overview.over.iter().any(|id| self.copies.contains_key(id));
        match self.phase {
            Phase::Dropping => true,
            Phase::Running | Phase::Paused => self.is_recorded() && done,
            Phase::Setup | Phase::Failed | Phase::Completed => self.is_recorded(),
        }
    }

    fn must_stop(&self) -> bool {
        !self.running_streams().is_empty() || self.copies.values().any(|copy| !copy.stopping)
    }

    /// Whether no child runs.
    pub fn is_quiet(&self) -> bool {
        self.streams.is_empty() && self.copies.is_empty()
    }

    /// Whether the catalog, and so everybody, knows the present phase.
    pub fn is_recorded(&self) -> bool {
        self.recorded == Some(self.phase) && !self.stale && !self.asking
    }

    /// Takes what the catalog answered to a report of `phase`.
    pub fn recorded(&mut self, phase: Phase, overview: Overview) {
        self.recorded = Some(phase);
        self.asking = false;
        self.overview = overview;
    }

    /// Moves to the phase that the event leads to.
    ///
    /// # Errors
    /// MIRROR_STATE if it leads nowhere; nothing is changed then.
    pub fn apply(&mut self, event: Event) -> Result<()> {
        let phase = self.phase.after(event)?;
        if phase != self.phase {
            self.phase = phase;
            self.stale = true;
        }
        match event {
            // Whoever goes on has seen the error: where the stream is lost, this asks to begin anew.
            Event::Resume => {
                if let Some(error) = self.error.take() {
                    self.stale = true;
                    self.recovery = is_lost(&error).then_some(Recovery { error, asked: true });
                }
            }
            Event::Prepared | Event::Fail => self.recovery = None,
            _ => {}
        }
        Ok(())
    }

    /// Fails the mirror, if it can fail where it stands.
    pub fn fail(&mut self, error: Error) {
        if self.apply(Event::Fail).is_ok() {
            self.error = Some(error);
            self.stale = true;
        }
    }

    /// Notes that copies were started.
    pub fn copies_started(&mut self, due: &DueTable, copiers: u32) {
        let copy = RunningCopy { table: due.table.clone(), copy_no: due.copy_no, copiers, stopping: false };
        self.copies.insert(due.id, copy);
    }

    /// Notes that a copy ended. A report of an older copy of the table changes nothing.
    pub fn copy_ended(&mut self, ended: &CopyEnded) {
        if self.copies.get(&ended.table_id).is_some_and(|copy| copy.copy_no == ended.copy_no) {
            self.copies.remove(&ended.table_id);
            self.stale = true;
        }
    }

    /// Notes that a stream ended. One that ended without being told to is started again, unless it failed
    /// for good: that fails the mirror, because what fails so is of the source or the destination as a
    /// rule, and so of every stream. One that cannot go on from where it is leads back to the
    /// preparations; the others go on meanwhile.
    pub fn stream_ended(&mut self, ended: StreamEnded) {
        self.streams.remove(&ended.stream);
        self.stale = true;
        let Outcome::Failed(error) = ended.outcome else { return };
        if is_lost(&error) && self.apply(Event::Recover).is_ok() {
            self.recovery = Some(Recovery { error, asked: false });
        } else {
            self.fail(error);
        }
    }

    /// The preparation of the source.
    pub fn prepare_source(&self, mirror: &str) -> SourceInput {
        let running = self.running_streams();
        SourceInput { mirror: mirror.to_owned(), recovery: self.recovery.clone(), running }
    }

    /// What the catalog is told.
    pub fn report(&self, mirror: &str) -> MirrorReport {
        MirrorReport {
            mirror: mirror.to_owned(),
            phase: self.phase,
            error: self.error.clone(),
            copying: self.copies.keys().copied().collect(),
            resyncing: self.resyncing,
        }
    }

    /// What users are told.
    pub fn status(&self) -> MirrorStatus {
        MirrorStatus {
            phase: self.phase,
            error: self.error.clone(),
            overview: Overview { due: Vec::new(), ..self.overview.clone() },
            streaming: self.running_streams(),
            copying: self.copies.values().map(|copy| copy.table.clone()).collect(),
        }
    }

    /// The children that are not known to have ended.
    pub fn children(&self, mirror: &str) -> Children {
        let copies = self.copies.iter().map(|(id, copy)| TableCopy {
            mirror: mirror.to_owned(),
            table_id: *id,
            table: copy.table.clone(),
            copy_no: copy.copy_no,
        });
        Children { streams: self.streams.keys().copied().collect(), copies: copies.collect() }
    }

    /// The details that Temporal's UI shows, in Markdown.
    pub fn details(&self) -> String {
        let tables = self.overview.tables;
        let mut text = format!(
            "**{}** · {} tables: {} pending, {} copying, {} streaming, {} paused, {} in error",
            self.overview.state,
            tables.total,
            tables.pending,
            tables.copying,
            tables.streaming,
            tables.paused,
            tables.error,
        );
        let streams: Vec<String> = self.running_streams().iter().map(u32::to_string).collect();
        if !streams.is_empty() {
            text.push_str(&format!(
                "\n- streams {} of {} run",
                streams.join(", "),
                self.overview.streams.len()
            ));
        }
        for copy in self.copies.values() {
            text.push_str(&format!(
                "\n- copying `{}` (copy {}, {} copiers)",
                copy.table, copy.copy_no, copy.copiers
            ));
        }
        if let Some(figures) = &self.figures {
            text.push_str(&told(figures));
        }
        if let Some(error) = &self.error {
            text.push_str(&format!("\n\n{error}\n\n{}", error.remedy()));
        }
        text
    }
}

/// Figures in Markdown.
fn told(figures: &Figures) -> String {
    let mut text = String::new();
    if !figures.verdict.is_empty() {
        text.push_str(&format!("\n- verdict: **{}** {}", figures.verdict, figures.stalled));
    }
    text.push_str(&format!(
        "\n- {} of {} tables copied: {} of about {} rows",
        figures.tables_done, figures.tables, figures.rows_copied, figures.rows_estimated
    ));
    if let Some(rate) = figures.copied_per_s {
        text.push_str(&format!(", {rate} rows/s"));
    }
    if let Some(eta) = figures.eta_s {
        text.push_str(&format!(", {eta} s left"));
    }
    text.push_str(&format!("\n- streamed: {} rows/s", figures.streamed_per_s));
    if let (Some(bytes), Some(seconds)) = (figures.lag_bytes, figures.lag_s) {
        text.push_str(&format!(", lag {bytes} bytes, {seconds} s"));
    }
    format!("{text}\n- as of {}", figures.as_of)
}

/// Whether a stream that failed so cannot go on from its position, as far as it can tell: a new slot and
/// new copies would make up for it.
fn is_lost(error: &Error) -> bool {
    matches!(error.code(), Code::SlotLost | Code::SourceTimeline | Code::DecodingStuck)
}

/// The copy of a due table.
pub fn snapshot_input(mirror: &str, due: &DueTable, copiers: u32) -> SnapshotInput {
    let copy = TableCopy {
        mirror: mirror.to_owned(),
        table_id: due.id,
        table: due.table.clone(),
        copy_no: due.copy_no,
    };
    SnapshotInput { copy, copiers }
}

/// Shares `free` copiers out among tables: one to each as far as they go, the rest one by one to
/// the table with the most bytes per copier.
fn share(free: u32, due: impl Iterator<Item = DueTable>) -> Vec<(DueTable, u32)> {
    let mut shares: Vec<(DueTable, u32)> = due.take(free as usize).map(|table| (table, 1)).collect();
    for _ in shares.len()..free as usize {
        let load = |share: &(DueTable, u32)| share.0.bytes / u64::from(share.1);
        // The first of equals, so that a replay shares in the same way.
        let Some(largest) = shares.iter_mut().rev().max_by_key(|share| load(share)) else { break };
        largest.1 += 1;
    }
    shares
}

#[cfg(test)]
mod tests;
