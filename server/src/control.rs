//! What the API does, whichever face it is asked through: gRPC now, REST later. Each method takes
//! and gives the API's messages.
//!
//! The server owns no state and never dials a user's database: it reads and writes the catalog,
//! starts and asks workflows, and lets workers look at peers.

mod access;
mod apply;
mod checks;
mod doctor;
mod edits;
mod figures;
mod mirrors;
mod peers;
mod verify;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use millrace_catalog as catalog;
use millrace_catalog::Catalog;
use millrace_catalog::page::PageRequest;
use millrace_catalog::spec::RULES;
use millrace_proto::v1;
use millrace_terms::{Code, Result};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::fault::Answer;
use crate::orchestra::Orchestra;

/// Mirrors watched at once: each asks the catalog four times a second.
const WATCHES_MAX: usize = 100;
/// How often mirrors are looked for whose workflow was not started.
const UNSTARTED_INTERVAL: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Control {
    pub(crate) catalog: Catalog,
    pub(crate) orchestra: Orchestra,
    pub(crate) access: Arc<Access>,
    watches: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Control {
    /// The functions of the API over these parts; watches end with `shutdown`.
    pub(crate) fn new(
        catalog: Catalog,
        orchestra: Orchestra,
        access: Arc<Access>,
        shutdown: CancellationToken,
    ) -> Self {
        Self { catalog, orchestra, access, watches: Arc::new(Semaphore::new(WATCHES_MAX)), shutdown }
    }

    /// The releases of the parts.
    pub(crate) async fn get_version(
        self: Arc<Self>,
        _request: v1::GetVersionRequest,
    ) -> Answer<v1::GetVersionResponse> {
        Ok(v1::GetVersionResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            installation: self.catalog.installation().await?.to_string(),
            catalog_version: i32::try_from(catalog::migration::version_needed()).unwrap_or(i32::MAX),
            rules: RULES,
        })
    }

    /// Starts the workflow of a mirror and notes it.
    async fn start(&self, mirror: &str) -> Result<()> {
        self.orchestra.start_mirror(mirror).await?;
        self.catalog.mark_started(mirror).await
    }

    /// Starts the workflows whose start did not happen, again and again until `shutdown`: a server
    /// died, or Temporal was away, between the writing of the mirror and the start.
    pub(crate) async fn keep_started(&self) {
        while !self.shutdown.is_cancelled() {
            if let Err(error) = self.start_unstarted().await {
                tracing::warn!(code = %error.code(), message = error.message(), "mirrors are not started");
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                // Nobody tells of a start that did not happen, so there is nothing to wait for.
                () = tokio::time::sleep(UNSTARTED_INTERVAL) => {}
            }
        }
    }

    async fn start_unstarted(&self) -> Result<()> {
        for mirror in self.catalog.list_unstarted().await? {
            self.start(&mirror).await?;
            tracing::info!(mirror, "the workflow of the mirror is started");
        }
        Ok(())
    }
}

/// The page that follows `token`; all pages are asked for by [`catalog::page::PAGE_SIZE_MAX`].
fn whole_page(token: String) -> PageRequest {
    PageRequest { size: catalog::page::PAGE_SIZE_MAX, token }
}

/// `None` instead of the error that there is no such object.
fn found<T>(result: Result<T>, missing: Code) -> Result<Option<T>> {
    match result {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.code() == missing => Ok(None),
        Err(error) => Err(error),
    }
}
