//! Watching a mirror: as it is now, and again after every change.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use millrace_proto::v1;
use millrace_terms::{Code, Error};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;

use super::{Control, WATCHES_MAX};
use crate::convert::view;
use crate::fault::Answer;
use crate::text::name_of;

/// How often the catalog is asked: four times a second is what an eye still follows.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How long the catalog may be away before a watch ends with the error.
const OUTAGE_MAX: Duration = Duration::from_secs(10);

impl Control {
    /// The mirror now and after every change; ends when the mirror is gone.
    pub(crate) async fn watch_mirror(
        self: Arc<Self>,
        request: v1::WatchMirrorRequest,
    ) -> Answer<ReceiverStream<Answer<v1::Mirror>>> {
        let name = name_of(&request.name)?.to_owned();
        let place = self.watches.clone().try_acquire_owned().map_err(|_| {
            Error::new(Code::ServerBusy, format!("{WATCHES_MAX} mirrors are watched already"))
        })?;
        // The caller learns at once that there is no such mirror.
        let first = view::mirror(&self.catalog.get_mirror(&name).await?, Timestamp::now());
        // One message: a slow reader skips states and never makes a queue.
        let (changes, watched) = mpsc::channel(1);
        tokio::spawn(self.follow(name, first, changes, place));
        Ok(ReceiverStream::new(watched))
    }

    async fn follow(
        self: Arc<Self>,
        name: String,
        first: v1::Mirror,
        changes: mpsc::Sender<Answer<v1::Mirror>>,
        _place: OwnedSemaphorePermit,
    ) {
        let mut last = first;
        if changes.send(Ok(last.clone())).await.is_err() {
            return;
        }
        let mut ticks = tokio::time::interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answered = Instant::now();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = changes.closed() => return,
                () = self.shutdown.cancelled() => {
                    let error = Error::new(Code::Cancelled, "the server is shutting down")
                        .with_remedy("Watch again: another server, or this one after its restart, goes on.");
                    let _gone = changes.send(Err(error.into())).await;
                    return;
                }
            }
            match self.catalog.get_mirror(&name).await {
                Ok(mirror) => {
                    answered = Instant::now();
                    let now = view::mirror(&mirror, Timestamp::now());
                    if now != last {
                        last = now.clone();
                        if changes.send(Ok(now)).await.is_err() {
                            return;
                        }
                    }
                }
                Err(error) if error.code() == Code::MirrorNotFound => return,
                Err(error) if error.is_retryable() && answered.elapsed() < OUTAGE_MAX => {}
                Err(error) => {
                    let _gone = changes.send(Err(error.into())).await;
                    return;
                }
            }
        }
    }
}
