//! The stream: every committed change of the tables, from the slot into ClickHouse. I/O in [`run`],
//! `reader`, `flusher`, `reselect` and `side`; everything that decides is pure.
//!
//! ```text
//!  walsender ──▶ reader ──events──▶ engine ──rows──▶ lane of the table ──steps──▶ flusher ──▶ ClickHouse
//!      ▲         decode             relations          open batch                   │ large values that
//!      │                            apply (+ toast)    full batches, barriers       │ did not change:
//!      │                              ▲    │                ▲                       ▼ reselect
//!      │                              │    └─ Tracker ◀─────┼───────ended─────── source
//!      │                              │        position     └ Batcher: which lane, when
//!      └──── confirmed ◀── catalog ◀──┴── reports
//! ```
//!
//! - The loop in [`run`] is one task. It decodes a message straight into the columns of its table's
//!   open batch. Steps, which encode and send, are tasks of their own: reading, encoding and sending
//!   overlap.
//! - A batch may hold parts of many transactions, and a transaction may be in many batches, so memory
//!   is bounded whatever its size: when the worker's budget is used up, reading stops.
//! - Order does not matter to the destination (see `version`), except around a TRUNCATE, which is a
//!   barrier in its table's lane.
//! - The position is told when everything below has arrived, and acknowledged to the slot only when it
//!   has been stored.
//! - What is wrong with one table is told once, and the table is left out; the others go on.

mod append;
mod apply;
mod batcher;
mod config;
mod engine;
mod flusher;
mod lane;
mod leaves;
mod memory;
mod places;
mod position;
mod reader;
mod relations;
mod reselect;
mod schema;
mod side;
mod snapshot;
mod status;
mod toast;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millrace_terms::{Code, Error, Lsn, Result};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use append::{AppendState, Cut};
pub use batcher::Limits;
pub use config::{Counts, Older, Report, StreamConfig, StreamHandle, StreamTable};
use engine::Engine;
use flusher::{Ended, Flusher};
pub use memory::{MemoryBudget, WORKER_BYTES};
use places::Places;
pub use reader::UNDECODABLE;
use reader::{Event, Reader};
pub use schema::{Documented, OnColumnDropped, OnRewrite, Rules, SchemaChange, reference as schema_changes};
use side::Side;
pub use snapshot::Snapshot;

/// Most events that are taken before the loop looks at everything else.
const EVENTS_AT_ONCE: usize = 256;
/// How long a cancelled stream may take to send what it has. What is not sent is read again.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the loop looks around if nothing else wakes it.
const TICK: Duration = Duration::from_secs(1);

/// Runs a stream until it is cancelled, and returns the position it has reached.
///
/// # Errors
/// `LEASE_LOST` when the lease's deadline has passed or a newer attempt streams; `SLOT_IN_USE`,
/// `SLOT_LOST`, `PUBLICATION_MISSING`; whatever source or destination say that is not of one table.
/// All that was told remains true.
pub async fn run(config: StreamConfig, mut handle: StreamHandle) -> Result<Lsn> {
    let side = Side::new(config.source.clone(), config.application.clone(), config.system.clone());
    side.prepare(&config.slot, &config.publication, config.start).await?;
    let binary = config.binary && side.binary_is_safe(&config.tables).await?;
    let untold = side.untold(&config.publication, &config.tables).await?;
    let mut reader = Reader::open(&config, binary).await?;
    let places = Places::new(config.limits.max_concurrent_inserts);
    let flusher = Arc::new(Flusher {
        sink: config.sink.clone(),
        cluster: config.cluster.clone(),
        mirror: config.mirror.clone(),
        attempt: config.attempt.clone(),
        side: side.clone(),
        lease_deadline: handle.lease_deadline.clone(),
        announced: handle.announced.clone(),
        cuts: handle.cuts.clone(),
        followed: handle.followed.clone(),
        cancel: handle.cancel.clone(),
        older: config.older.clone(),
        max_bytes: config.limits.max_bytes,
        reports: handle.reports.clone(),
        places: places.clone(),
        // Older attempts sent nothing that the log did not hold when this one began.
        written_below: AtomicU64::new(reader.system.position.0),
        base: config.base,
    });
    let mut engine = Engine::new(&config, flusher.clone(), places);
    for (table, error) in untold {
        engine.fail(table, error);
    }
    let streamed = stream(&config, &side, &mut engine, &mut reader, &mut handle).await;
    let ended = match streamed {
        Ok(()) => drain(&mut engine, &handle).await,
        Err(error) => Err(error.with("position", engine.position().to_string())),
    };
    // Nothing may be sent behind what is told now.
    engine.steps.shutdown().await;
    let below = Lsn(flusher.written_below.load(Ordering::Relaxed));
    // Without it the larger bound holds that was announced.
    let _bound = handle.reports.send(Report::Written { below }).await;
    ended
}

