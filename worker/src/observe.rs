//! Metrics and health over HTTP: `/metrics` (ours and the SDK's in one), `/healthz`, `/readyz`.
//!
//! I/O rim.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use millrace_catalog::Catalog;
use millrace_terms::{Code, Error, Result};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use temporalio_common::telemetry::metrics::CoreMeter;
use temporalio_common::telemetry::{
    PrometheusExporterOptions, TelemetryOptions, start_prometheus_metric_exporter,
};
use temporalio_sdk::Runtime;
use temporalio_sdk::runtime::RuntimeOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How long the SDK's own metrics, which it serves on a port of its own, may take.
const SDK_METRICS_TIMEOUT: Duration = Duration::from_secs(2);

/// What `/metrics` is, as Prometheus asks for it.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics and health of this process.
#[derive(Clone)]
pub(crate) struct Observer {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Mutex<Registry>,
    /// Where the SDK serves its metrics: a free port of the loopback, for it offers nothing else.
    sdk: OnceLock<SocketAddr>,
    /// Set when the worker polls.
    catalog: OnceLock<Catalog>,
}

impl Observer {
    /// Serves from now on; not ready yet.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if the address cannot be listened on.
    pub(crate) async fn start(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            Error::new(Code::InvalidArgument, format!("metrics cannot be served on {address}: {error}"))
                .with_remedy("Choose a free address by --metrics-listen or MILLRACE_METRICS_LISTEN.")
        })?;
        let registry = Registry::with_prefix("millrace");
        let shared =
            Shared { registry: Mutex::new(registry), sdk: OnceLock::new(), catalog: OnceLock::new() };
        let observer = Self { shared: Arc::new(shared) };
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok" }))
            .route("/readyz", get(readyz))
            .with_state(observer.clone());
        // Ends with the process: it has no state that a stop could harm.
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(observer)
    }

    /// Where metrics are registered.
    pub(crate) fn registry(&self) -> &Mutex<Registry> {
        &self.shared.registry
    }

    /// The SDK's runtime, its metrics among ours.
    ///
    /// # Errors
    /// INTERNAL if the SDK refuses.
    pub(crate) fn runtime(&self) -> Result<Runtime> {
        let refused = |error: &dyn std::fmt::Display| {
            Error::new(Code::Internal, format!("the Temporal SDK refuses: {error}"))
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let exporter = start_prometheus_metric_exporter(
            PrometheusExporterOptions::builder().socket_addr(address).build(),
        )
        .map_err(|error| refused(&error))?;
        let _first = self.shared.sdk.set(exporter.bound_addr);
        let telemetry = TelemetryOptions::builder().metrics(exporter.meter as Arc<dyn CoreMeter>).build();
        let options = RuntimeOptions::builder()
            .telemetry_options(telemetry)
            .build()
            .map_err(|error| refused(&error))?;
        Runtime::from_current_tokio(options).map_err(|error| refused(&error))
    }

    /// The worker polls.
    pub(crate) fn ready(&self, catalog: Catalog) {
        let _first = self.shared.catalog.set(catalog);
    }
}

async fn metrics(State(observer): State<Observer>) -> impl IntoResponse {
    let mut body = String::new();
    if let Ok(registry) = observer.shared.registry.lock() {
        // Only writing to a String, which cannot fail.
        let _written = text::encode_registry(&mut body, &registry);
    }
    if let Some(sdk) = observer.shared.sdk.get() {
        match tokio::time::timeout(SDK_METRICS_TIMEOUT, sdk_metrics(*sdk)).await {
            Ok(Ok(theirs)) => body.push_str(&theirs),
            _ => tracing::debug!("the SDK's metrics do not answer"),
        }
    }
    ([(header::CONTENT_TYPE, METRICS_TYPE)], body)
}

/// One HTTP/1.0 request to ourselves: the answer ends with the connection.
async fn sdk_metrics(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

async fn readyz(State(observer): State<Observer>) -> impl IntoResponse {
    let Some(catalog) = observer.shared.catalog.get() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "waiting for the catalog and Temporal".to_owned());
    };
    match catalog.ping().await {
        Ok(()) => (StatusCode::OK, "ready".to_owned()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}
