//! Regular looks at the source beside the stream, over one session: which partitions the tables have, and
//! where the log ends. I/O.

use std::convert::Infallible;
use std::time::Duration;

use jiff::Timestamp;
use millrace_replication::postgres::Session;
use millrace_terms::{Lsn, Result};
use millrace_workflows::payload::StreamRef;
use tokio::sync::{Notify, watch};

use crate::environment::Environment;
use crate::leaves;

/// Longest and shortest time between two looks: that is how long a partition may go unnoticed, and how exactly
/// the lag of a quiet mirror is known. A stream that begins is told of all partitions at once.
const INTERVAL: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);

/// Where the source's log ended at a time, by the source's clock.
pub(super) type LogEnd = Option<(Lsn, Timestamp)>;

/// Compares the tables' partitions with those that were known, whenever the stream was told of one, and
/// regularly, because one that is attached or detached need not be written to. And says where the log ends.
pub(super) async fn look(
    environment: &Environment,
    stream: &StreamRef,
    seen: &Notify,
    changed: &Notify,
    ends: watch::Sender<LogEnd>,
) -> Infallible {
    let mut session = None;
    loop {
        match look_once(environment, stream, &mut session, &ends).await {
            Ok(true) => changed.notify_one(),
            Ok(false) => {}
            Err(error) => {
                session = None;
                tracing::warn!(error = %error, mirror = %stream.mirror, "the source could not be looked at");
            }
        }
        tokio::time::sleep(PAUSE).await;
        let _told_or_due = tokio::time::timeout(INTERVAL, seen.notified()).await;
    }
}

async fn look_once(
    environment: &Environment,
    stream: &StreamRef,
    session: &mut Option<Session>,
    ends: &watch::Sender<LogEnd>,
) -> Result<bool> {
    let mirror = environment.catalog.get_mirror(&stream.mirror).await?;
    let open = match session.take() {
        Some(open) => open,
        None => environment.dial(&mirror).await?,
    };
    let (end, micros) = open.log_end().await?;
    // A clock beyond the year 9999 tells nothing.
    if let Ok(at) = Timestamp::from_microsecond(micros) {
        ends.send_replace(Some((end, at)));
    }
    let is_due = leaves::compare(environment, &mirror, stream.stream, &open).await?;
    *session = Some(open);
    Ok(is_due)
}
