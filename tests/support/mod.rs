//! What tests are made of.
//!
//! - [`stack`]: the one `millrace dev` that all tests share.
//! - [`bed`]: what one test works with: a source database, a ClickHouse database, two peers.
//! - [`cell`]: servers and workers of a test's own, to be killed.
//! - [`equal`]: whether a destination table is the source table.
//! - [`http`]: a probe over HTTP.
//! - [`proxy`]: a connection that can be cut.
//! - [`wait`]: waiting for something to become true.

pub mod bed;
pub mod cell;
pub mod clickhouse;
pub mod equal;
pub mod http;
pub mod proxy;
pub mod stack;
pub mod wait;

use std::future::Future;

use libtest_mimic::{Failed, Trial};

/// A test: its name and its body. The body gets a test bed named after it.
pub fn test<F, Fut>(name: &'static str, body: F) -> Trial
where
    F: FnOnce(bed::Bed) -> Fut + Send + 'static,
    Fut: Future<Output = ()>,
{
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(Failed::from)?;
        runtime.block_on(async {
            let bed = bed::Bed::new(name).await;
            body(bed).await;
        });
        runtime.shutdown_background();
        Ok(())
    })
}
