//! Statements that go on while a test does something else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::support::bed::Bed;

/// Statements that go on, one after the other, until they are told to stop; gives how many ran.
pub struct Repeated {
    stop: Arc<AtomicBool>,
    task: JoinHandle<u64>,
}

impl Repeated {
    pub async fn on_source(bed: &Bed, statement: impl Fn(u64) -> String + Send + 'static) -> Self {
        let session = bed.session().await;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut round = 0;
            while !stopped.load(Ordering::Relaxed) {
                round += 1;
                session.batch_execute(&statement(round)).await.expect("writes");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            round
        });
        Self { stop, task }
    }

    pub async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("what is repeated")
    }
}
