//! What a copy has done so far, for whoever looks at it meanwhile. Pure.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one or more copies. They grow only; a copy that is repeated is counted again.
#[derive(Debug, Default)]
pub struct CopyProgress {
    rows_read: AtomicU64,
    bytes_read: AtomicU64,
    rows_written: AtomicU64,
}

impl CopyProgress {
    /// Rows read from the source and handed on.
    pub fn rows_read(&self) -> u64 {
        self.rows_read.load(Ordering::Relaxed)
    }

    /// Bytes of COPY read from the source.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Rows that the destination has acknowledged.
    pub fn rows_written(&self) -> u64 {
        self.rows_written.load(Ordering::Relaxed)
    }

    pub(super) fn add_read(&self, rows: u64, bytes: u64) {
        self.rows_read.fetch_add(rows, Ordering::Relaxed);
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_written(&self, rows: u64) {
        self.rows_written.fetch_add(rows, Ordering::Relaxed);
    }
}
