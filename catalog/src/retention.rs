//! What is deleted when it is old.

use std::time::Duration;

use millrace_terms::Result;

use crate::connection::Catalog;
use crate::sql;

/// Rows deleted by one statement, so that it stays well below the time limit of the session: a catalog
/// that was not tidied for long would otherwise never be.
const CHUNK_ROWS: i64 = 10_000;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the figures of streams are kept: last week is compared with this one.
pub const BATCHES_KEPT: Duration = DAY.saturating_mul(7);

/// How long events are kept: long enough to look back over a month's incidents.
pub const EVENTS_KEPT: Duration = DAY.saturating_mul(30);

/// How long a draft, which holds sealed secrets, is kept if whoever asked did not delete it. A check
/// takes at most half a minute.
pub const DRAFTS_KEPT: Duration = Duration::from_secs(10 * 60);

/// How long the audit log is kept: a year is what auditors look back over.
pub const AUDIT_KEPT: Duration = DAY.saturating_mul(365);

/// How long a comparison is kept, with the keys of rows that differ: somebody looks at it in the same week.
pub const VERIFICATIONS_KEPT: Duration = DAY.saturating_mul(7);

impl Catalog {
    /// Deletes batches, events, drafts, comparisons and audit entries that are older than they are kept; gives their number.
    pub async fn delete_expired(&self) -> Result<u64> {
        let client = self.client().await?;
        let mut deleted = 0;
        for (table, time, kept) in [
            ("batches", "at", BATCHES_KEPT),
            ("events", "at", EVENTS_KEPT),
            ("drafts", "created_at", DRAFTS_KEPT),
            ("audit", "at", AUDIT_KEPT),
            ("verifications", "created_at", VERIFICATIONS_KEPT),
        ] {
            let sql = format!(
                "delete from {table} where ctid = any(array(
                    select ctid from {table} where {time} < now() - make_interval(secs => $1) limit $2))"
            );
            loop {
                let chunk = sql::execute(&client, &sql, &[&kept.as_secs_f64(), &CHUNK_ROWS]).await?;
                deleted += chunk;
                if chunk < CHUNK_ROWS.unsigned_abs() {
                    break;
                }
            }
        }
        Ok(deleted)
    }
}
