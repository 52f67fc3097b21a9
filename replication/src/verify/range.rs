//! Compares one range, and finds which of its rows really differ, while both sides are written to. I/O.
//!
//! The rows are first read from both sides as they come; equal digests are equal rows. What differs then
//! is mostly under way, so it is looked at again, in rounds:
//!
//! 1. The versions of these keys in the destination are read, those of tombstones included.
//! 2. Every transaction that had an id is waited for, until it is over and visible as over
//!    (`postgres::epoch::passed`).
//! 3. The source's rows are read, and behind them the end of the log.
//! 4. The destination's rows are read, until one reading was begun when the stream's position had passed
//!    that end. A row that is the same as on the source is settled, whenever that is seen.
//! 5. The versions are read again. A key that still differs, and whose version is the one of step 1,
//!    differs: it is reported. Any other was changed meanwhile and goes into the next round.
//!
//! Why that is certain. Let the version of a key be v before step 2 and still v after step 4, and let the
//! mirror be right. Everything committed up to the end of the log of step 3 has arrived by then, so no
//! change of the key above v lies below that end, and the source's reading saw none above it. It did see
//! v: the change was delivered before step 2, so its transaction had an id then, and step 2 waited until
//! it was visible (a transaction may be delivered and invisible for long, while it waits for a
//! synchronous standby). So the source's row is the one that v wrote, and equal. A row that a copy
//! wrote is no exception: it was read after its epoch, and what changed it since is delivered with a
//! higher version. Values of large columns that were looked up may be later than their change; but the
//! look-up was over before step 1, so what it saw is visible in step 3, too.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use millrace_terms::{Code, Error, Lsn, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::compare::{self, Digests, Kind, Row};
use super::order::Range;
use super::read::{Digest, Sides};
use crate::postgres::epoch;
use crate::version::Version;

/// Rounds for keys that are changed all the time.
const ROUNDS_MAX: u32 = 12;
/// How long transactions that are open may keep a difference from being certain, in one round.
const PASSING_MAX: Duration = Duration::from_secs(5);
/// Time between two readings of the destination in one round: an update every half second is met.
const POLL: Duration = Duration::from_millis(75);
/// How long the stream may stand still while its position is waited for.
const POSITION_MAX: Duration = Duration::from_secs(60);

/// What is asked about a range.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// The range.
    pub range: &'a Range,
    /// What is added to positions in versions.
    pub base: u64,
    /// Up to where the stream has arrived, as it is written down.
    pub position: watch::Receiver<Lsn>,
    /// Whether the values of rows that differ are told, and not only their keys.
    pub with_values: bool,
}

/// What a range is like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Rows of the source.
    pub source_rows: u64,
    /// Rows of the destination, as FINAL has them.
    pub destination_rows: u64,
    /// Rows that differ, in no order.
    pub differences: Vec<Difference>,
    /// Rows that were changed between all looks at them, or whose difference could not be made certain.
    pub unsettled: u64,
    /// Who kept differences from being certain, in words.
    pub held_by: Option<String>,
}

/// A row that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub(super) key_digest: Digest,
    /// Its version in the destination; 0 if it has none there.
    pub(super) version: u128,
    /// What names it to the destination's server, if it is there.
    pub(super) handle: String,
    /// What a person is told.
    pub told: Told,
}

impl Difference {
    /// A digest of its key: the same whenever it is found.
    pub fn key(&self) -> u128 {
        self.key_digest
    }
}

/// What a person is told of a row that differs. It holds values of a user's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// How it differs.
    pub kind: Kind,
    /// Its sorting key: columns with their values as text.
    pub key: Vec<Cell>,
    /// The columns that differ, by their names on the source. Our version's own column stands for a row
    /// whose version no log of the source has reached yet: it would hide every later change.
    pub columns: Vec<String>,
    /// What the source holds in the other columns that can be compared, if it was asked for.
    #[serde(default)]
    pub source: Vec<Cell>,
    /// What the destination holds in them.
    #[serde(default)]
    pub destination: Vec<Cell>,
}

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Name of the column on the source.
    pub column: String,
    /// The value as text; none for NULL.
    pub value: Option<String>,
}

