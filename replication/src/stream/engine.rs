//! The state of a running stream: it takes events and ended steps, and decides what to send and tell.
//! It spawns the steps; all waiting is in the loop that drives it (see `super::run`).

mod settle;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use millrace_terms::{Code, Error, Lsn, Result};
pub(super) use settle::Doubt;
use settle::unannounced;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::append::Take;
use super::apply::Change;
use super::batcher::{Batcher, Decision, Situation};
use super::config::{Report, StreamConfig, unix_micros};
use super::flusher::{Ended, Flusher, Outcome, is_of_table};
use super::lane::{Batch, Lane};
use super::leaves::Leaves;
use super::memory::{MemoryBudget, Share};
use super::places::Places;
use super::position::{BatchId, Mark, Tracker};
use super::reader::Event;
use super::relations::Layout;
use super::schema::Misfit;
use super::toast::Memory;
use crate::block::Block;
use crate::pgoutput::{Begin, Message, Relation};
use crate::postgres::tree::Ancestors;
use crate::types::TimeRange;
use crate::version::Version;

/// Least time between two reports of the position: who stores it does so more rarely still.
const POSITION_INTERVAL: Duration = Duration::from_millis(100);
/// Least time between two reports of the log's end.
const WAL_END_INTERVAL: Duration = Duration::from_secs(1);

/// What arrived longer ago than this was the last for now: the stream has caught up.
const QUIET: Duration = Duration::from_millis(50);

/// Bytes of log between two questions whether rows may be written: an answer covers far more.
const ASK_AGAIN_BYTES: u64 = 1 << 20;

/// The state of a running stream.
pub(super) struct Engine {
    lanes: Vec<Lane>,
    /// Lanes that have something to send.
    active: BTreeSet<usize>,
    relations: HashMap<u32, Known>,
    leaves: Leaves,
    transaction: Option<Begin>,
    delay: Delay,
    memory: Memory,
    tracker: Tracker,
    batcher: Batcher,
    flusher: Arc<Flusher>,
    /// Who may ask the destination.
    pub places: Places,
    /// Steps under way.
    pub steps: JoinSet<Ended>,
    /// Reports that are to be told, in order.
    pub outbox: VecDeque<Report>,
    /// A relation of a table of ours that the source is to be asked about before its next change.
    pub doubt: Option<Doubt>,
    /// Send whatever there is: the stream ends.
    draining: bool,
    budget: Arc<MemoryBudget>,
    time_range: TimeRange,
    base: u64,
    told: Told,
    /// Reports of plans so far.
    plans_told: u64,
}

/// What is known of a relation.
#[derive(Debug, Clone)]
enum Known {
    /// It is not ours.
    Foreign,
    /// It is a table of ours, or a part of one.
    Fits(Arc<Layout>),
    /// It is the table of this index, or bears its name, and does not fit the plan. The table fails
    /// by the first change of it that counts: a table that was planned anew has the shape it had
    /// before in the log below its floor, where its changes are covered by the copy.
    Misfits(usize, Misfit),
}

/// How late the changes are that arrive, by the source's own clock.
#[derive(Debug, Default)]
struct Delay {
    /// From a change's commit until it was sent.
    behind: Duration,
    /// When we last took changes.
    at: Option<Instant>,
}

impl Delay {
    /// How late what arrives now is; nothing if nothing arrives.
    fn now(&self, now: Instant) -> Duration {
        match self.at {
            Some(at) if now.saturating_duration_since(at) < QUIET => self.behind,
            _ => Duration::ZERO,
        }
    }
}

/// What was told last, and when.
struct Told {
    position: Mark,
    position_at: Option<Instant>,
    wal_end_at: Option<Instant>,
    /// Up to there it is not asked again whether rows may be written.
    ahead: Lsn,
}

impl Engine {
    pub(super) fn new(config: &StreamConfig, flusher: Arc<Flusher>, places: Places) -> Self {
        let tracker = Tracker::new(config.start);
        let mut this = Self {
            lanes: config.tables.iter().map(Lane::new).collect(),
            active: BTreeSet::new(),
            relations: HashMap::new(),
            leaves: Leaves::new(&config.tables),
            transaction: None,
            delay: Delay::default(),
            memory: Memory::default(),
            told: Told {
                position: tracker.position(),
                position_at: None,
                wal_end_at: None,
                ahead: Lsn::ZERO,
            },
            tracker,
            batcher: Batcher::new(config.limits.clone(), Instant::now()),
            flusher,
            places,
            steps: JoinSet::new(),
            outbox: VecDeque::new(),
            doubt: None,
            draining: false,
            budget: config.memory.part(),
            time_range: config.sink.time_range(),
            base: config.base,
            plans_told: 0,
        };
        this.go_on_altering();
        this
    }

