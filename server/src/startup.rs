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

/// Sees that a server that asks for no tokens is not open to other machines.
///
/// # Errors
/// INVALID_ARGUMENT if it is.
pub(crate) fn check_exposure(config: &Config) -> Result<()> {
    let mut listens = [config.grpc_listen, config.http_listen].into_iter();
    match listens.find(|address| config.insecure_no_auth && !address.ip().is_loopback()) {
        None => Ok(()),
        Some(address) => Err(Error::new(
            Code::InvalidArgument,
            format!("--insecure-no-auth lets everybody do everything, and {address} is open to other machines"),
        )
        .with_remedy(
            "Listen on 127.0.0.1, or leave --insecure-no-auth out and use tokens: `millrace migrate` makes the first.",
        )),
    }
}

/// Connects to the catalog and checks that its schema is not older than needed. `None` if
/// `shutdown` came first.
///
/// # Errors
/// What waiting cannot mend: CATALOG_VERSION, a malformed URL, UNAUTHENTICATED if nobody could get in.
pub(crate) async fn catalog(
    config: &Config,
    keys: &SecretKeys,
    stage: &watch::Sender<Stage>,
    shutdown: &CancellationToken,
) -> Result<Option<Catalog>> {
    repeat("the catalog", stage, shutdown, async || {
        let catalog = Catalog::connect(config.catalog_url.expose_secret(), keys.clone()).await?;
        catalog.check_version().await?;
        if !config.insecure_no_auth && !catalog.has_tokens().await? {
            return Err(without_tokens());
        }
        Ok(catalog)
    })
    .await
}

fn without_tokens() -> Error {
    Error::new(Code::Unauthenticated, "there is no API token that has not expired: nobody could call this server")
        .with_remedy(
            "Run `millrace migrate`: it makes an admin token and prints it once, or stores the one of MILLRACE_ADMIN_TOKEN. \
             To do without tokens, on this machine only, pass --insecure-no-auth.",
        )
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
