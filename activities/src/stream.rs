//! The stream: changes from the slot into the destination, for as long as there are any.
//!
//! - this file: the attempt. It takes the lease, ends what is left of older attempts, and runs.
//! - `lease`: renews the lease, and tells the data plane until when it holds.
//! - `ledger`: writes down what the data plane reports, in its order; `figures`: what it counts.
//! - `looks`: regular looks at the source beside the stream.

#![expect(
    dead_code,
    reason = "the macro makes a constant for each activity, to start it by; workflows use the contract's"
)]

mod figures;
mod lease;
mod ledger;
mod looks;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use millrace_catalog::append::{Append, Cut};
use millrace_catalog::mirrors::Mirror;
use millrace_catalog::spec::{self, TableSpec};
use millrace_catalog::state::Verdict;
use millrace_catalog::streams::Lease;
use millrace_catalog::tables::Table;
use millrace_replication::clickhouse::InsertId;
use millrace_replication::postgres::{self, Session, slot, tree};
use millrace_replication::stream::{
    self, AppendState, Limits, Older, OnColumnDropped, OnRewrite, Rules, Snapshot, StreamConfig,
    StreamHandle, StreamTable,
};
use millrace_terms::fault::{self, Point};
use millrace_terms::{Code, Error, Lsn, Result};
use millrace_workflows::payload::{StreamEnd, StreamRef};
use millrace_workflows::{MirrorWorkflow, contract, ids};
use temporalio_client::{Client, WorkflowHandle, WorkflowSignalOptions};
use temporalio_common::HasWorkflowDefinition;
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::environment::{Destination, Environment, is_told, read_plan};
use crate::recovery::{STREAM, judge, look, refusal};
use crate::{alive, apart, check, failure};
use ledger::{Held, Ledger, Told};

/// How long the lease holds without a renewal: how long the catalog may be away before the stream
/// stops. A new attempt does not wait for it; only physical deletes do.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// Attempts before this one whose inserts are ended: with a second between attempts, those of the
/// last moments.
const OLDER: i64 = 5;

/// After so many attempts that ended at one position because the source could not decode its log, about a
/// quarter of a minute, it is taken for lasting: what passes by itself has passed by then.
const UNDECODABLE_ATTEMPTS: u32 = 5;

/// Reports that wait to be written down. The data plane waits when there are more.
const REPORTS: usize = 256;

pub(crate) struct Step(pub(crate) Arc<Environment>);

#[activities]
impl Step {
    #[activity(definition = contract::Stream)]
    pub(crate) async fn stream(
        self: Arc<Self>,
        ctx: ActivityContext,
        stream: StreamRef,
    ) -> Result<StreamEnd, ActivityError> {
        // The mirror looks into the catalog when a table's state changed.
        let mirror = ctx.client().get_workflow_handle(ids::mirror(&stream.mirror));
        let ended =
            alive::draining(&ctx, |cancel| Box::pin(attempt_to_stream(&self.0, &stream, cancel, mirror)))
                .await;
        match ended {
            // Also on a worker's shutdown: the server gives it to another worker then.
            _ if ctx.is_cancelled() => Err(ActivityError::cancelled()),
            Ok(position) => Ok(StreamEnd { position }),
            Err(error) => {
                stalled(&self.0, &stream, &error, ctx.info().attempt).await;
                Err(failure::of_leased(error))
            }
        }
    }
}

/// The mirror's workflow. By the type of its run: the workflow's own is no `Send`.
pub(crate) type MirrorHandle = WorkflowHandle<Client, <MirrorWorkflow as HasWorkflowDefinition>::Run>;

/// Has the mirror look into the catalog whenever the state of a table changed.
pub(crate) async fn tell(mirror: &MirrorHandle, changed: &Notify) -> Infallible {
    loop {
        changed.notified().await;
        let options = WorkflowSignalOptions::default();
        if let Err(error) = mirror.signal(MirrorWorkflow::catalog_changed, (), options).await {
            // What the mirror's workflow shows is late then; the catalog is right.
            tracing::debug!(error = %error, "the mirror could not be told of a change");
        }
    }
}

