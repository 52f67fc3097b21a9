//! What Prometheus scrapes. Labels are few and bounded: method names, codes and states.
//!
//! Pure but for the clock; `http` serves it.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds of the request durations, in seconds: from a look into the catalog (milliseconds)
/// to a check on a worker (half a minute).
const REQUEST_SECONDS: [f64; 9] = [0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    state: &'static str,
}

/// The server's figures.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    durations: Family<Method, Histogram>,
    mirrors: Family<InState, Gauge>,
}

impl Metrics {
    /// All figures at zero.
    pub(crate) fn new() -> Self {
        let requests = Family::<Request, Counter>::default();
        let durations = Family::<Method, Histogram>::new_with_constructor(|| Histogram::new(REQUEST_SECONDS));
        let mirrors = Family::<InState, Gauge>::default();
        let mut registry = Registry::with_prefix("millrace");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION")), ("part", "server")]);
        registry.register("build", "The release that runs", build);
        registry.register("requests", "Requests answered, by method and code", requests.clone());
        registry.register_with_unit("request_duration", "Time to answer", Unit::Seconds, durations.clone());
        registry.register("mirrors", "Mirrors, by state", mirrors.clone());
        Self { registry, requests, durations, mirrors }
    }

    /// Notes that a request was answered; `code` is `OK` or the error's stable code.
    pub(crate) fn answered(&self, method: &'static str, code: &'static str, took: Duration) {
        self.requests.get_or_create(&Request { method, code }).inc();
        self.durations.get_or_create(&Method { method }).observe(took.as_secs_f64());
    }

    /// Sets the number of mirrors in each state; states that are left out have none.
    pub(crate) fn set_mirrors(&self, counts: impl IntoIterator<Item = (&'static str, u64)>) {
        for (state, count) in counts {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.mirrors.get_or_create(&InState { state }).set(count);
        }
    }

    /// The figures in the text format of OpenMetrics.
    pub(crate) fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_come_out_with_their_labels() {
        let metrics = Metrics::new();
        metrics.answered("GetMirror", "MIRROR_NOT_FOUND", Duration::from_millis(3));
        metrics.set_mirrors([("RUNNING", 2), ("FAILED", 0)]);
        let text = metrics.encode().unwrap();
        for line in [
            "millrace_build_info{version=",
            "millrace_requests_total{method=\"GetMirror\",code=\"MIRROR_NOT_FOUND\"} 1",
            "millrace_mirrors{state=\"RUNNING\"} 2",
            "millrace_mirrors{state=\"FAILED\"} 0",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