    /// Whether reading must stop until rows have been sent.
    pub(super) fn is_full(&self) -> bool {
        self.budget.is_full()
    }

    /// This stream's part of the worker's memory.
    pub(super) fn memory(&self) -> Arc<MemoryBudget> {
        self.budget.clone()
    }

    /// Whether nothing is left to send.
    pub(super) fn is_drained(&self) -> bool {
        self.active.is_empty() && self.steps.is_empty()
    }

    /// The position.
    pub(super) fn position(&self) -> Lsn {
        self.tracker.position().lsn
    }

    /// Takes an event. Returns a relation that is not known, for [`Engine::relation`].
    ///
    /// # Errors
    /// `PROTOCOL_VIOLATION` if the event cannot come now. Errors of a table are not among them.
    pub(super) fn accept(&mut self, event: Event) -> Result<Option<Relation>> {
        match event {
            Event::Begin(begin) => {
                self.ask_to_write(begin.commit);
                self.transaction = Some(begin);
                self.tracker.begin();
            }
            Event::Commit(commit) => {
                self.transaction = None;
                self.memory.clear();
                self.tracker.commit(commit.end, commit.time);
            }
            Event::Idle { wal_end, at } => {
                self.delay.behind = Duration::ZERO;
                self.tracker.idle(wal_end);
                self.tell_wal_end(wal_end, at);
            }
            Event::Change { message: Message::Relation(relation), .. } => {
                if !self.known_relation(&relation) {
                    return Ok(Some(relation));
                }
            }
            Event::Change { record, message, sent } => {
                let committed = self.begin()?.time;
                self.delay.behind =
                    Duration::from_micros(u64::try_from(sent - committed).unwrap_or_default());
                self.change(record, message)?;
            }
            Event::Silence => {}
        }
        Ok(None)
    }

    /// Changes are taken now.
    pub(super) fn note_arrival(&mut self) {
        self.delay.at = Some(Instant::now());
    }

    /// Whether the relation is one of our tables. What the others are a part of is asked each time that
    /// the server describes them: it does so again when that may have changed.
    fn known_relation(&mut self, relation: &Relation) -> bool {
        if let Some(lane) = self.lanes.iter().position(|lane| lane.plan.oid == relation.oid) {
            self.route(lane, relation, None, &[]);
            return true;
        }
        let Some(lane) = (0..self.lanes.len()).find(|at| self.is_named(*at, relation)) else { return false };
        self.route(lane, relation, None, &[]);
        self.doubt.iter_mut().for_each(|doubt| doubt.is_namesake = true);
        true
    }

    fn is_named(&self, at: usize, relation: &Relation) -> bool {
        let source = &self.lanes[at].plan.source;
        source.schema == relation.schema && source.name == relation.name
    }

    /// A relation that is not a table of ours, and what it is a part of.
    pub(super) fn relation(&mut self, relation: &Relation, ancestors: &Ancestors) {
        match self.leaves.settle(relation.oid, ancestors) {
            Some(leaf) => {
                let table = ancestors.tables.get(&self.lanes[leaf.table].plan.oid);
                let own = table.map_or(&[][..], |table| &table.own_columns);
                self.route(leaf.table, relation, leaf.until, own);
                self.outbox.push_back(Report::LeavesSeen { id: self.lanes[leaf.table].id });
            }
            None => {
                self.relations.insert(relation.oid, Known::Foreign);
            }
        }
    }

    /// A relation of a table of ours, `until` a commit. What it is now is looked up by the loop: see
    /// `settle`. `own`: columns that the relation has and the table has not.
    fn route(&mut self, lane: usize, relation: &Relation, until: Option<Lsn>, own: &[String]) {
        self.doubt = Some(Doubt {
            relation: relation.clone(),
            table: lane,
            plan: self.lanes[lane].plan.clone(),
            is_namesake: false,
            until,
            own: own.to_vec(),
            xid: self.transaction.map_or(0, |begin| begin.xid),
        });
    }

