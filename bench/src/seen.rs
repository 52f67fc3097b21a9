//! From commit to visible: when what was committed, and when it was seen. I/O.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::bed::Bed;
use crate::report::{Figures, percentile};

/// Transactions that are committed and not seen yet. Each bears a mark that only grows: of rows, the highest
/// id, or how many there are.
#[derive(Debug, Clone, Default)]
pub struct Unseen(Arc<Mutex<VecDeque<(u64, Instant)>>>);

impl Unseen {
    /// A transaction was committed just now.
    pub fn committed(&self, mark: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back((mark, Instant::now()));
    }

    /// Asks for the highest mark for a while, and returns the latency of each transaction that was seen, in
    /// milliseconds and in their order.
    ///
    /// # Errors
    /// ClickHouse's.
    pub async fn watch(
        &self,
        bed: &Bed,
        sql: &str,
        pause: Duration,
        how_long: Duration,
    ) -> anyhow::Result<Vec<f64>> {
        let deadline = Instant::now() + how_long;
        let mut latencies = Vec::new();
        while Instant::now() < deadline {
            let highest: u64 = bed.clickhouse.text(sql).await?.parse()?;
            let now = Instant::now();
            {
                let mut unseen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                while let Some((_, committed)) = unseen.front().copied().filter(|(mark, _)| *mark <= highest)
                {
                    unseen.pop_front();
                    latencies.push(now.saturating_duration_since(committed).as_secs_f64() * 1e3);
                }
            }
            tokio::time::sleep(pause).await;
        }
        Ok(latencies)
    }
}

/// What is told of latencies, in milliseconds.
pub fn latencies(mut latencies: Vec<f64>) -> Figures {
    latencies.sort_by(f64::total_cmp);
    vec![
        ("p50 ms", percentile(&latencies, 0.5)),
        ("p95 ms", percentile(&latencies, 0.95)),
        ("p99 ms", percentile(&latencies, 0.99)),
        ("max ms", percentile(&latencies, 1.0)),
    ]
}