/// Names the inserts of one attempt, so that a later one can end those still running.
pub(crate) fn attempt(stream: u32, lease: i64) -> String {
    format!("{stream}.{lease}")
}

async fn attempt_to_stream(
    environment: &Environment,
    stream: &StreamRef,
    cancel: CancellationToken,
    workflow: MirrorHandle,
) -> Result<Lsn> {
    let catalog = &environment.catalog;
    let taken = Instant::now();
    let Lease { number: lease, previous } = catalog.take_lease(&stream.mirror, stream.stream, LEASE).await?;
    fault::here(Point::LeaseTaken);
    let older_until = taken + previous;
    // Behind the lease: what is decided about a table from now on counts on this attempt.
    let mirror = catalog.get_mirror(&stream.mirror).await?;
    let destination = environment.destination(&mirror).await?;
    let configured = configure(environment, &mirror, stream, lease, &destination).await;
    let mut config = outrun(environment, stream, lease, configured).await?;
    config.older.until = older_until;
    // The source may have taken most of the lease's time.
    let taken = Instant::now();
    catalog.renew_lease(&stream.mirror, stream.stream, lease, LEASE).await?;

    let (start, mirror_name) = (config.start, stream.mirror.clone());
    let written_below = catalog.get_stream(&mirror_name, stream.stream).await?.written_below;
    let (reports, incoming) = mpsc::channel(REPORTS);
    let (confirm, confirmed) = watch::channel(start);
    let (announce, announced) = watch::channel(written_below);
    let (cut, cuts) = watch::channel(BTreeMap::new());
    let (hold, lease_deadline) = watch::channel(taken + LEASE);
    let (plans, followed) = watch::channel(0);
    let running = cancel.child_token();
    let until = lease_deadline.clone();
    let handle = StreamHandle {
        reports,
        confirmed,
        announced,
        cuts,
        followed,
        lease_deadline,
        cancel: running.clone(),
    };

    let changed = Notify::new();
    let held = Held { lease, until };
    let leaves = Arc::new(Notify::new());
    let (stored_plans, plans_stored) = mpsc::unbounded_channel();
    let told =
        Told { confirm, announce, cut, followed: stored_plans, leaves: leaves.clone(), changed: &changed };
    let (ends, log_end) = watch::channel(None);
    let policy = mirror.spec.settings.on_partition_removed;
    let mut ledger = Ledger::new(environment, stream, held, start, told, log_end, policy);
    // The log's next GiB at once, so that the first rows need not wait.
    ledger.announce(start).await?;
    tracing::info!(mirror = %mirror_name, stream = stream.stream, lease, position = %start, "the stream begins");
    // A task of its own: decoding must not wait for the catalog, nor the catalog for decoding.
    let run = AbortOnDropHandle::new(tokio::spawn(stream::run(config, handle)));
    let work = async {
        let kept = ledger.keep(incoming).await;
        if kept.is_err() {
            running.cancel();
        }
        kept
    };
    let (kept, ended) = tokio::select! {
        both = async { tokio::join!(work, run) } => both,
        error = lease::renew(environment, stream, lease, hold) => return Err(error),
        never = tell(&workflow, &changed) => match never {},
        never = apart::count_stored(environment, plans_stored, plans) => match never {},
        never = looks::look(environment, stream, &leaves, &changed, ends) => match never {},
    };
    let ended = ended.map_err(|panic| Error::new(Code::Internal, format!("the stream panicked: {panic}")))?;
    kept?;
    let position = match ended {
        Err(error) => return Err(stuck(environment, stream, lease, error).await),
        Ok(position) => position,
    };
    catalog.release_lease(&mirror_name, stream.stream, lease).await?;
    tracing::info!(mirror = %mirror_name, stream = stream.stream, lease, %position, "the stream ended");
    Ok(position)
}

/// A holder of the slot with a higher number than ours, although the lease is ours: the catalog was
/// restored, and the holder is of before. The numbers go on behind its own, so that the next attempt ends
/// it, and no later one ever bears a number twice.
async fn outrun<T>(
    environment: &Environment,
    stream: &StreamRef,
    lease: i64,
    configured: Result<T>,
) -> Result<T> {
    if let Err(error) = &configured
        && let Some(theirs) = error.metadata().get(slot::HELD_LEASE).and_then(|lease| lease.parse().ok())
    {
        environment.catalog.skip_leases(&stream.mirror, stream.stream, lease, theirs).await?;
    }
    configured
}

