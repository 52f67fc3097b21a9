//! The control server: the API over the catalog and Temporal. It owns no state, does no data work
//! and never dials a user's database.
//!
//! The faces:
//! - `grpc`: the services of `millrace.v1`, health, reflection, gRPC-Web.
//! - `rest`: the same in JSON over HTTP; [`openapi`] describes it.
//! - `http`: liveness, readiness, REST and its documentation, metrics.
//! - `listen`: connections, plain or TLS.
//! - `cors`: which web pages may ask.
//! - `gate`: limits, time-outs, the guard against panics, the log: what every request passes.
//! - `access`: who calls, and whether they may.
//!
//! What they do:
//! - `control`: one function a method, over the catalog and Temporal.
//! - `orchestra`: Temporal, as the server uses it.
//! - `startup`: waits until the parts answer.
//! - `metrics`: what Prometheus scrapes.
//!
//! Pure decisions:
//! - `convert`: messages to specs, stored objects to messages.
//! - `validate`, `text`: what a request may hold.
//! - `refusals`: what is not built yet.
//! - `mask`: what an update replaces.
//! - `edit`: what of a mirror may change while it runs.
//! - `tables`: patterns, and the destinations' names.
//! - [`deadlines`]: how long everything may take that somebody waits for.
//! - `report`: what the workers' checks found. `doctor`: how the installation and stored mirrors are judged.
//! - [`document`], `plan`, `diff`: `apply`: the file, its steps, what differs. [`export`]: the way back.
//! - `fault`: errors on the wire.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod access;
mod control;
mod convert;
mod cors;
pub mod deadlines;
mod diff;
mod doctor;
pub mod document;
mod edit;
pub mod export;
mod fault;
mod gate;
mod grpc;
mod http;
mod listen;
mod mask;
mod metrics;
pub mod openapi;
mod orchestra;
mod plan;
mod refusals;
mod report;
mod rest;
mod startup;
mod tables;
mod text;
mod validate;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use millrace_catalog::SecretKeys;
use millrace_terms::Result;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::access::{Access, Door};
use crate::control::Control;
use crate::cors::Cors;
use crate::gate::Gate;
use crate::http::Stage;
use crate::listen::{Incoming, Tls};
use crate::metrics::Metrics;
use crate::rest::Rest;
use crate::startup::Listeners;

pub use crate::listen::TlsFiles;

/// How long open requests may take after the shutdown was asked for. A process manager gives 30 s.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);

/// What the server needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// URL of the catalog's PostgreSQL.
    pub catalog_url: SecretString,
    /// The keys that seal secrets: `id:base64(32 bytes)[,id:base64...]`, the first is current.
    pub secret_keys: SecretString,
    /// URL of Temporal's frontend.
    pub temporal_address: String,
    /// Namespace in Temporal.
    pub temporal_namespace: String,
    /// Prefix of the task queues.
    pub queue_prefix: String,
    /// Where gRPC listens.
    pub grpc_listen: SocketAddr,
    /// Where HTTP listens.
    pub http_listen: SocketAddr,
    /// Where the metrics listen.
    pub metrics_listen: SocketAddr,
    /// Origins of the web pages that may ask, such as `https://ui.example.com`; `*` for any, empty for none.
    pub cors_origins: Vec<String>,
    /// Whether everybody who reaches the server may do everything: on loopback only.
    pub insecure_no_auth: bool,
    /// Requests a second of one token at most; 0 for any number.
    pub requests_per_second: u32,
    /// Certificates of gRPC and HTTP; none for plain connections.
    pub tls: Option<TlsFiles>,
}

/// Serves until `shutdown`, then finishes what is open.
///
/// Waits for the catalog and for Temporal for as long as it takes; `/readyz` and the log say what
/// is missing.
///
/// # Errors
/// What waiting cannot mend: an address in use, malformed settings, a catalog older than needed.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<()> {
    let keys = SecretKeys::parse(config.secret_keys.expose_secret())?;
    startup::check_exposure(&config)?;
    let listeners = Listeners::bind(&config).await?;
    tracing::info!(grpc = %config.grpc_listen, http = %config.http_listen, metrics = %config.metrics_listen, "server starts");

    // A part that fails ends the others.
    let stop = shutdown.child_token();
    let _stop_all = stop.clone().drop_guard();
    let tls = config.tls.clone().map(|files| Tls::open(files, stop.clone())).transpose()?;
    let grpc = Incoming::new(listeners.grpc, tls.clone(), stop.clone())?;
    let http = Incoming::new(listeners.http, tls, stop.clone())?;
    let scrapes = Incoming::new(listeners.metrics, None, stop.clone())?;
    let (stage, seen) = watch::channel(Stage::Starting);
    let metrics = Arc::new(Metrics::new());
    let cors = Cors::new(&config.cors_origins)?;
    let api = serve_grpc(&config, &keys, grpc, stage, metrics.clone(), cors.clone(), stop.clone());
    let served = async {
        tokio::try_join!(
            api,
            http::serve_api(http, seen.clone(), cors, stop.clone()),
            http::serve_metrics(scrapes, seen.clone(), metrics, stop.clone()),
        )
    };
    let drained = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    tokio::select! {
        outcome = served => outcome?,
        () = drained => {
            tracing::warn!(seconds = DRAIN_TIMEOUT.as_secs(), "requests still open are cut off");
            return Ok(());
        }
    };
    tracing::info!("server stopped");
    Ok(())
}

/// Waits for the parts, then serves.
async fn serve_grpc(
    config: &Config,
    keys: &SecretKeys,
    connections: Incoming,
    stage: watch::Sender<Stage>,
    metrics: Arc<Metrics>,
    cors: Cors,
    stop: CancellationToken,
) -> Result<()> {
    let Some(catalog) = startup::catalog(config, keys, &stage, &stop).await? else {
        return Ok(());
    };
    let door = if config.insecure_no_auth { Door::Open } else { Door::Guarded(catalog.clone()) };
    let access = Arc::new(Access::new(door, config.requests_per_second));
    let Some(orchestra) = startup::orchestra(config, &stage, &stop).await? else {
        return Ok(());
    };
    let control = Arc::new(Control::new(catalog, orchestra, access, stop.clone()));
    let services = grpc::services(control.clone(), Arc::new(Gate::new(metrics)));
    stage.send_replace(Stage::Serving(control.clone(), Rest::new(services.clone())?));
    tracing::info!("server is ready");
    let (served, ()) = tokio::join!(grpc::serve(connections, services, cors, stop), control.keep_started());
    served
}
