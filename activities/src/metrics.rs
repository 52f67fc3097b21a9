//! What this process did, for Prometheus. Pure but for the registry's lock.

use std::sync::Mutex;
use std::sync::atomic::AtomicI64;

use millrace_workflows::payload::StreamRef;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The mirror a figure belongs to. Tables are not labels: thousands of them would be too many series.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Labels {
    /// Name of the mirror.
    pub(crate) mirror: String,
}

impl Labels {
    /// The labels of a mirror.
    pub(crate) fn of(mirror: &str) -> Self {
        Self { mirror: mirror.to_owned() }
    }
}

/// The stream a figure belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StreamLabels {
    /// Name of the mirror.
    pub(crate) mirror: String,
    /// Number of the stream.
    pub(crate) stream: u32,
}

impl StreamLabels {
    /// The labels of a stream.
    pub(crate) fn of(stream: &StreamRef) -> Self {
        Self { mirror: stream.mirror.clone(), stream: stream.stream }
    }
}

/// What this process did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    /// Rows copied.
    pub(crate) copied_rows: Family<Labels, Counter>,
    /// Rows inserted, updated and deleted by streams.
    pub(crate) streamed_rows: Family<StreamLabels, Counter>,
    /// Bytes sent by streams.
    pub(crate) streamed_bytes: Family<StreamLabels, Counter>,
    /// Values that became NULL because ClickHouse cannot hold them.
    pub(crate) nulled_values: Family<Labels, Counter>,
    /// INSERTs of streams.
    pub(crate) flushes: Family<StreamLabels, Counter>,
    /// Bytes of log between a stream's position and the end of the source's log.
    pub(crate) lag_bytes: Family<StreamLabels, Gauge<i64, AtomicI64>>,
}

impl Metrics {
    /// Registers them.
    pub(crate) fn new(registry: &Mutex<Registry>) -> Self {
        let metrics = Self::default();
        // A poisoned lock means that a panic is already on its way out.
        if let Ok(mut registry) = registry.lock() {
            registry.register("copied_rows", "Rows copied", metrics.copied_rows.clone());
            registry.register("streamed_rows", "Rows changed by streams", metrics.streamed_rows.clone());
            registry.register("streamed_bytes", "Bytes sent by streams", metrics.streamed_bytes.clone());
            registry.register(
                "nulled_values",
                "Values that became NULL because ClickHouse cannot hold them",
                metrics.nulled_values.clone(),
            );
            registry.register("flushes", "INSERTs of streams", metrics.flushes.clone());
            registry.register(
                "lag_bytes",
                "Log not yet in the destination, in bytes",
                metrics.lag_bytes.clone(),
            );
        }
        metrics
    }
}