/// An attempt that ended because the source could not decode its log: when it ended so again and again at
/// one position, it always will.
async fn stuck(environment: &Environment, stream: &StreamRef, lease: i64, error: Error) -> Error {
    if !error.metadata().contains_key(stream::UNDECODABLE) {
        return error;
    }
    let noted = environment.catalog.note_undecodable(&stream.mirror, stream.stream, lease).await;
    match noted {
        Ok(attempts) if attempts >= UNDECODABLE_ATTEMPTS => {
            let text = format!("{}, {attempts} times in a row at one position", error.message());
            Error::new(Code::DecodingStuck, text)
                .with("mirror", &stream.mirror)
                .with(STREAM, stream.stream.to_string())
        }
        Ok(_) => error,
        Err(failed) => {
            // It is counted the next time.
            tracing::debug!(error = %failed, "a failure to decode could not be written down");
            error
        }
    }
}

/// Looks at the source, ends what is left of older attempts, and gathers what the stream needs.
async fn configure(
    environment: &Environment,
    mirror: &Mirror,
    stream: &StreamRef,
    lease: i64,
    destination: &Destination,
) -> Result<StreamConfig> {
    let catalog = &environment.catalog;
    let row = catalog.get_stream(&stream.mirror, stream.stream).await?;
    let source = environment.source(mirror).await?;
    let application = catalog.installation().await?.stream_application(&stream.mirror, stream.stream, lease);
    let found = look(&source, &application, &row).await?;
    if let Some(error) = refusal(&judge(&row, &found), &found.system) {
        return Err(error);
    }
    let session = postgres::dial(&source, &application).await?;
    slot::release(&session, &row.slot, &application).await?;
    let older: Vec<String> = ((lease - OLDER).max(1)..lease)
        .map(|lease| InsertId::attempt_prefix(&stream.mirror, &attempt(stream.stream, lease)))
        .collect();
    for prefix in &older {
        destination.clickhouse.kill_queries(prefix, &destination.cluster).await?;
    }
    let start = row.start().ok_or_else(|| Error::new(Code::Internal, "the stream was not prepared"))?;
    Ok(StreamConfig {
        source,
        sink: destination.clickhouse.clone(),
        cluster: destination.cluster.clone(),
        mirror: stream.mirror.clone(),
        attempt: attempt(stream.stream, lease),
        slot: row.slot.clone(),
        publication: row.publication.clone(),
        application,
        base: row.base,
        system: found.system,
        start,
        older: Older { until: Instant::now(), inserts: older },
        tables: tables(environment, mirror, stream, &session).await?,
        limits: limits(mirror, destination),
        memory: environment.memory.clone(),
        binary: true,
    })
}

async fn tables(
    environment: &Environment,
    mirror: &Mirror,
    stream: &StreamRef,
    session: &Session,
) -> Result<Vec<StreamTable>> {
    let plans = environment.catalog.stream_plans(&stream.mirror, stream.stream).await?;
    let mut leaves: BTreeMap<i64, BTreeMap<u32, Option<Lsn>>> = BTreeMap::new();
    for known in environment.catalog.stream_leaves(&stream.mirror, stream.stream).await? {
        leaves.entry(known.table_id).or_default().insert(known.leaf.oid, known.removed_at);
    }
    let appends = environment.catalog.appends(&stream.mirror, stream.stream).await?;
    let mut tables = Vec::with_capacity(plans.len());
    for (id, plan) in plans {
        let Some(table) = mirror.tables.iter().find(|table| table.id == id) else { continue };
        if !table.state.is_streamed() || table.edit.is_some() {
            continue;
        }
        let plan = Arc::new(read_plan(id, plan)?);
        if !plan.seen.pending.is_empty() {
            // The stream goes on altering it at once.
            apart::wait_to_alter(environment, id).await?;
        }
        let append = match appends.iter().find(|append| append.table_id == id) {
            Some(append) if plan.append_only => Some(append_state(append)?),
            // Until its copy has begun, nothing is known of what that will hold.
            None if plan.append_only => continue,
            _ => None,
        };
        let rules = Arc::new(rules(mirror, table));
        let leaves = leaves.remove(&id).unwrap_or_default();
        tables.push(StreamTable { id, plan, rules, floor: table.floor, append, leaves });
    }
    know_leaves(session, &mut tables).await?;
    Ok(tables)
}