impl Sides<'_> {
    /// Compares a range.
    ///
    /// # Errors
    /// `SOURCE_BLOCKED` if the stream does not reach what was read, and those of both sides. The session
    /// must be closed then.
    pub async fn compare(&self, question: &Question<'_>) -> Result<Answer> {
        let range = question.range;
        let (mut source, mut destination) = (Digests::new(), Digests::new());
        let mut highest = 0;
        let read_source = self.read_source(range, &[], |row| {
            source.insert(row.key, row.digest);
            Ok(())
        });
        let mut future_rows = Vec::new();
        let read_destination = self.read_destination(range, &[], |row| {
            destination.insert(row.key, row.digest);
            highest = row.version.max(highest);
            future_rows.push((row.version, row.key));
            Ok(())
        });
        tokio::try_join!(read_source, read_destination)?;
        let mut answer = Answer {
            source_rows: source.len() as u64,
            destination_rows: destination.len() as u64,
            ..Answer::default()
        };
        let mut suspects: HashSet<Digest> = compare::differing(&source, &destination).into_iter().collect();
        let limit = limit(question.base, epoch::log_end(self.session).await?);
        if highest > limit {
            suspects.extend(future_rows.iter().filter(|(version, _)| *version > limit).map(|(_, key)| key));
        }
        drop((source, destination, future_rows));
        if !suspects.is_empty() {
            Rounds { sides: self, question, suspects, answer: &mut answer }.settle().await?;
        }
        Ok(answer)
    }

    /// The columns whose text is read of rows that may differ.
    fn told_columns(&self, with_values: bool) -> Vec<usize> {
        let mut told = self.plan.order_by.clone();
        if with_values {
            told.extend(
                super::read::comparable(self.plan).iter().filter(|at| !self.plan.order_by.contains(at)),
            );
        }
        told
    }
}

/// No version of the log so far is above it.
fn limit(base: u64, log_end: Lsn) -> u128 {
    Version::of(base, log_end, Lsn(u64::MAX)).0
}

/// Waits until the stream has arrived somewhere.
///
/// # Errors
/// `SOURCE_BLOCKED` if it does not.
pub(super) async fn reached(position: &watch::Receiver<Lsn>, end: Lsn) -> Result<()> {
    let mut position = position.clone();
    let reached = tokio::time::timeout(POSITION_MAX, position.wait_for(|position| *position >= end)).await;
    match reached {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(stands_still(end)),
    }
}

fn stands_still(end: Lsn) -> Error {
    let text = format!("the stream did not reach {end} within {} s", POSITION_MAX.as_secs());
    Error::new(Code::SourceBlocked, text)
        .with_remedy("See the mirror's stream for what it waits for, and verify again.")
}

struct Rounds<'a, 'b> {
    sides: &'a Sides<'b>,
    question: &'a Question<'a>,
    suspects: HashSet<Digest>,
    answer: &'a mut Answer,
}

type Rows = HashMap<Digest, Row>;

impl Rounds<'_, '_> {
    async fn settle(mut self) -> Result<()> {
        for _ in 0..ROUNDS_MAX {
            self.answer.held_by = self.round().await?;
            if self.suspects.is_empty() {
                break;
            }
        }
        self.answer.unsettled = self.suspects.len() as u64;
        Ok(())
    }

