//! Waiting for something to become true, bounded, by asking again.

use std::future::Future;
use std::time::{Duration, Instant};

/// How often the question is asked: often enough to cost a test nothing, seldom enough to leave the
/// two cores to the parts under test.
const PERIOD: Duration = Duration::from_millis(50);

/// Asks until the answer is `Ok`; after `limit` panics with the last `Err`, which says what was seen.
pub async fn until<T, Fut>(what: &str, limit: Duration, mut ask: impl FnMut() -> Fut) -> T
where
    Fut: Future<Output = Result<T, String>>,
{
    let start = Instant::now();
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > limit => panic!("{what}: not within {limit:?}; last seen: {seen}"),
            Err(_) => tokio::time::sleep(PERIOD).await,
        }
    }
}