/// Until cancelled.
async fn stream(
    config: &StreamConfig,
    side: &Side,
    engine: &mut Engine,
    reader: &mut Reader,
    handle: &mut StreamHandle,
) -> Result<()> {
    let cancel = handle.cancel.clone();
    let memory = engine.memory();
    let places = engine.places.clone();
    loop {
        let lease = *handle.lease_deadline.borrow();
        if Instant::now() >= lease {
            return Err(Error::new(Code::LeaseLost, "the lease was not renewed in time"));
        }
        let look = [engine.dispatch(), engine.tell_position(false), Some(Instant::now() + TICK), Some(lease)];
        let wake = look.into_iter().flatten().min().unwrap_or(lease);
        tell(engine, handle).await?;
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            Some(step) = engine.steps.join_next() => ended(engine, step)?,
            Ok(()) = handle.confirmed.changed() => reader.confirm(*handle.confirmed.borrow_and_update()),
            event = reader.next(), if !engine.is_full() => {
                take(config, side, engine, reader, &cancel, event?).await?;
            }
            () = memory.wait(), if engine.is_full() => {}
            () = places.freed() => {}
            () = tokio::time::sleep_until(wake) => {}
        }
    }
}

/// Takes an event, and those that are there already.
async fn take(
    config: &StreamConfig,
    side: &Side,
    engine: &mut Engine,
    reader: &mut Reader,
    cancel: &CancellationToken,
    first: Event,
) -> Result<()> {
    let mut next = Some(Ok(first));
    engine.note_arrival();
    // What is taken from the reader is handled: nothing may be taken at the end, and left.
    for _ in 0..EVENTS_AT_ONCE {
        let Some(event) = next.take().or_else(|| reader.next_now()) else { break };
        let event = event?;
        if matches!(event, Event::Silence) {
            side.walsender_is_alive(&config.slot).await?;
        }
        if let Some(relation) = engine.accept(event)? {
            let ancestors = side.ancestors(relation.oid).await?;
            engine.relation(&relation, &ancestors);
        }
        if let Some(doubt) = engine.doubt.take() {
            let present = side.present(&doubt.plan, doubt.relation.oid, doubt.xid, cancel).await?;
            let has_key = !doubt.is_of_key() || side.has_key(&doubt.plan).await?;
            engine.settle(doubt, present.as_ref(), has_key);
        }
        if engine.is_full() {
            break;
        }
    }
    Ok(())
}

fn ended(engine: &mut Engine, step: Result<Ended, tokio::task::JoinError>) -> Result<()> {
    match step {
        Ok(step) => engine.ended(step),
        // A step that panicked: what it held must be read again.
        Err(error) => {
            Err(Error::new(Code::Internal, format!("a step of the stream ended abnormally: {error}")))
        }
    }
}

/// Tells what there is to tell, in order.
async fn tell(engine: &mut Engine, handle: &StreamHandle) -> Result<()> {
    while let Some(report) = engine.outbox.pop_front() {
        if handle.reports.send(report).await.is_err() {
            return Err(Error::new(Code::Cancelled, "nobody listens to the stream's reports any more"));
        }
    }
    Ok(())
}

/// Sends what there is, and tells the last position.
async fn drain(engine: &mut Engine, handle: &StreamHandle) -> Result<Lsn> {
    engine.drain();
    let deadline = (Instant::now() + DRAIN_TIMEOUT).min(*handle.lease_deadline.borrow());
    loop {
        let wake = engine.dispatch().unwrap_or(deadline).min(deadline);
        if engine.is_drained() || Instant::now() >= deadline {
            break;
        }
        tokio::select! {
            Some(step) = engine.steps.join_next() => {
                // What failed is read again by the next attempt.
                if ended(engine, step).is_err() {
                    break;
                }
                tell(engine, handle).await?;
            }
            () = tokio::time::sleep_until(wake) => {}
        }
    }
    engine.tell_position(true);
    tell(engine, handle).await?;
    Ok(engine.position())
}
