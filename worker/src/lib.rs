//! A worker process: it polls the task queues it was given, and runs workflows and activities.
//!
//! - [`config`]: its settings.
//! - `temporal`: the connection to Temporal, and what must be registered there.
//! - `queues`: one SDK worker per queue, and how much each does at once.
//! - `observe`: metrics and health over HTTP.
//!
//! I/O rim: wiring only.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod config;
mod observe;
mod queues;
mod temporal;

use std::time::Duration;

use millrace_activities::Activities;
use millrace_activities::addresses::{AddressRules, Database};
use millrace_catalog::{Catalog, SecretKeys};
use millrace_terms::{Error, Result};
use secrecy::ExposeSecret;
use temporalio_client::Client;
use temporalio_sdk::Runtime;
use tokio_util::sync::CancellationToken;

pub use config::{Config, Queue};

/// How long the worker waits before it tries again to reach what it needs at its start.
const RETRY: Duration = Duration::from_secs(2);

/// Runs a worker until `shutdown` is cancelled; then it takes up nothing new, drains what it does,
/// and returns. What it cannot end in time is taken up by another worker.
///
/// It waits until the catalog and Temporal answer. The future is not `Send`: it belongs on the
/// thread that blocks on it.
///
/// # Errors
/// INVALID_ARGUMENT for settings that cannot work, CATALOG_VERSION for a catalog that needs
/// `millrace migrate`, TEMPORAL_UNREACHABLE if Temporal refuses the worker later on.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<()> {
    let addresses = addresses(&config)?;
    let observer = observe::Observer::start(config.metrics_listen).await?;
    let (runtime, client, catalog) = tokio::select! {
        biased;
        () = shutdown.cancelled() => return Ok(()),
        parts = prepare(&config, &observer) => parts?,
    };
    let activities = Activities::new(temporal::identity(), catalog.clone(), addresses, observer.registry());
    let workers = queues::Workers::new(&runtime, &client, &config, &activities)?;
    observer.ready(catalog);
    tracing::info!(queues = ?config.queues, "the worker is ready");
    workers.run(shutdown).await
}

/// Where this worker dials peers: not the catalog, whatever the lists say.
fn addresses(config: &Config) -> Result<AddressRules> {
    let catalog = millrace_catalog::connection::addresses(config.catalog_url.expose_secret())?;
    let reserved = catalog.into_iter().map(|(host, port, name)| Database { host, port, name });
    AddressRules::new(&config.peer_allow, &config.peer_deny, reserved.collect())
}

/// Reaches everything the worker needs, however long that takes.
async fn prepare(config: &Config, observer: &observe::Observer) -> Result<(Runtime, Client, Catalog)> {
    let keys = SecretKeys::parse(config.secret_keys.expose_secret())?;
    let url = config.catalog_url.expose_secret();
    let catalog = until_it_answers("the catalog", async || {
        let catalog = Catalog::connect(url, keys.clone()).await?;
        catalog.check_version().await?;
        Ok(catalog)
    })
    .await?;
    let runtime = observer.runtime()?;
    let client = until_it_answers("Temporal", async || temporal::connect(config).await).await?;
    until_it_answers("Temporal", async || temporal::register(&client, config).await).await?;
    Ok((runtime, client, catalog))
}

/// Tries again until it works, or fails with something that a retry cannot mend.
async fn until_it_answers<T>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let mut last: Option<Error> = None;
    loop {
        match attempt().await {
            Err(error) if error.is_retryable() => {
                // Once for each reason: a worker may wait for hours.
                if last.as_ref() != Some(&error) {
                    tracing::warn!(error = %error, "{what} does not answer, trying again");
                }
                last = Some(error);
                tokio::time::sleep(RETRY).await;
            }
            done => return done,
        }
    }
}
