//! How much one caller may ask for, so that a script gone wild takes nothing from the others. Callers without a
//! token, who are on this machine, are not limited.
//!
//! Pure but for the clock.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use millrace_terms::{Code, Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::fault::RETRY_AFTER_MS;

/// Requests of one caller at work at once: a quarter of what the server takes in all.
const CALLER_REQUESTS_MAX: usize = 64;
/// Seconds of its rate that a caller may save up, for a page of a user interface that asks for many things.
const BURST_SECONDS: u32 = 2;
/// When a caller whose requests are all at work may try again: most take milliseconds.
const BUSY_RETRY: Duration = Duration::from_secs(1);
/// Callers remembered at most; beyond it those who do not ask right now are forgotten.
const CALLERS_MAX: usize = 1_000;

/// See the module.
pub(crate) struct Limits {
    rate: Option<DefaultKeyedRateLimiter<String>>,
    per_second: u32,
    clock: DefaultClock,
    at_work: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Limits {
    /// At most so many requests a second of each caller; 0 for any number.
    pub(crate) fn new(per_second: u32) -> Self {
        let quota = |rate: NonZeroU32| {
            let burst = rate.saturating_mul(NonZeroU32::MIN.saturating_add(BURST_SECONDS - 1));
            Quota::per_second(rate).allow_burst(burst)
        };
        Self {
            rate: NonZeroU32::new(per_second).map(|rate| RateLimiter::keyed(quota(rate))),
            per_second,
            clock: DefaultClock::default(),
            at_work: Mutex::default(),
        }
    }

    /// Lets a request of a caller through; it is at work until the permit is dropped.
    ///
    /// # Errors
    /// RATE_LIMITED, with the time after which it may be repeated.
    pub(crate) fn admit(&self, caller: &String) -> Result<OwnedSemaphorePermit> {
        if let Some(rate) = &self.rate
            && let Err(early) = rate.check_key(caller)
        {
            let wait = early.wait_time_from(self.clock.now());
            return Err(limited(
                format!("the token {caller} asks more than {} times a second", self.per_second),
                wait,
            ));
        }
        let places = self.places(caller);
        places.try_acquire_owned().map_err(|_| {
            let what = format!("{CALLER_REQUESTS_MAX} requests of the token {caller} are at work already");
            limited(what, BUSY_RETRY)
        })
    }

    fn places(&self, caller: &str) -> Arc<Semaphore> {
        // Every change of it is whole, so a panic elsewhere leaves nothing half done.
        let mut all = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= CALLERS_MAX {
            all.retain(|_, places| places.available_permits() < CALLER_REQUESTS_MAX);
            if let Some(rate) = &self.rate {
                rate.retain_recent();
            }
        }
        all.entry(caller.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(CALLER_REQUESTS_MAX))).clone()
    }
}

fn limited(what: String, wait: Duration) -> Error {
    let wait = wait.max(Duration::from_millis(1));
    Error::new(Code::RateLimited, what).with(RETRY_AFTER_MS, wait.as_millis().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_who_asks_too_often_is_told_when_to_come_back_and_others_are_let_in() {
        let limits = Limits::new(5);
        let (wild, calm) = ("wild".to_owned(), "calm".to_owned());
        let refused = (0..100).find_map(|_| limits.admit(&wild).err()).unwrap();
        assert_eq!(refused.code(), Code::RateLimited);
        assert!(refused.metadata()[RETRY_AFTER_MS].parse::<u64>().unwrap() <= 1_000, "{refused:?}");
        drop(limits.admit(&calm).unwrap());
    }

    #[test]
    fn one_caller_cannot_take_all_places() {
        let limits = Limits::new(0);
        let name = "wild".to_owned();
        let held: Vec<_> = (0..CALLER_REQUESTS_MAX).map(|_| limits.admit(&name).unwrap()).collect();
        assert_eq!(limits.admit(&name).unwrap_err().code(), Code::RateLimited);
        drop(limits.admit(&"calm".to_owned()).unwrap());
        drop(held);
        drop(limits.admit(&name).unwrap());
    }
}
