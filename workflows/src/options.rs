//! How each activity is timed out and retried, each with its reason.
//!
//! Every retry policy is unlimited in attempts: a replicator that gives up by itself is worse than
//! one that waits. What a retry cannot mend is non-retryable by its code ([`crate::failure`]).
//!
//! Pure: no I/O.

use std::time::Duration;

use temporalio_workflow::{
    ActivityCancellationType, ActivityCloseTimeouts, ActivityOptions, RetryPolicy, WorkflowCancellationToken,
};

/// Backoff before the first retry. Shorter ones help nobody: timers of a Temporal server have a
/// grain of one second.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// Longest backoff of what writes: together with [`HEARTBEAT`] it bounds how long a stream stands
/// still after its worker was killed (15 s at most are promised).
const RETRY_LONGEST_DATA: Duration = Duration::from_secs(5);

/// Longest backoff of preparations: nobody waits for the second, and a peer that is down is not
/// to be knocked at more often.
const RETRY_LONGEST_CONTROL: Duration = Duration::from_secs(30);

/// A long activity that has not been heard of for so long is given to another worker. Workers send
/// heartbeats every second, so a busy machine has five chances.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// Time of an activity that only touches the catalog. It has no heartbeat, so this is what a
/// killed worker costs.
const CATALOG_ATTEMPT: Duration = Duration::from_secs(10);

/// Time of an attempt that lasts as long as there is work. Temporal asks for a bound; reaching it
/// costs one reconnect.
const ENDLESS_ATTEMPT: Duration = Duration::from_secs(365 * 24 * 3600);

/// When no worker has taken up a copier or a stream for so long, an event tells of it.
const UNSTAFFED: Duration = Duration::from_secs(60);

/// When no worker has taken up a check for so long, the server answers NO_WORKERS.
const CHECK_UNSTAFFED: Duration = Duration::from_secs(10);

/// Time of a check in all, attempts together: somebody is waiting at a prompt.
const CHECK: Duration = Duration::from_secs(30);

/// Time to clean up a peer in all, attempts together. A peer that is gone for good must not keep a
/// mirror from being dropped.
const CLEAN_UP: Duration = Duration::from_secs(60);

/// Time for workflows to close that were told to stop: longer than an attempt may drain, and than the
/// attempt of a dead worker is waited for.
const CLOSING: Duration = Duration::from_secs(40);

/// Attempts to clean up a peer: with the backoff, three fit into a restart of a database.
const CLEAN_UP_ATTEMPTS: u32 = 4;

/// Time to begin a resync in all, attempts together: somebody is waiting at a prompt.
const RESYNC: Duration = Duration::from_secs(30);

/// Attempts to begin a resync: what a second one does not mend, the user hears of.
const RESYNC_ATTEMPTS: u32 = 2;

/// Time for tables to join and leave in all, attempts together: nothing else of the mirror is begun
/// meanwhile. What is not done in it is tried again when the mirror is looked at the next time.
const EDIT: Duration = Duration::from_secs(45);

/// Time of one round of housekeeping.
const HOUSEKEEPING: Duration = Duration::from_secs(120);

fn retry(longest: Duration) -> RetryPolicy {
    RetryPolicy::builder().initial_interval(RETRY_FIRST).maximum_interval(longest).build()
}

/// For what only touches the catalog.
pub fn catalog(summary: impl Into<String>) -> ActivityOptions {
    ActivityOptions::with_start_to_close_timeout(CATALOG_ATTEMPT)
        .retry_policy(retry(RETRY_LONGEST_DATA))
        .summary(summary)
        .build()
}

/// For catalog work that must be done even when the workflow is cancelled.
pub fn catalog_detached(summary: impl Into<String>) -> ActivityOptions {
    let mut options = catalog(summary);
    options.cancellation_token = Some(WorkflowCancellationToken::new());
    options
}

/// For what prepares a peer. It may wait long (a slot is made only when every open transaction of
/// the source is over), so it has heartbeats instead of a short time. The workflow waits until the
/// attempt has really stopped: what it made must be seen by a drop that follows.
pub fn prepare(summary: impl Into<String>, token: &WorkflowCancellationToken) -> ActivityOptions {
    ActivityOptions::with_start_to_close_timeout(ENDLESS_ATTEMPT)
        .heartbeat_timeout(HEARTBEAT)
        .retry_policy(retry(RETRY_LONGEST_CONTROL))
        .cancellation_token(token.clone())
        .cancellation_type(ActivityCancellationType::WaitCancellationCompleted)
        .summary(summary)
        .build()
}

