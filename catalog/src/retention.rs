//! What is deleted when it is old.

use std::time::Duration;

use millrace_terms::Result;

use crate::connection::Catalog;
use crate::sql;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the figures of streams are kept: last week is compared with this one.
pub const BATCHES_KEPT: Duration = DAY.saturating_mul(7);

/// How long events are kept: long enough to look back over a month's incidents.
pub const EVENTS_KEPT: Duration = DAY.saturating_mul(30);

/// How long a draft, which holds sealed secrets, is kept if whoever asked did not delete it. A check
/// takes at most half a minute.
pub const DRAFTS_KEPT: Duration = Duration::from_secs(10 * 60);

impl Catalog {
    /// Deletes batches, events and drafts that are older than they are kept; gives their number.
    pub async fn delete_expired(&self) -> Result<u64> {
        let client = self.client().await?;
        let mut deleted = 0;
        for (sql, kept) in [
            ("delete from batches where at < now() - make_interval(secs => $1)", BATCHES_KEPT),
            ("delete from events where at < now() - make_interval(secs => $1)", EVENTS_KEPT),
            ("delete from drafts where created_at < now() - make_interval(secs => $1)", DRAFTS_KEPT),
        ] {
            deleted += sql::execute(&client, sql, &[&kept.as_secs_f64()]).await?;
        }
        Ok(deleted)
    }
}
