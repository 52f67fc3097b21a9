//! The bytes of rows on their way, all streams of a worker together. Pure but for waking who waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Bytes of rows that a worker holds before its streams stop reading. Large enough for the largest
/// batches of several tables, small enough to leave the machine to others.
pub const WORKER_BYTES: usize = 128 << 20;

/// A budget of bytes. It is not exceeded by more than one message of each stream: who finds it used
/// up stops reading, and sends what he has.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: usize,
    used: AtomicUsize,
    released: Notify,
}

impl MemoryBudget {
    /// A budget of so many bytes; [`WORKER_BYTES`] for a worker.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), released: Notify::new() })
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn is_full(&self) -> bool {
        self.used() >= self.limit
    }

    /// Waits until it is not full.
    pub(super) async fn wait(&self) {
        loop {
            let released = self.released.notified();
            if !self.is_full() {
                return;
            }
            released.await;
        }
    }
}

/// A batch's part of a budget, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl Share {
    pub(super) fn new(budget: Arc<MemoryBudget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// The batch has so many bytes now.
    pub(super) fn set(&mut self, bytes: usize) {
        if bytes >= self.bytes {
            self.budget.used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            self.budget.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            self.budget.released.notify_waiters();
        }
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_is_woken_when_bytes_are_given_back() {
        let budget = MemoryBudget::new(100);
        let mut first = Share::new(budget.clone());
        let mut second = Share::new(budget.clone());
        first.set(60);
        second.set(50);
        assert!(budget.is_full());
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.wait().await }
        });
        tokio::task::yield_now().await;
        second.set(30);
        assert_eq!(budget.used(), 90);
        waiting.await.unwrap();
        drop((first, second));
        assert_eq!(budget.used(), 0);
    }
}
