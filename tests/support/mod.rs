//! What tests are made of.
//!
//! - [`stack`]: the one `millrace dev` that all tests share.
//! - [`bed`]: what one test works with: a source database, a ClickHouse database, two peers.
//! - [`cell`]: servers and workers of a test's own, to be killed.
//! - [`guarded`]: a server of a test's own that asks for tokens.
//! - [`equal`]: whether a destination table is the source table.
//! - [`http`]: a probe over HTTP.
//! - [`proxy`]: a connection that can be cut.
//! - [`wait`]: waiting for something to become true.

pub mod bed;
pub mod cell;
pub mod clickhouse;
pub mod equal;
pub mod guarded;
pub mod http;
pub mod proxy;
pub mod repeated;
pub mod stack;
pub mod tls;
pub mod wait;

use std::future::Future;
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use millrace_proto::v1 as api;
use millrace_proto::v1::mirror_service_client::MirrorServiceClient;
use tonic::transport::Channel;

/// Tests run side by side, but for those that need the whole machine.
static MACHINE: RwLock<()> = RwLock::new(());
/// What takes longer than this is told: the next one who looks for time finds it there.
const LONG: Duration = Duration::from_secs(30);

/// Waits until no other test runs, and keeps others from starting.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// A test: its name and its body. The body gets a test bed named after it.
pub fn test<F, Fut>(name: &'static str, body: F) -> Trial
where
    F: FnOnce(bed::Bed) -> Fut + Send + 'static,
    Fut: Future<Output = ()>,
{
    Trial::test(name, move || {
        let _beside_others = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
        let start = Instant::now();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(Failed::from)?;
        runtime.block_on(async {
            let bed = bed::Bed::new(name).await;
            let (mirrors, mirror) = (bed.mirrors(), bed.name.clone());
            body(bed).await;
            clean_up(mirrors, mirror).await;
        });
        runtime.shutdown_background();
        if start.elapsed() > LONG {
            eprintln!("{name} took {} s", start.elapsed().as_secs());
        }
        Ok(())
    })
}

/// How long the drop of what a test left may take.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(20);

/// Drops the mirror of a test that has ended: it would hold a slot of the source, and stream, until all are
/// over. Whether that succeeds is of no interest here: the tests of drops show that they work.
async fn clean_up(mut mirrors: MirrorServiceClient<Channel>, name: String) {
    let request = api::DeleteMirrorRequest { name, allow_missing: true, ..Default::default() };
    let _dropped = tokio::time::timeout(CLEAN_UP_LIMIT, mirrors.delete_mirror(request)).await;
}
