//! Telling Temporal that an attempt lives, and hearing from it that the attempt is to stop.

use std::pin::pin;
use std::time::Duration;

use millrace_terms::{Code, Error, Result};
use temporalio_sdk::activities::ActivityContext;
use tokio_util::sync::CancellationToken;

/// Time between two heartbeats: a fifth of the time after which an attempt is given up.
const BEAT: Duration = Duration::from_secs(1);

/// How long an attempt may drain after it was told to stop. An end is not waited for that a
/// destination out of order may put off for ever: what was not drained is simply sent again.
/// Longer than the data plane itself takes at most.
const DRAIN: Duration = Duration::from_secs(15);

/// Runs `work`, and drops it at once when the attempt is to stop: for work that leaves nothing
/// half-done behind.
pub(crate) async fn interruptible<T>(
    ctx: &ActivityContext,
    work: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    draining(ctx, |cancel| async move {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::new(Code::Cancelled, "told to stop")),
            done = work => done,
        }
    })
    .await
}

/// Runs work that ends by itself, and soon, when its token is cancelled. What it returns then
/// counts; the caller says what that means.
pub(crate) async fn draining<T, F: Future<Output = Result<T>> + Send>(
    ctx: &ActivityContext,
    work: impl FnOnce(CancellationToken) -> F,
) -> Result<T> {
    let cancel = CancellationToken::new();
    let mut work = pin!(work(cancel.clone()));
    let mut beat = tokio::time::interval(BEAT);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = ctx.cancelled() => break,
            _ = beat.tick() => heartbeat(ctx).await,
        }
    }
    cancel.cancel();
    let mut end = pin!(tokio::time::sleep(DRAIN));
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = &mut end => return Err(Error::new(Code::Cancelled, "told to stop, and did not end in time")),
            _ = beat.tick() => heartbeat(ctx).await,
        }
    }
}

async fn heartbeat(ctx: &ActivityContext) {
    // Nothing is in its details: the catalog knows how far the work is.
    if let Err(error) = ctx.record_heartbeat(()).await {
        tracing::warn!(error = %error, "a heartbeat could not be written");
    }
}