    fn change(&mut self, record: Lsn, message: Message) -> Result<()> {
        let relation = match &message {
            Message::Insert(insert) => insert.relation,
            Message::Update(update) => update.relation,
            Message::Delete(delete) => delete.relation,
            Message::Truncate(truncate) => {
                let relations = truncate.relations.clone();
                return self.truncate(record, &relations);
            }
            _ => return Ok(()),
        };
        let begin = self.begin()?;
        let version = Version::of(self.base, begin.commit, record).0;
        let layout = match self.relations.get(&relation) {
            None => return Err(unannounced(relation)),
            Some(Known::Foreign) => return Ok(()),
            Some(Known::Fits(layout)) if layout.is_over(begin.commit) => return Ok(()),
            Some(Known::Fits(layout)) => layout.clone(),
            Some(Known::Misfits(at, misfit)) => {
                let (at, misfit) = (*at, misfit.clone());
                if version >= self.lanes[at].floor {
                    self.misfit(at, misfit);
                }
                return Ok(());
            }
        };
        let at = layout.table;
        if self.lanes[at].failed {
            return Ok(());
        }
        let take = match self.appended(at, &begin, version, &message) {
            Ok(take) => take,
            Err(error) => {
                self.fail(at, error);
                return Ok(());
            }
        };
        // What is below the floor was deleted physically.
        if take == Take::Leave || version < self.lanes[at].floor {
            if take == Take::Last {
                self.lanes[at].seal();
            }
            return Ok(());
        }
        self.open(at, begin.commit);
        let lane = &mut self.lanes[at];
        let Some(batch) = &mut lane.open else { return Ok(()) };
        batch.to = begin.commit;
        let plan = lane.plan.clone();
        let mut change = Change {
            layout: &layout,
            plan: &plan,
            version,
            xid: begin.xid,
            at: unix_micros(begin.time),
            memory: &mut self.memory,
        };
        let applied = match &message {
            Message::Insert(insert) => change.insert(batch, &insert.new),
            Message::Update(update) => change.update(batch, update),
            Message::Delete(delete) => change.delete(batch, delete),
            _ => Ok(()),
        };
        match applied {
            Ok(()) => {
                let bytes = batch.account();
                if take == Take::Last || self.batcher.is_full(batch.rows(), bytes) && !lane.is_partial() {
                    lane.seal();
                }
            }
            Err(error) => self.fail(at, error),
        }
        Ok(())
    }

    /// Whether a change is to be written. Of an append-only table, only rows that have not arrived, and
    /// nothing else.
    fn appended(&mut self, at: usize, begin: &Begin, version: u128, message: &Message) -> Result<Take> {
        let lane = &mut self.lanes[at];
        let Some(append) = &mut lane.append else { return Ok(Take::Add) };
        if append.is_copied(begin) {
            return Ok(Take::Leave);
        }
        let what = match message {
            Message::Insert(_) => return Ok(append.take(version)),
            Message::Update(_) => "updated",
            _ => "deleted",
        };
        let source = &lane.plan.source;
        let why = format!("{source} is declared append_only, but a row of it was {what}");
        let remedy = format!(
            "Resync the table if that was the last time; else run `ALTER TABLE {} ADD PRIMARY KEY (...);` and replicate it without append_only.",
            source.to_sql()
        );
        Err(Error::new(Code::TableUnsupported, why).with_remedy(remedy))
    }

    /// Asks, once, that rows of a commit beyond what is announced may be written. The flusher waits
    /// for the answer; reading goes on.
    fn ask_to_write(&mut self, commit: Lsn) {
        if commit >= *self.flusher.announced.borrow() && commit > self.told.ahead {
            // Nearly every transaction behind this one will be covered by the same answer.
            self.told.ahead = Lsn(commit.0.saturating_add(ASK_AGAIN_BYTES));
            self.outbox.push_back(Report::Ahead { lsn: commit });
        }
    }

    /// Makes sure that a lane has a batch to which rows can be added.
    fn open(&mut self, at: usize, commit: Lsn) {
        let lane = &mut self.lanes[at];
        if lane.open.is_none() {
            let block = Block::new(lane.plan.clone(), self.time_range);
            let share = Share::new(self.budget.clone());
            lane.open = Some(Box::new(Batch::new(self.tracker.open(), commit, block, share, Instant::now())));
            self.active.insert(at);
        }
    }

    fn truncate(&mut self, record: Lsn, relations: &[u32]) -> Result<()> {
        let commit = self.begin()?.commit;
        let below = Version::of(self.base, commit, record).0;
        let mut truncated: BTreeMap<usize, BTreeSet<u32>> = BTreeMap::new();
        for oid in relations {
            match self.relations.get(oid).cloned() {
                None | Some(Known::Foreign) => {}
                Some(Known::Fits(layout)) if layout.is_over(commit) => {}
                Some(Known::Fits(layout)) => {
                    truncated.entry(layout.table).or_default().insert(*oid);
                }
                Some(Known::Misfits(at, misfit)) if below > self.lanes[at].floor => self.misfit(at, misfit),
                Some(Known::Misfits(..)) => {}
            }
        }
        for (at, relations) in truncated {
            self.memory.forget_table(at);
            let begin = self.begin()?;
            let lane = &mut self.lanes[at];
            let is_copied = lane.append.as_ref().is_some_and(|append| append.is_copied(&begin));
            if lane.failed || is_copied || below <= lane.floor {
                continue;
            }
            if self.leaves.is_whole(at, &relations, commit) {
                lane.purge(self.tracker.open(), below, Instant::now());
                self.active.insert(at);
            } else {
                // Deleting on the table would delete the rows of its other parts.
                let what = format!("a part of {} was truncated", lane.plan.source);
                let reason = Error::new(Code::TableSchemaChanged, what);
                let reason = reason.with("table", lane.plan.source.to_string());
                self.outbox.push_back(Report::PartTruncated { id: lane.id, reason });
            }
        }
        Ok(())
    }

