//! Physical deletes and alterations of a destination table, apart from each other.
//!
//! ClickHouse was seen to lose all values of a column that is renamed while a DELETE of the same table is
//! begun. The stream renames; copies, repairs and housekeeping delete. (Whoever deletes the rows of one source
//! table out of a destination that others share need not ask: columns of such a table are never renamed. Inserts
//! lose values likewise: the stream lets its own end first, a copier looks at the plan again when its rows are
//! acknowledged, and a repair inserts under an announcement.) So that a table is being altered is
//! stored with the plan by which it is, before it begins; a delete is announced before it begins, and only
//! while no table is being altered. Each is one statement on the table's row in the catalog: one of the
//! two comes first, and the other waits.
//!
//! An announcement ends by itself, because who made it may die. The server goes on with a delete that it has
//! begun then, and an alteration that comes later waits for it there.

use std::convert::Infallible;
use std::time::Duration;

use millrace_terms::Result;
use tokio::sync::{mpsc, watch};

use crate::environment::Environment;

/// How long a physical delete is announced for. Renewed four times as often.
const ANNOUNCED: Duration = Duration::from_secs(8);
const RENEWAL: Duration = Duration::from_secs(2);

/// Time between two looks whether the other has ended.
const POLL: Duration = Duration::from_millis(250);

/// Carries out a physical delete while the table is not altered.
///
/// # Errors
/// Those of the catalog, and of the delete.
pub(crate) async fn purge<T>(
    environment: &Environment,
    table_id: i64,
    delete: impl Future<Output = Result<T>>,
) -> Result<T> {
    while !environment.catalog.announce_purge(table_id, ANNOUNCED).await? {
        tokio::time::sleep(POLL).await;
    }
    let renewing = async {
        loop {
            tokio::time::sleep(RENEWAL).await;
            if let Err(error) = environment.catalog.prolong_purge(table_id, ANNOUNCED).await {
                // The delete has long begun.
                tracing::debug!(error = %error, "a physical delete could not be announced further");
            }
        }
    };
    tokio::select! {
        done = delete => done,
        never = renewing => match never {},
    }
}

/// Waits until no physical delete of the table is announced.
///
/// # Errors
/// Those of the catalog.
pub(crate) async fn wait_to_alter(environment: &Environment, table_id: i64) -> Result<()> {
    while !environment.catalog.may_alter(table_id).await? {
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// A plan that is stored.
#[derive(Debug)]
pub(crate) struct Stored {
    /// The table.
    pub(crate) table_id: i64,
    /// Whether the destination table is altered by it.
    pub(crate) altering: bool,
}

/// Counts the stored plans for the data plane, in their order, each when the destination table may be altered
/// by it. What waits here holds up other alterations of the mirror, and nothing else.
pub(crate) async fn count_stored(
    environment: &Environment,
    mut stored: mpsc::UnboundedReceiver<Stored>,
    count: watch::Sender<u64>,
) -> Infallible {
    while let Some(plan) = stored.recv().await {
        while plan.altering
            && let Err(error) = wait_to_alter(environment, plan.table_id).await
        {
            tracing::debug!(error = %error, "whether a table may be altered could not be asked");
            tokio::time::sleep(POLL).await;
        }
        count.send_modify(|count| *count += 1);
    }
    // The stream has ended, and this is dropped with it.
    std::future::pending().await
}
