//! From a configuration to parts that answer: waits for the catalog and for Temporal, and says what
//! it waits for.

use std::time::Duration;

use millrace_catalog::{Catalog, SecretKeys};
use millrace_terms::{Code, Error, Result};
use millrace_workflows::ids::Queues;
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::http::Stage;
use crate::orchestra::Orchestra;

/// Wait before the first repetition.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest wait between two: somebody who starts the missing part sees us go on at once.
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// The sockets, taken before anything else: a port in use is known at once.
pub(crate) struct Listeners {
    pub(crate) grpc: TcpListener,
    pub(crate) http: TcpListener,
    pub(crate) metrics: TcpListener,
}

impl Listeners {
    /// Takes all three.
    pub(crate) async fn bind(config: &Config) -> Result<Self> {
        Ok(Self {
            grpc: bind(config.grpc_listen, "MILLRACE_GRPC_LISTEN").await?,
            http: bind(config.http_listen, "MILLRACE_HTTP_LISTEN").await?,
            metrics: bind(config.metrics_listen, "MILLRACE_METRICS_LISTEN").await?,
        })
    }
}

async fn bind(address: std::net::SocketAddr, variable: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Error::new(Code::InvalidArgument, format!("cannot listen on {address}: {error}"))
            .with_remedy(format!("Give {variable} a free address of this machine."))
    })
}

/// Connects to the catalog and checks that its schema is not older than needed. `None` if
/// `shutdown` came first.
///
/// # Errors
/// What waiting cannot mend: CATALOG_VERSION, a malformed URL.
pub(crate) async fn catalog(
    config: &Config,
    keys: &SecretKeys,
    stage: &watch::Sender<Stage>,
    shutdown: &CancellationToken,
) -> Result<Option<Catalog>> {
    repeat("the catalog", stage, shutdown, async || {
        let catalog = Catalog::connect(config.catalog_url.expose_secret(), keys.clone()).await?;
        catalog.check_version().await?;
        Ok(catalog)
    })
    .await
}

/// Connects to Temporal and registers what we need there. `None` if `shutdown` came first.
pub(crate) async fn orchestra(
    config: &Config,
    stage: &watch::Sender<Stage>,
    shutdown: &CancellationToken,
) -> Result<Option<Orchestra>> {
    repeat("Temporal", stage, shutdown, async || {
        let queues = Queues::new(&config.queue_prefix);
        let orchestra =
            Orchestra::connect(&config.temporal_address, &config.temporal_namespace, queues).await?;
        orchestra.ping().await?;
        orchestra.register().await?;
        Ok(orchestra)
    })
    .await
}

/// Repeats what fails for a passing reason.
async fn repeat<T>(
    part: &str,
    stage: &watch::Sender<Stage>,
    shutdown: &CancellationToken,
    attempt: impl AsyncFn() -> Result<T>,
) -> Result<Option<T>> {
    let mut wait = RETRY_FIRST;
    loop {
        let error = tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            outcome = attempt() => match outcome {
                Ok(ready) => return Ok(Some(ready)),
                Err(error) if !error.is_retryable() => return Err(error),
                Err(error) => error,
            },
        };
        tracing::warn!(code = %error.code(), message = error.message(), remedy = error.remedy(), "waiting for {part}");
        stage.send_replace(Stage::Waiting(error));
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            // The part that is missing tells nobody when it comes.
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(RETRY_LONGEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_passes_is_waited_for_and_what_does_not_ends_it() {
        let (stage, seen) = watch::channel(Stage::Starting);
        let shutdown = CancellationToken::new();
        let tries = std::cell::Cell::new(0);
        let ready = repeat("it", &stage, &shutdown, async || {
            tries.set(tries.get() + 1);
            match tries.get() {
                2 => Ok(7),
                _ => Err(Error::new(Code::CatalogUnreachable, "not yet")),
            }
        });
        assert_eq!(ready.await, Ok(Some(7)));
        assert!(matches!(&*seen.borrow(), Stage::Waiting(error) if error.message() == "not yet"));

        let older = Error::new(Code::CatalogVersion, "older");
        let refused = repeat::<()>("it", &stage, &shutdown, async || Err(older.clone())).await;
        assert_eq!(refused, Err(older));
    }

    #[tokio::test]
    async fn a_shutdown_ends_the_waiting() {
        let (stage, _seen) = watch::channel(Stage::Starting);
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        let error = Error::new(Code::CatalogUnreachable, "never");
        assert_eq!(repeat::<()>("it", &stage, &shutdown, async || Err(error.clone())).await, Ok(None));
    }
}