/// For the control steps of a copy: as [`prepare`], but somebody waits for the rows.
pub fn copy_step(summary: impl Into<String>, token: &WorkflowCancellationToken) -> ActivityOptions {
    let mut options = prepare(summary, token);
    options.retry_policy = Some(retry(RETRY_LONGEST_DATA));
    options
}

/// Whether it is to be told when no worker takes up the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// After a while.
    Tell,
    /// It was told: from here on the work waits, and the history does not grow meanwhile.
    Wait,
}

/// For copiers, on the snapshot queue.
pub fn copier(
    queue: String,
    number: u32,
    patience: Patience,
    token: &WorkflowCancellationToken,
) -> ActivityOptions {
    data(queue, format!("copier {number}"), patience, token)
}

/// For the stream, on the stream queue.
pub fn stream(queue: String, patience: Patience, token: &WorkflowCancellationToken) -> ActivityOptions {
    data(queue, "changes, until told to stop".to_owned(), patience, token)
}

/// For those that compare ranges, on the snapshot queue: they read as much as copiers do.
pub fn comparer(queue: String, number: u32, token: &WorkflowCancellationToken) -> ActivityOptions {
    data(queue, format!("comparer {number}"), Patience::Wait, token)
}

fn data(
    queue: String,
    summary: String,
    patience: Patience,
    token: &WorkflowCancellationToken,
) -> ActivityOptions {
    ActivityOptions::with_start_to_close_timeout(ENDLESS_ATTEMPT)
        .task_queue(queue)
        .maybe_schedule_to_start_timeout((patience == Patience::Tell).then_some(UNSTAFFED))
        .heartbeat_timeout(HEARTBEAT)
        .retry_policy(retry(RETRY_LONGEST_DATA))
        .cancellation_token(token.clone())
        // The workflow reports the stop only when nothing is in flight any more.
        .cancellation_type(ActivityCancellationType::WaitCancellationCompleted)
        .summary(summary)
        .build()
}

/// For a check of a draft.
pub fn check() -> ActivityOptions {
    ActivityOptions::with_schedule_to_close_timeout(CHECK)
        .schedule_to_start_timeout(CHECK_UNSTAFFED)
        .heartbeat_timeout(HEARTBEAT)
        .retry_policy(retry(RETRY_FIRST))
        .build()
}

/// For the begin of a resync. It ends when the mirror is dropped.
pub fn resync(summary: impl Into<String>, token: &WorkflowCancellationToken) -> ActivityOptions {
    let retry = RetryPolicy::builder()
        .initial_interval(RETRY_FIRST)
        .maximum_interval(RETRY_FIRST)
        .maximum_attempts(RESYNC_ATTEMPTS)
        .build();
    ActivityOptions::with_close_timeouts(ActivityCloseTimeouts::ScheduleToClose(RESYNC))
        .heartbeat_timeout(HEARTBEAT)
        .retry_policy(retry)
        .cancellation_token(token.clone())
        .summary(summary)
        .build()
}

/// For tables that join and leave.
pub fn edit(summary: impl Into<String>, token: &WorkflowCancellationToken) -> ActivityOptions {
    ActivityOptions::with_close_timeouts(ActivityCloseTimeouts::ScheduleToClose(EDIT))
        .heartbeat_timeout(HEARTBEAT)
        .retry_policy(retry(RETRY_LONGEST_DATA))
        .cancellation_token(token.clone())
        .summary(summary)
        .build()
}

/// For the removal of what a mirror made on a peer.
pub fn clean_up(summary: impl Into<String>) -> ActivityOptions {
    let retry = RetryPolicy::builder()
        .initial_interval(RETRY_FIRST)
        .maximum_interval(RETRY_LONGEST_DATA)
        .maximum_attempts(CLEAN_UP_ATTEMPTS)
        .build();
    ActivityOptions::with_close_timeouts(ActivityCloseTimeouts::ScheduleToClose(CLEAN_UP))
        .heartbeat_timeout(HEARTBEAT)
        .retry_policy(retry)
        .summary(summary)
        .build()
}

/// For the wait until workflows have closed.
pub fn closing(summary: impl Into<String>) -> ActivityOptions {
    ActivityOptions::with_close_timeouts(ActivityCloseTimeouts::ScheduleToClose(CLOSING))
        .heartbeat_timeout(HEARTBEAT)
        .retry_policy(retry(RETRY_FIRST))
        .summary(summary)
        .build()
}

/// For a round of housekeeping. One attempt: the next round comes by itself.
pub fn housekeeping() -> ActivityOptions {
    ActivityOptions::with_schedule_to_close_timeout(HOUSEKEEPING)
        .heartbeat_timeout(HEARTBEAT)
        .retry_policy(RetryPolicy::builder().maximum_attempts(1).build())
        .build()
}
