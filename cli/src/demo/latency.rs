//! How long a commit takes to be seen in ClickHouse: one row after the other is written and looked for.
//!
//! I/O rim.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::sides::Sides;

/// Pause between two looks for a row. It is the error of a sample.
const LOOK: Duration = Duration::from_millis(3);
/// Pause between two samples.
const PAUSE: Duration = Duration::from_millis(40);
/// Longest wait for one row. A stream that stands still is said by the demo itself.
const LIMIT: Duration = Duration::from_secs(60);

/// Samples being taken in the background.
#[derive(Debug)]
pub struct Probe {
    samples: Arc<Mutex<Vec<Duration>>>,
    task: JoinHandle<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl Probe {
    /// Begins to take samples.
    ///
    /// # Errors
    /// If the source cannot be reached.
    pub async fn start(sides: &Sides) -> anyhow::Result<Self> {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let stop = CancellationToken::new();
        let task =
            tokio::spawn(run(sides.shop().await?, sides.clickhouse(), Arc::clone(&samples), stop.clone()));
        Ok(Self { samples, task, stop })
    }

    /// The samples so far.
    pub fn samples(&self) -> Vec<Duration> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether samples are still taken.
    pub fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    /// Ends the sampling.
    ///
    /// # Errors
    /// What a sample failed with.
    pub async fn stop(self) -> anyhow::Result<Vec<Duration>> {
        self.stop.cancel();
        let Self { samples, task, .. } = self;
        task.await??;
        Ok(samples.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

async fn run(
    source: tokio_postgres::Client,
    destination: clickhouse::Client,
    samples: Arc<Mutex<Vec<Duration>>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let destination = destination.with_setting("final", "0");
    while stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_some() {
        let sql = "insert into events (kind, payload) values ('probe', '{}') returning id::text";
        let id: String = source.query_one(sql, &[]).await?.get(0);
        let committed = Instant::now();
        loop {
            let sql = "SELECT count() FROM events WHERE id = toUUID(?)";
            let seen: u64 =
                destination.query(sql).bind(&id).fetch_one().await.context("looking for a row")?;
            if seen > 0 {
                break;
            }
            anyhow::ensure!(committed.elapsed() < LIMIT, "a row was not seen in ClickHouse within {LIMIT:?}");
            tokio::time::sleep(LOOK).await;
        }
        samples.lock().unwrap_or_else(PoisonError::into_inner).push(committed.elapsed());
    }
    Ok(())
}
