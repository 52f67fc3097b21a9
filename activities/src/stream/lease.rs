//! The lease of a stream's attempt: whoever has it may write positions. When it could not be renewed
//! in time, by our own monotonic clock, nothing more is sent.

use std::time::Duration;

use millrace_terms::Error;
use millrace_workflows::payload::StreamRef;
use tokio::sync::watch;
use tokio::time::Instant;

use super::LEASE;
use crate::environment::Environment;

/// Time between two renewals: nine may fail before the lease is over. It is also how late an attempt of a
/// quiet mirror takes notice that its tables were changed.
const RENEWAL: Duration = Duration::from_secs(1);

/// Renews the lease until it is lost.
pub(super) async fn renew(
    environment: &Environment,
    stream: &StreamRef,
    lease: i64,
    hold: watch::Sender<Instant>,
) -> Error {
    loop {
        tokio::time::sleep(RENEWAL).await;
        // Before the question, not after the answer: the catalog's clock starts in between.
        let asked = Instant::now();
        match environment.catalog.renew_lease(&stream.mirror, stream.stream, lease, LEASE).await {
            Ok(()) => {
                hold.send_replace(asked + LEASE);
            }
            Err(error) if error.is_retryable() => {
                let mirror = &stream.mirror;
                tracing::warn!(error = %error, %mirror, "the lease could not be renewed");
            }
            Err(error) => return error,
        }
    }
}
