//! What the activities of one process share. I/O rim.

use std::sync::{Arc, Mutex};

use millrace_catalog::Catalog;
use millrace_catalog::events::{NewEvent, Severity};
use millrace_catalog::mirrors::Mirror;
use millrace_catalog::spec::PeerConfig;
use millrace_replication::addresses::AddressRules;
use millrace_replication::block::Nulled;
use millrace_replication::clickhouse::Clickhouse;
use millrace_replication::postgres::{self, Session, SourceConfig, System};
use millrace_replication::stream::{MemoryBudget, WORKER_BYTES};
use millrace_replication::table::TablePlan;
use millrace_terms::{Code, Error, EventCode, Result};
use prometheus_client::registry::Registry;
use temporalio_sdk::activities::{ActivityContext, ActivityError};

use crate::metrics::{Labels, Metrics};
use crate::{failure, peers};

/// What the activities of one process share.
pub(crate) struct Environment {
    /// This process, as Temporal shows it: part of a lease's owner.
    pub(crate) worker: String,
    /// The catalog.
    pub(crate) catalog: Catalog,
    /// Where peers may be.
    pub(crate) addresses: Arc<AddressRules>,
    /// What this process did.
    pub(crate) metrics: Metrics,
    /// The bytes of rows that all streams of this process hold together.
    pub(crate) memory: Arc<MemoryBudget>,
}

/// The destination of a mirror.
pub(crate) struct Destination {
    /// The server.
    pub(crate) clickhouse: Clickhouse,
    /// Name of the cluster for ON CLUSTER; empty for a single server.
    pub(crate) cluster: String,
    /// Budget of INSERTs per second.
    pub(crate) max_inserts_per_second: u32,
    /// Budget of INSERTs at once.
    pub(crate) max_concurrent_inserts: u32,
}

impl Environment {
    /// Registers the metrics.
    pub(crate) fn new(
        worker: String,
        catalog: Catalog,
        addresses: AddressRules,
        registry: &Mutex<Registry>,
    ) -> Self {
        Self {
            worker,
            catalog,
            addresses: Arc::new(addresses),
            metrics: Metrics::new(registry),
            memory: MemoryBudget::new(WORKER_BYTES),
        }
    }

    /// How to reach the source of a mirror.
    pub(crate) async fn source(&self, mirror: &Mirror) -> Result<SourceConfig> {
        match self.catalog.get_peer(&mirror.spec.source).await?.spec.config {
            PeerConfig::Postgres(peer) => Ok(peers::source(&peer, &self.addresses)),
            PeerConfig::Clickhouse(_) => Err(peers::wrong_kind(&mirror.spec.source, "source", "PostgreSQL")),
        }
    }

    /// A session on the source of a mirror, under the name of its ordinary sessions.
    pub(crate) async fn dial(&self, mirror: &Mirror) -> Result<Session> {
        let application = self.catalog.installation().await?.application(mirror.name());
        postgres::dial(&self.source(mirror).await?, &application).await
    }

    /// A session on the server that writes the log of a mirror's stream, and on no other: what a copy
    /// reads must be what that log's changes belong to.
    ///
    /// # Errors
    /// SOURCE_IN_RECOVERY where the source is another server, until the stream follows it there.
    pub(crate) async fn dial_log(&self, mirror: &Mirror, stream: u32) -> Result<Session> {
        let log = mirror.streams.iter().find(|known| known.n == stream).and_then(|known| {
            let (id, timeline) = (known.system_id.clone()?, known.timeline?);
            Some(System { id, timeline, position: known.position? })
        });
        let log = log.ok_or_else(|| Error::new(Code::Internal, "the stream was not prepared"))?;
        let application = self.catalog.installation().await?.application(mirror.name());
        postgres::dial_log(&self.source(mirror).await?, &application, &log).await
    }

