//! HTTP: health, REST and its documentation on one listener, the metrics on theirs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use millrace_catalog::state::MirrorState;
use millrace_terms::{Code, Error};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::control::Control;
use crate::cors::Cors;
use crate::fault::{self, Fault};
use crate::listen::{Incoming, Peer};
use crate::metrics::Metrics;
use crate::openapi;
use crate::rest::Rest;

/// How long a part may take to show that it lives; probes wait about as long by default.
const PROBE_TIMEOUT: Duration = Duration::from_secs(4);
/// The page that shows `/openapi.json` to people. It loads nothing from elsewhere.
const DOCS: &str = include_str!("http/docs.html");
/// What that page may do: run what is in it, and ask this server.
const DOCS_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                           connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Content type of what Prometheus scrapes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where the start stands.
#[derive(Clone)]
pub(crate) enum Stage {
    /// It has just begun.
    Starting,
    /// A part is missing, and why.
    Waiting(Error),
    /// Requests are answered.
    Serving(Arc<Control>, Rest),
}

impl Stage {
    fn control(&self) -> Option<Arc<Control>> {
        match self {
            Stage::Serving(control, _) => Some(control.clone()),
            Stage::Starting | Stage::Waiting(_) => None,
        }
    }
}

/// Serves the API's HTTP side until `shutdown`, from the very start: whoever waits for the server
/// learns what it waits for.
pub(crate) async fn serve_api(
    connections: Incoming,
    stage: watch::Receiver<Stage>,
    cors: Cors,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let document = Bytes::from(openapi::document()?.to_string());
    let json = [(header::CONTENT_TYPE, "application/json")];
    let page =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, DOCS_POLICY)];
    let routes = Router::new()
        .route("/openapi.json", get(async move || (json, document)))
        .route("/docs", get(async move || (page, DOCS)))
        .fallback(rest)
        .with_state(stage.clone())
        .merge(health(stage))
        .layer(cors);
    serve(connections, routes, shutdown).await
}

/// Everything else is the API.
async fn rest(State(stage): State<watch::Receiver<Stage>>, request: Request) -> Response {
    let stage = stage.borrow().clone();
    let error = match stage {
        Stage::Serving(_, rest) => return rest.answer(request).await,
        Stage::Waiting(error) => error,
        Stage::Starting => Error::new(Code::Cancelled, "the server is starting")
            .with_remedy("Repeat the request in a moment; /readyz says what the server waits for."),
    };
    let status = tonic::Status::from(Fault::from(error));
    (fault::http_code(&status), Json(fault::to_json(&status))).into_response()
}

/// Serves the metrics until `shutdown`, and health once more: probes need no certificate here.
pub(crate) async fn serve_metrics(
    connections: Incoming,
    stage: watch::Receiver<Stage>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let routes = health(stage.clone())
        .merge(Router::new().route("/metrics", get(scrape)).with_state((stage, metrics)));
    serve(connections, routes, shutdown).await
}

fn health(stage: watch::Receiver<Stage>) -> Router {
    Router::new()
        .route("/healthz", get(async || Json(json!({"status": "alive"}))))
        .route("/readyz", get(readyz))
        .with_state(stage)
}

async fn serve(connections: Incoming, routes: Router, shutdown: CancellationToken) -> Result<(), Error> {
    axum::serve(connections, routes.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
        .map_err(|error| Error::new(Code::Internal, format!("HTTP: {error}")))
}

/// Whether requests can be answered: the catalog and Temporal are there.
async fn readyz(State(stage): State<watch::Receiver<Stage>>) -> (StatusCode, Json<Value>) {
    let stage = stage.borrow().clone();
    let control = match stage {
        Stage::Serving(control, _) => control,
        Stage::Starting => return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"ready": false}))),
        Stage::Waiting(error) => {
            let body = json!({"ready": false, "waiting_for": part(Err(error))});
            return (StatusCode::SERVICE_UNAVAILABLE, Json(body));
        }
    };
    let (catalog, temporal) = tokio::join!(probe(control.catalog.ping()), probe(control.orchestra.ping()));
    let ready = catalog.is_ok() && temporal.is_ok();
    let body = json!({"ready": ready, "catalog": part(catalog), "temporal": part(temporal)});
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body))
}

async fn probe(answer: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    match tokio::time::timeout(PROBE_TIMEOUT, answer).await {
        Ok(answer) => answer,
        Err(_) => {
            let message = format!("no answer within {} s", PROBE_TIMEOUT.as_secs());
            Err(Error::new(Code::RequestTimeout, message))
        }
    }
}

fn part(answer: Result<(), Error>) -> Value {
    match answer {
        Ok(()) => json!({"ok": true}),
        Err(error) => json!({
            "ok": false,
            "code": error.code(),
            "message": error.message(),
            "remedy": error.remedy(),
        }),
    }
}

async fn scrape(State((stage, metrics)): State<(watch::Receiver<Stage>, Arc<Metrics>)>) -> Response {
    let control = stage.borrow().control();
    // Without the catalog the figures of mirrors stay as they were; `requests` tells of the outage.
    if let Some(control) = control
        && let Ok(Ok(mirrors)) = tokio::time::timeout(PROBE_TIMEOUT, control.all_mirrors()).await
    {
        let mut counts: BTreeMap<&'static str, u64> =
            MirrorState::ALL.iter().map(|state| (state.as_str(), 0)).collect();
        for mirror in mirrors {
            *counts.entry(mirror.state.as_str()).or_default() += 1;
        }
        metrics.set_mirrors(counts);
    }
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
