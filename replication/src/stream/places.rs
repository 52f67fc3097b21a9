//! Who may ask the destination at the moment: so many attempts at once, all tables together. A step
//! that waits for its next attempt gives its place up, and comes back behind those who wait already.
//! Concurrency only; no I/O.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use millrace_terms::{Code, Error, Result};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The places. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    paused: Arc<AtomicUsize>,
    /// Told when a step gives its place up.
    freed: Arc<Notify>,
}

/// A place that is held, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    _permit: OwnedSemaphorePermit,
}

/// A step without a place, between two attempts.
#[derive(Debug)]
pub(super) struct Paused {
    places: Places,
}

impl Places {
    /// So many places, at least one.
    pub(super) fn new(most: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS))),
            paused: Arc::default(),
            freed: Arc::default(),
        }
    }

    /// Takes a place, in the order of the calls.
    ///
    /// # Errors
    /// None in practice: the places are never closed.
    pub(super) async fn take(&self) -> Result<Place> {
        let permit = self.free.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Error::new(Code::Cancelled, "the stream has no places any more"))?;
        Ok(Place { places: self.clone(), _permit: permit })
    }

    /// Steps that are under way but hold no place.
    pub(super) fn paused(&self) -> usize {
        self.paused.load(Ordering::Relaxed)
    }

    /// Waits until a step gives its place up.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }
}

impl Place {
    /// Gives the place up until the next attempt.
    pub(super) fn leave(self) -> Paused {
        self.places.paused.fetch_add(1, Ordering::Relaxed);
        let paused = Paused { places: self.places.clone() };
        drop(self);
        paused.places.freed.notify_one();
        paused
    }
}

impl Paused {
    /// Takes a place again.
    ///
    /// # Errors
    /// As [`Places::take`].
    pub(super) async fn come_back(self) -> Result<Place> {
        // Counted as paused until it has one: nobody else is sent off in its stead meanwhile.
        self.places.take().await
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        self.places.paused.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_pauses_gives_its_place_up_and_comes_back_behind_those_who_wait() {
        let places = Places::new(2);
        let (one, two) = (places.take().await.unwrap(), places.take().await.unwrap());
        let waiting = tokio::spawn({
            let places = places.clone();
            async move { places.take().await.map(drop) }
        });
        let (one, two) = (one.leave(), two.leave());
        places.freed().await;
        assert_eq!(places.paused(), 2);
        waiting.await.unwrap().unwrap();
        let one = one.come_back().await.unwrap();
        assert_eq!(places.paused(), 1);
        drop(two);
        drop(one);
        assert_eq!((places.paused(), places.free.available_permits()), (0, 2));
    }

    #[tokio::test]
    async fn there_is_always_a_place() {
        drop(Places::new(0).take().await.unwrap());
    }
}
