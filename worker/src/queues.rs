//! One SDK worker per queue, on one runtime, and how much each does at once.
//!
//! I/O rim.

use std::time::Duration;

use futures::FutureExt;
use futures::future::{self, LocalBoxFuture};
use millrace_activities::Activities;
use millrace_terms::{Code, Error, Result};
use millrace_workflows::ids::Queues;
use millrace_workflows::{
    CheckWorkflow, DropMirrorWorkflow, HousekeepingWorkflow, MirrorWorkflow, SnapshotWorkflow,
    StreamWorkflow, VerifyWorkflow,
};
use temporalio_client::Client;
use temporalio_sdk::runtime::worker_tuner::{FixedSizeSlotSupplier, TunerHolder};
use temporalio_sdk::{Runtime, Worker, WorkerOptions};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Queue};

/// How long a workflow waits for the worker that has it in its cache before any other may go on.
/// It is what a killed worker costs every mirror it served; a cache miss costs a replay of some
/// milliseconds.
const STICKY_TIMEOUT: Duration = Duration::from_secs(2);

/// Heartbeats reach Temporal at least this often; cancellation comes back with them, so it bounds
/// how long a pause takes to arrive.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// How long running activities may go on after a stop before they are told to drain. Short: what
/// matters is told at once, and catalog statements take milliseconds.
const GRACE: Duration = Duration::from_millis(500);

/// Control activities at once. They wait (for open transactions of a source, for a stream's
/// position) far more than they work, and a mirror may have hundreds of them.
const CONTROL_SLOTS: usize = 500;

/// Copiers at once. Each holds a connection to a source and a destination and up to two blocks of
/// rows in memory; more than the cores of a small machine gains nothing.
const SNAPSHOT_SLOTS: usize = 8;

/// Streams at once. Each holds a walsender and its buffers, which share one budget of memory.
const STREAM_SLOTS: usize = 100;

/// Workflow tasks at once; they run on one thread and take milliseconds.
const WORKFLOW_SLOTS: usize = 20;

/// The SDK asks for suppliers of kinds we do not use as well.
const UNUSED_SLOTS: usize = 1;

/// The SDK workers of this process.
pub(crate) struct Workers {
    workers: Vec<Worker>,
}

impl Workers {
    /// One for each queue of the settings.
    ///
    /// # Errors
    /// INTERNAL if the SDK refuses our options.
    pub(crate) fn new(
        runtime: &Runtime,
        client: &Client,
        config: &Config,
        activities: &Activities,
    ) -> Result<Self> {
        let queues = Queues::new(&config.queue_prefix);
        let workers = config
            .queues
            .iter()
            .map(|queue| {
                let options = options(*queue, &queues, activities)?;
                Worker::new(runtime, client.clone(), options).map_err(refused)
            })
            .collect::<Result<_>>()?;
        Ok(Self { workers })
    }

    /// Runs all until `shutdown`, or until one of them fails; then the others stop too.
    ///
    /// # Errors
    /// TEMPORAL_UNREACHABLE if Temporal refuses a worker for good.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<()> {
        let stops: Vec<_> = self.workers.iter().map(Worker::shutdown_handle).collect();
        let stop = async {
            shutdown.cancelled().await;
            tracing::info!("the worker stops: it takes up nothing new and drains");
            stops.iter().for_each(|stop| stop());
            Ok(())
        };
        let mut running: Vec<LocalBoxFuture<'_, Result<()>>> = vec![stop.boxed_local()];
        for worker in &mut self.workers {
            let shutdown = shutdown.clone();
            running.push(
                async move {
                    let ended = worker.run().await.map_err(|error| {
                        let text = format!("queue {}: {error}", worker.task_queue());
                        Error::new(Code::TemporalUnreachable, text)
                    });
                    shutdown.cancel();
                    ended
                }
                .boxed_local(),
            );
        }
        // All of them end before the first error is returned: a worker that is dropped in the
        // middle of an activity looks like one that was killed.
        future::join_all(running).await.into_iter().collect()
    }
}

fn options(queue: Queue, queues: &Queues, activities: &Activities) -> Result<WorkerOptions> {
    let (name, slots) = match queue {
        Queue::Control => (queues.control(), CONTROL_SLOTS),
        Queue::Snapshot => (queues.snapshot(), SNAPSHOT_SLOTS),
        Queue::Stream => (queues.stream(), STREAM_SLOTS),
    };
    let mut options = WorkerOptions::new(name)
        .tuner(
            TunerHolder::builder()
                .workflow_task_slot_supplier(FixedSizeSlotSupplier::new(WORKFLOW_SLOTS))
                .activity_task_slot_supplier(FixedSizeSlotSupplier::new(slots))
                .local_activity_task_slot_supplier(FixedSizeSlotSupplier::new(UNUSED_SLOTS))
                .nexus_task_slot_supplier(FixedSizeSlotSupplier::new(UNUSED_SLOTS))
                .build(),
        )
        .build();
    options.sticky_queue_schedule_to_start_timeout = STICKY_TIMEOUT;
    options.max_heartbeat_throttle_interval = HEARTBEAT_INTERVAL;
    options.default_heartbeat_throttle_interval = HEARTBEAT_INTERVAL;
    options.graceful_shutdown_period = Some(GRACE);
    match queue {
        Queue::Control => {
            register_workflows(&mut options)?;
            activities.register_control(&mut options);
        }
        Queue::Snapshot => activities.register_snapshot(&mut options),
        Queue::Stream => activities.register_stream(&mut options),
    }
    Ok(options)
}

fn register_workflows(options: &mut WorkerOptions) -> Result<()> {
    options.register_workflow::<MirrorWorkflow>().map_err(refused)?;
    options.register_workflow::<StreamWorkflow>().map_err(refused)?;
    options.register_workflow::<SnapshotWorkflow>().map_err(refused)?;
    options.register_workflow::<DropMirrorWorkflow>().map_err(refused)?;
    options.register_workflow::<CheckWorkflow>().map_err(refused)?;
    options.register_workflow::<HousekeepingWorkflow>().map_err(refused)?;
    options.register_workflow::<VerifyWorkflow>().map_err(refused)?;
    Ok(())
}

fn refused(error: impl std::fmt::Display) -> Error {
    Error::new(Code::Internal, format!("the Temporal SDK refuses the worker: {error}"))
}
