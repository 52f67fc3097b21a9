//! Replication slots, as the catalog keeps them.
//!
//! Pure.

use millrace_catalog::slots::SlotLook;
use millrace_replication::postgres::slot::SlotStatus;

/// A slot as the catalog keeps it.
pub(crate) fn look(status: SlotStatus) -> SlotLook {
    SlotLook {
        active_pid: status.active_pid,
        wal_status: status.wal_status,
        restart: status.restart,
        confirmed: status.confirmed,
        current: status.current,
        limit_bytes: status.limit_bytes,
        safe_bytes: status.safe_bytes,
        invalidation: status.invalidation,
    }
}