/// Of a table whose first copy has not begun no leaves are stored. The stream must know them all the same:
/// one that is detached before it is told of would be taken for no part of the table, its last changes
/// would be lost, and a TRUNCATE of the others would pass for one of the whole.
async fn know_leaves(session: &Session, tables: &mut [StreamTable]) -> Result<()> {
    for heirs in [false, true] {
        let unknown = |table: &&mut StreamTable| table.leaves.is_empty() && table.plan.merges_heirs == heirs;
        let oids: Vec<u32> = tables.iter_mut().filter(unknown).map(|table| table.plan.oid).collect();
        if oids.is_empty() {
            continue;
        }
        let mut trees = tree::of(session, &oids, heirs).await?;
        for table in tables.iter_mut().filter(unknown) {
            let leaves = trees.remove(&table.plan.oid).map(|tree| tree.leaves).unwrap_or_default();
            table.leaves = leaves.iter().map(|leaf| (leaf.oid, None)).collect();
        }
    }
    Ok(())
}

fn append_state(append: &Append) -> Result<AppendState> {
    Ok(AppendState {
        run: append.run,
        snapshot: Snapshot::parse(&append.snapshot)?,
        seen_below: append.seen_below,
        cut: append.cut.map(|Cut { version, taken, rows }| stream::Cut { version, taken, rows }),
    })
}

/// How a table follows its source.
fn rules(mirror: &Mirror, table: &Table) -> Rules {
    let source = table.source.to_string();
    let asked = mirror.spec.tables.iter().find(|spec| spec.source == source).cloned();
    let settings = &mirror.spec.settings;
    Rules {
        // Our own columns stay as the plan has them, so the database is not looked at.
        options: check::options(&mirror.spec, &asked.unwrap_or_else(|| TableSpec::new(source)), ""),
        on_rewrite: match settings.on_rewrite {
            spec::OnRewrite::Resync => OnRewrite::Resync,
            spec::OnRewrite::Error => OnRewrite::Error,
            spec::OnRewrite::Keep => OnRewrite::Keep,
        },
        on_column_dropped: match settings.on_column_dropped {
            spec::OnColumnDropped::Keep => OnColumnDropped::Keep,
            spec::OnColumnDropped::Drop => OnColumnDropped::Drop,
        },
    }
}

/// The streams of a mirror share its part of the destination.
fn limits(mirror: &Mirror, destination: &Destination) -> Limits {
    let flush = &mirror.spec.settings.flush;
    let streams = mirror.spec.settings.streams.max(1);
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Limits {
        min_interval: Duration::from_millis(flush.min_interval_ms),
        max_rows: size(flush.max_rows),
        max_bytes: size(flush.max_bytes),
        max_in_flight: size(u64::from(flush.max_in_flight)),
        max_inserts_per_second: destination.max_inserts_per_second.div_ceil(streams),
        max_concurrent_inserts: size(u64::from(destination.max_concurrent_inserts.div_ceil(streams))),
    }
}

/// Says in the catalog why nothing is streamed, until the next attempt says otherwise.
async fn stalled(environment: &Environment, stream: &StreamRef, error: &Error, attempt: u32) {
    if error.code() == Code::LeaseLost {
        return;
    }
    let verdict =
        environment.catalog.set_verdict(&stream.mirror, stream.stream, Verdict::Stalled, Some(error));
    if let Err(error) = verdict.await {
        // The attempt fails with its own error; this one adds nothing to it.
        tracing::debug!(error = %error, "the reason could not be written down");
    }
    // What is not retried becomes the mirror's own error, with an event of its own.
    if error.is_retryable() && is_told(attempt) {
        environment.warn(&stream.mirror, None, error).await;
    }
}
