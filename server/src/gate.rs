//! What every request passes, whichever way it came: the limit on concurrency, the time limit, the
//! guard against panics, figures and the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_terms::{Class, Code, Error};
use tokio::sync::Semaphore;
use tracing::Instrument as _;

use crate::deadlines;
use crate::fault::{Answer, Fault};
use crate::metrics::Metrics;

/// Requests at work at once. Most wait for a worker or the catalog, so the bound is for memory: a
/// request holds at most one message of a few MiB.
const REQUESTS_MAX: usize = 256;
/// Bytes of a client's own request id at most; longer ones are replaced by one of ours.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// See the module.
pub(crate) struct Gate {
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    timeout: fn(&str) -> Duration,
}

impl Gate {
    /// A gate with all places free.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { places: Arc::new(Semaphore::new(REQUESTS_MAX)), metrics, timeout: deadlines::of_request }
    }

    /// Lets a request through and carries its work out. The work runs to its end even if the
    /// caller goes away: a creation is never left half done by a closed connection.
    pub(crate) async fn pass<T: Send + 'static>(
        &self,
        method: &'static str,
        request_id: &str,
        work: impl Future<Output = Answer<T>> + Send + 'static,
    ) -> Answer<T> {
        let began = Instant::now();
        let answer = self.carry_out(method, request_id, work).await;
        let took = began.elapsed();
        let code = match &answer {
            Ok(_) => "OK",
            Err(fault) => fault.error.code().as_str(),
        };
        self.metrics.answered(method, code, took);
        log(method, request_id, took, answer.as_ref().err());
        answer
    }

    async fn carry_out<T: Send + 'static>(
        &self,
        method: &'static str,
        request_id: &str,
        work: impl Future<Output = Answer<T>> + Send + 'static,
    ) -> Answer<T> {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            let message = format!("{REQUESTS_MAX} requests are at work already");
            return Err(Error::new(Code::ServerBusy, message).into());
        };
        let span = tracing::info_span!("request", method, request_id);
        let work = async move {
            let _place = place;
            work.await
        };
        let timeout = (self.timeout)(method);
        match tokio::time::timeout(timeout, tokio::spawn(work.instrument(span))).await {
            Ok(Ok(answer)) => answer,
            // The panic's own words are in the log, by the hook; they may hold anything.
            Ok(Err(_)) => Err(Error::new(Code::Internal, format!("{method} ended by a panic"))
                .with("request_id", request_id)
                .into()),
            Err(_) => {
                let message = format!("{method} was not answered within {} s", timeout.as_secs());
                Err(Error::new(Code::RequestTimeout, message).into())
            }
        }
    }
}

/// A caller's mistake is not our log's business beyond its code: the message may quote the request.
fn log(method: &str, request_id: &str, took: Duration, fault: Option<&Fault>) {
    let took_ms = took.as_millis();
    match fault {
        None => tracing::debug!(method, request_id, took_ms, "answered"),
        Some(fault) => {
            let (code, message) = (fault.error.code(), fault.error.message());
            match code.class() {
                Class::Internal | Class::DataLoss => {
                    tracing::error!(method, request_id, took_ms, %code, message, "request failed");
                }
                Class::Unavailable | Class::DeadlineExceeded | Class::ResourceExhausted => {
                    tracing::warn!(method, request_id, took_ms, %code, message, "request failed");
                }
                _ => tracing::info!(method, request_id, took_ms, %code, "request refused"),
            }
        }
    }
}

/// The client's id of a request if it is short and plain, else one of ours.
pub(crate) fn request_id(given: Option<&str>) -> String {
    match given {
        Some(id)
            if (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) =>
        {
            id.to_owned()
        }
        _ => uuid::Uuid::now_v7().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate::new(Arc::new(Metrics::new()))
    }

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let work = async { if true { panic!("hunter2") } else { Ok(()) } };
        let fault = gate().pass("GetPeer", "r1", work).await.unwrap_err();
        assert_eq!(fault.error.code(), Code::Internal);
        assert!(!fault.error.message().contains("hunter2"));
    }

    #[tokio::test]
    async fn one_request_too_many_is_refused_and_the_places_come_back() {
        let gate = gate();
        let held = gate.places.clone().try_acquire_many_owned(u32::try_from(REQUESTS_MAX).unwrap()).unwrap();
        let fault = gate.pass("GetPeer", "r1", async { Ok(()) }).await.unwrap_err();
        assert_eq!(fault.error.code(), Code::ServerBusy);
        drop(held);
        gate.pass("GetPeer", "r2", async { Ok(()) }).await.unwrap();
        assert_eq!(gate.places.available_permits(), REQUESTS_MAX);
    }

    #[tokio::test]
    async fn a_request_that_takes_too_long_is_answered_and_goes_on() {
        let (go_on, told) = tokio::sync::oneshot::channel::<()>();
        let (done, is_done) = tokio::sync::oneshot::channel();
        let work = async {
            told.await.unwrap();
            done.send(()).unwrap();
            Ok(())
        };
        let gate = Gate { timeout: |_| Duration::ZERO, ..gate() };
        let fault = gate.pass("CreateMirror", "r1", work).await.unwrap_err();
        assert_eq!(fault.error.code(), Code::RequestTimeout);
        go_on.send(()).unwrap();
        is_done.await.unwrap();
    }

    #[test]
    fn only_plain_request_ids_are_taken_over() {
        assert_eq!(request_id(Some("abc-1.2_3")), "abc-1.2_3");
        for bad in [None, Some(""), Some("a b"), Some("a\nb"), Some("ä"), Some(&*"x".repeat(65))] {
            assert_eq!(request_id(bad).len(), 36, "{bad:?}");
        }
    }
}