    fn begin(&self) -> Result<Begin> {
        self.transaction.ok_or_else(|| {
            Error::new(Code::ProtocolViolation, "the replication stream holds a change outside a transaction")
        })
    }

    /// Leaves a table out from here on.
    pub(super) fn fail(&mut self, at: usize, error: Error) {
        if let Some((id, error)) = self.leave_out(at, error) {
            self.outbox.push_back(Report::TableFailed { id, error });
        }
    }

    /// Leaves a table out, unless it is already. Returns its id, and why with its name.
    fn leave_out(&mut self, at: usize, why: Error) -> Option<(i64, Error)> {
        let lane = &mut self.lanes[at];
        if lane.failed {
            return None;
        }
        for id in lane.fail() {
            self.tracker.done(id);
        }
        self.active.remove(&at);
        Some((lane.id, why.with("table", lane.plan.source.to_string())))
    }

    /// Ends the stream: what there is is sent.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        self.lanes.iter_mut().for_each(Lane::drop_partial);
        self.active.retain(|at| !self.lanes[*at].is_empty());
    }

    /// Sends what may be sent. Returns when to look again.
    pub(super) fn dispatch(&mut self) -> Option<Instant> {
        loop {
            let now = Instant::now();
            let situation = Situation {
                now,
                urgent: self.draining || self.is_full(),
                in_transaction: self.tracker.in_transaction(),
                behind: self.delay.now(now),
                in_flight: self.steps.len().saturating_sub(self.places.paused()),
            };
            let lanes = self.active.iter().map(|at| (*at, self.lanes[*at].state()));
            match self.batcher.next(lanes, situation) {
                // When nothing comes any more, what was to gather for longer goes.
                Decision::Wait(until) if !situation.behind.is_zero() => {
                    return Some(until.map_or(now + QUIET, |until| until.min(now + QUIET)));
                }
                Decision::Wait(until) => return until,
                Decision::Send(at) => self.send(at, now),
            }
        }
    }

    fn send(&mut self, at: usize, now: Instant) {
        let lane = &mut self.lanes[at];
        if let Some(step) = lane.start(now) {
            self.steps.spawn(self.flusher.clone().run(at, lane.id, lane.plan.clone(), step));
        }
        if lane.is_empty() {
            self.active.remove(&at);
        }
    }

    /// A step has ended.
    ///
    /// # Errors
    /// Those that are not of the step's table: the stream cannot go on.
    pub(super) fn ended(&mut self, ended: Ended) -> Result<()> {
        let Ended { lane: at, batch, outcome, took } = ended;
        let lane = &mut self.lanes[at];
        lane.ended();
        let id = lane.id;
        match outcome {
            Ok(Outcome::Inserted { counts, bytes }) => {
                self.arrived(batch);
                self.outbox.push_back(Report::Flushed { id, counts, bytes, took });
            }
            Ok(Outcome::Purged { below }) => {
                self.arrived(batch);
                self.outbox.push_back(Report::Floor { id, version: below });
            }
            Ok(Outcome::Altered(altering)) => {
                self.arrived(batch);
                self.altered(at, *altering);
            }
            Err(error) if is_of_table(&error) => {
                self.arrived(batch);
                self.fail(at, error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn arrived(&mut self, batch: BatchId) {
        self.tracker.done(batch);
    }

    /// Tells the position if it is another and it is time to. Returns when to look again.
    pub(super) fn tell_position(&mut self, at_once: bool) -> Option<Instant> {
        let position = self.tracker.position();
        if position == self.told.position {
            return None;
        }
        let now = Instant::now();
        let due = self.told.position_at.map_or(now, |at| at + POSITION_INTERVAL);
        if due > now && !at_once {
            return Some(due);
        }
        self.told.position = position;
        self.told.position_at = Some(now);
        let committed_at = position.committed_at.map(unix_micros);
        self.outbox.push_back(Report::Position { lsn: position.lsn, committed_at });
        None
    }

    fn tell_wal_end(&mut self, lsn: Lsn, at: i64) {
        let now = Instant::now();
        if self.told.wal_end_at.is_none_or(|at| at + WAL_END_INTERVAL <= now) {
            self.told.wal_end_at = Some(now);
            self.outbox.push_back(Report::WalEnd { lsn, at: unix_micros(at) });
        }
    }
}
