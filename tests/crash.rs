//! Crashes: whatever dies, another goes on, and nothing is lost or begun anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror};
use tokio::task::JoinHandle;

use crate::support::bed::{Bed, SOON, connect};
use crate::support::cell::Cell;
use crate::support::{test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test("crash::worker_killed_while_copying", worker_killed_while_copying),
        test("crash::worker_killed_while_streaming", worker_killed_while_streaming),
        test("crash::worker_frozen_while_streaming", worker_frozen_while_streaming),
        test("crash::server_killed_and_restarted", server_killed_and_restarted),
    ]
}

/// The promise: changes flow again this long after a worker was killed.
const RECOVERY_LIMIT: Duration = Duration::from_secs(15);

/// Writes to `t` until told to stop.
struct Writer {
    stop: Arc<AtomicBool>,
    rows: Arc<AtomicI64>,
    task: JoinHandle<()>,
}

impl Writer {
    async fn start(bed: &Bed) -> Self {
        let session = bed.session().await;
        let (stop, rows) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let (stopped, counted) = (stop.clone(), rows.clone());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let i = 1_000_000 + counted.fetch_add(1, Ordering::Relaxed);
                let sql = format!(
                    "insert into t values ({i}, 1, 'new'); update t set v = v + 1 where id = {i} - 3; delete from t where id = {i} - 5 and id % 4 = 0"
                );
                session.batch_execute(&sql).await.expect("writes");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Self { stop, rows, task }
    }

    async fn stop(self) -> i64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the writer");
        self.rows.load(Ordering::Relaxed)
    }
}

async fn worker_killed_while_copying(mut bed: Bed) {
    let cell = Cell::new(&mut bed).await;
    bed.sql("create table t (id int primary key, v int, filler text)").await;
    bed.sql("insert into t select i, 0, repeat(md5(i::text), 40) from generate_series(1, 60000) i").await;
    let mut first = cell.worker().await;
    let mut request = bed.mirror(&["public.t"]);
    request.settings = Some(api::Settings {
        snapshot: Some(api::SnapshotSettings {
            partition_bytes: Some(1 << 20),
            parallel_partitions: Some(1),
            ..Default::default()
        }),
        ..Default::default()
    });
    bed.create(request).await.expect("a mirror");
    bed.wait_for("some partitions done", |m| m.tables[0].partitions_done >= 3).await;
    first.kill();
    let killed_at = bed.get().await.expect("the mirror");
    let done = killed_at.tables[0].partitions_done;
    assert!(done < killed_at.tables[0].partitions_total, "the copy was over before the worker was killed");
    let catalog = connect(&cell.catalog, None).await;
    let finished = "select coalesce(string_agg(no || '@' || finished_at::text, ',' order by no), '') from partitions where state = 'DONE' and no = any($1)";
    let numbers: Vec<i32> = catalog
        .query("select no from partitions where state = 'DONE'", &[])
        .await
        .expect("partitions")
        .iter()
        .map(|row| row.get(0))
        .collect();
    let before: String = catalog.query_one(finished, &[&numbers]).await.expect("partitions").get(0);
    let _second = cell.worker().await;
    bed.wait_state(mirror::State::Running).await;
    assert_eq!(bed.wait_equal("t", "t").await, 60_000);
    let after: String = catalog.query_one(finished, &[&numbers]).await.expect("partitions").get(0);
    assert_eq!(before, after, "a partition that was done is not copied again");
    let workers = "select count(distinct split_part(lease_owner, '/', 1)) from partitions";
    let workers: i64 = catalog.query_one(workers, &[]).await.expect("partitions").get(0);
    assert_eq!(workers, 2, "both workers copied partitions of the same snapshot");
}

async fn worker_killed_while_streaming(mut bed: Bed) {
    let cell = Cell::new(&mut bed).await;
    bed.sql("create table t (id int primary key, v int, filler text); insert into t values (1, 1, 'old')")
        .await;
    let mut first = cell.worker().await;
    bed.mirror_streaming(&["public.t"]).await;
    let writer = Writer::start(&bed).await;
    visible(&bed, 1_000_020).await;
    let _second = cell.worker().await;
    let killed = Instant::now();
    first.kill();
    let last = 1_000_000 + writer.rows.load(Ordering::Relaxed);
    visible(&bed, last + 10).await;
    let recovery = killed.elapsed();
    assert!(recovery < RECOVERY_LIMIT, "changes flowed again only after {recovery:?}");
    assert!(writer.stop().await > 20);
    bed.wait_equal("t", "t").await;
}

/// A frozen worker is a zombie: it wakes up when another has taken over, and must change nothing.
async fn worker_frozen_while_streaming(mut bed: Bed) {
    let cell = Cell::new(&mut bed).await;
    bed.sql("create table t (id int primary key, v int, filler text); insert into t values (1, 1, 'old')")
        .await;
    let first = cell.worker().await;
    bed.mirror_streaming(&["public.t"]).await;
    let writer = Writer::start(&bed).await;
    visible(&bed, 1_000_020).await;
    first.freeze();
    let _second = cell.worker().await;
    let last = 1_000_000 + writer.rows.load(Ordering::Relaxed);
    visible(&bed, last + 10).await;
    first.thaw();
    let last = 1_000_000 + writer.rows.load(Ordering::Relaxed);
    visible(&bed, last + 10).await;
    writer.stop().await;
    bed.wait_equal("t", "t").await;
}

async fn server_killed_and_restarted(mut bed: Bed) {
    let mut cell = Cell::new(&mut bed).await;
    bed.sql("create table t (id int primary key, v int, filler text); insert into t values (1, 1, 'old')")
        .await;
    let _worker = cell.worker().await;
    bed.mirror_streaming(&["public.t"]).await;
    cell.kill_server();
    bed.sql("insert into t values (2, 2, 'while the server is dead')").await;
    visible(&bed, 2).await;
    cell.restart_server().await;
    let mirror = bed.wait_state(mirror::State::Running).await;
    assert_eq!(mirror.tables[0].source, "public.t");
    bed.wait_equal("t", "t").await;
}

/// Waits until a row of `t` with this key or a higher one is visible in ClickHouse.
async fn visible(bed: &Bed, id: i64) {
    wait::until(&format!("row {id}"), SOON, || async {
        let seen = bed.clickhouse.query("select toInt64(max(id)) from t final").await?;
        match seen.trim().parse::<i64>() {
            Ok(max) if max >= id => Ok(()),
            _ => Err(seen),
        }
    })
    .await;
}