    /// One round; gives who kept it from being certain.
    async fn round(&mut self) -> Result<Option<String>> {
        let (sides, range) = (self.sides, self.question.range);
        let texts = sides.told_columns(self.question.with_values);
        let before = sides.read_versions(range, |key| self.suspects.contains(&key)).await?;
        let held_by = epoch::passed(sides.session, PASSING_MAX).await?;
        let mut source = Rows::new();
        let on_row = |row: &super::read::Seen<'_>| {
            if self.suspects.contains(&row.key) {
                source.insert(row.key, Row::of(row));
            }
            Ok(())
        };
        sides.read_source(range, &texts, on_row).await?;
        let end = epoch::log_end(sides.session).await?;
        let limit = limit(self.question.base, end);
        let destination = self.arrived(&source, end, limit, &texts).await?;
        let after = sides.read_versions(range, |key| self.suspects.contains(&key)).await?;
        if held_by.is_none() {
            self.confirm(&source, &destination, limit, &(before, after));
        }
        Ok(held_by)
    }

    /// Reads the destination until it holds what the source held, and at least until one reading was
    /// begun when the stream had arrived there. Rows that are the same are no suspects any more.
    async fn arrived(&mut self, source: &Rows, end: Lsn, limit: u128, texts: &[usize]) -> Result<Rows> {
        let mut position = self.question.position.clone();
        let deadline = tokio::time::Instant::now() + POSITION_MAX;
        loop {
            let is_there = *position.borrow_and_update() >= end;
            let mut destination = Rows::new();
            let on_row = |row: &super::read::Seen<'_>| {
                if self.suspects.contains(&row.key) {
                    destination.insert(row.key, Row::of(row));
                }
                Ok(())
            };
            self.sides.read_destination(self.question.range, texts, on_row).await?;
            self.suspects.retain(|key| {
                let found = destination.get(key);
                compare::kind(source.get(key), found).is_some()
                    || found.is_some_and(|row| row.version > limit)
            });
            if is_there || self.suspects.is_empty() {
                return Ok(destination);
            }
            if tokio::time::Instant::now() > deadline {
                return Err(stands_still(end));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Reports what differs and was not changed since.
    fn confirm(
        &mut self,
        source: &Rows,
        destination: &Rows,
        limit: u128,
        (before, after): &(HashMap<Digest, u128>, HashMap<Digest, u128>),
    ) {
        let certain: Vec<Digest> =
            self.suspects.iter().copied().filter(|key| before.get(key) == after.get(key)).collect();
        for key in certain {
            self.suspects.remove(&key);
            let (source, destination) = (source.get(&key), destination.get(&key));
            let is_ahead = destination.is_some_and(|row| row.version > limit);
            let kind = compare::kind(source, destination);
            if let Some(kind) = kind.or(is_ahead.then_some(Kind::Different)) {
                self.answer.differences.push(Difference {
                    key_digest: key,
                    version: destination.map_or(0, |row| row.version),
                    handle: destination.map(|row| row.handle.clone()).unwrap_or_default(),
                    told: self.told(kind, source, destination, is_ahead),
                });
            }
        }
    }

    fn told(&self, kind: Kind, source: Option<&Row>, destination: Option<&Row>, is_ahead: bool) -> Told {
        let plan = self.sides.plan;
        let name = |at: usize| plan.columns.get(at).map(|column| column.name.clone()).unwrap_or_default();
        let texts = self.sides.told_columns(self.question.with_values);
        let cells = |row: Option<&Row>| {
            let texts = texts.iter().zip(row.map(|row| row.texts.as_slice()).unwrap_or_default());
            texts.map(|(at, value)| Cell { column: name(*at), value: value.clone() }).collect::<Vec<_>>()
        };
        let keys = plan.order_by.len();
        let (mut of_source, mut of_destination) = (cells(source), cells(destination));
        // PostgreSQL's own words for a key that both have.
        let mut key: Vec<Cell> = of_destination.drain(..keys.min(of_destination.len())).collect();
        if !of_source.is_empty() {
            key = of_source.drain(..keys.min(of_source.len())).collect();
        }
        let mut columns = Vec::new();
        if let (Some(source), Some(destination)) = (source, destination) {
            let places = super::read::comparable(plan);
            let pairs = source.columns.iter().zip(&destination.columns).zip(places);
            columns.extend(pairs.filter(|((a, b), _)| a != b).map(|(_, at)| name(at)));
            if columns.is_empty() && !is_ahead {
                // A value that the type that is sent does not have.
                columns.extend(super::read::converted(plan).into_iter().map(name));
            }
        }
        if is_ahead {
            columns.push(plan.own.version.clone());
        }
        Told { kind, key, columns, source: of_source, destination: of_destination }
    }
}