    /// The destination of a mirror, which answers.
    pub(crate) async fn destination(&self, mirror: &Mirror) -> Result<Destination> {
        let PeerConfig::Clickhouse(peer) = self.catalog.get_peer(&mirror.spec.destination).await?.spec.config
        else {
            return Err(peers::wrong_kind(&mirror.spec.destination, "destination", "ClickHouse"));
        };
        Ok(Destination {
            clickhouse: Clickhouse::connect(&peers::destination(&peer, &self.addresses)).await?,
            cluster: peer.cluster,
            max_inserts_per_second: peer.max_inserts_per_second,
            max_concurrent_inserts: peer.max_concurrent_inserts,
        })
    }

    /// How a step for a mirror, or one of its tables, ended. Of an attempt that failed and is going to
    /// be repeated, an event tells: of the first, and then ever more rarely.
    pub(crate) async fn outcome<T>(
        &self,
        ctx: &ActivityContext,
        mirror: &str,
        table: Option<&str>,
        done: Result<T>,
    ) -> Result<T, ActivityError> {
        let error = match done {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if error.is_retryable() && !ctx.is_cancelled() && is_told(ctx.info().attempt) {
            self.warn(mirror, table, &error).await;
        }
        Err(failure::ended(ctx, error))
    }

    /// Writes what has come to pass with a table as an event.
    pub(crate) async fn tell(
        &self,
        mirror: &str,
        table: &impl ToString,
        code: EventCode,
        text: &str,
    ) -> Result<()> {
        self.catalog.add_event(&NewEvent::info(mirror, code, text).on_table(table)).await
    }

    /// Writes an event. The attempt that it tells of fails with its own error; that an event could
    /// not be written adds nothing to it.
    pub(crate) async fn warn(&self, mirror: &str, table: Option<&str>, error: &Error) {
        let event = NewEvent::of_error(mirror, Severity::Warning, error);
        let event = match table {
            Some(table) => event.on_table(&table),
            None => event,
        };
        if let Err(error) = self.catalog.add_event(&event).await {
            tracing::debug!(error = %error, "an event could not be written");
        }
    }

    /// Counts values that became NULL.
    pub(crate) async fn count_nulled(&self, mirror: &str, table_id: i64, nulled: &Nulled) -> Result<()> {
        self.catalog.add_nulled(table_id, nulled).await?;
        self.metrics.nulled_values.get_or_create(&Labels::of(mirror)).inc_by(nulled.values().sum());
        Ok(())
    }

    /// The frozen plan of a table.
    pub(crate) async fn plan(&self, table_id: i64) -> Result<TablePlan> {
        read_plan(table_id, self.catalog.table_plan(table_id).await?)
    }
}

/// Whether an event tells of this failed attempt: the 1st, 10th, 100th and so on, so that a peer that
/// is away for a day leaves five events and not thousands.
pub(crate) fn is_told(attempt: u32) -> bool {
    let mut power = 1;
    while power < attempt {
        power *= 10;
    }
    power == attempt
}

/// Reads a frozen plan.
///
/// # Errors
/// INTERNAL for one that this release cannot read: a defect, for releases read what older ones wrote.
pub(crate) fn read_plan(table_id: i64, plan: serde_json::Value) -> Result<TablePlan> {
    serde_json::from_value(plan)
        .map_err(|error| Error::new(Code::Internal, format!("the plan of table {table_id}: {error}")))
}

/// A plan as the catalog keeps it.
///
/// # Errors
/// INTERNAL: a defect.
pub(crate) fn plan_value(plan: &TablePlan) -> Result<serde_json::Value> {
    serde_json::to_value(plan)
        .map_err(|error| Error::new(Code::Internal, format!("the plan of {}: {error}", plan.source)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_attempts_are_told_of_ever_more_rarely() {
        let told: Vec<u32> = (1..=2000).filter(|attempt| is_told(*attempt)).collect();
        assert_eq!(told, [1, 10, 100, 1000]);
    }
}
