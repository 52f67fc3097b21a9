//! The bytes of rows on their way, all streams of a worker together. Pure but for waking who waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Bytes of rows that a worker holds before its streams stop reading. Large enough for the largest
/// batches of several tables, small enough to leave the machine to others.
pub const WORKER_BYTES: usize = 128 << 20;

/// Bytes that every stream may hold, however much the others do: a stream whose destination is away
/// keeps what it has, and must not stop the others.
const STREAM_BYTES: usize = 8 << 20;

/// A budget of bytes. It is not exceeded by more than one message of each stream: who finds it used
/// up stops reading, and sends what he has.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: usize,
    used: AtomicUsize,
    released: Notify,
    /// The worker's, if this is a stream's part of it.
    whole: Option<Arc<MemoryBudget>>,
}

impl MemoryBudget {
    /// A budget of so many bytes; [`WORKER_BYTES`] for a worker.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), released: Notify::new(), whole: None })
    }

    /// A stream's part: it is full when the whole is, and the stream holds its own share of it.
    pub(super) fn part(self: &Arc<Self>) -> Arc<Self> {
        let (limit, used) = (STREAM_BYTES.min(self.limit), AtomicUsize::new(0));
        Arc::new(Self { limit, used, released: Notify::new(), whole: Some(self.clone()) })
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn is_full(&self) -> bool {
        self.used() >= self.limit && self.whole.as_ref().is_none_or(|whole| whole.is_full())
    }

    fn change(&self, from: usize, to: usize) {
        if to >= from {
            self.used.fetch_add(to - from, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(from - to, Ordering::Relaxed);
            self.released.notify_waiters();
        }
        if let Some(whole) = &self.whole {
            whole.change(from, to);
        }
    }

    /// Waits until it is not full.
    pub(super) async fn wait(&self) {
        loop {
            let released = self.released.notified();
            let whole = self.whole.as_ref().map(|whole| whole.released.notified());
            if !self.is_full() {
                return;
            }
            match whole {
                Some(whole) => tokio::select! { () = released => {} () = whole => {} },
                None => released.await,
            }
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
        self.budget.change(self.bytes, bytes);
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

    #[tokio::test]
    async fn a_stream_has_its_share_whatever_the_others_hold() {
        let worker = MemoryBudget::new(100 << 20);
        let (greedy, modest) = (worker.part(), worker.part());
        let mut hoard = Share::new(greedy.clone());
        hoard.set(100 << 20);
        assert!(greedy.is_full() && !modest.is_full());
        let mut some = Share::new(modest.clone());
        some.set(STREAM_BYTES);
        assert!(modest.is_full());
        let waiting = tokio::spawn({
            let modest = modest.clone();
            async move { modest.wait().await }
        });
        tokio::task::yield_now().await;
        hoard.set(0);
        waiting.await.unwrap();
    }
}
